"""Ablation: heads and MLPs replaced, effects with intervals, control sets, verdicts."""

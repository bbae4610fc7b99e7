"""Measures of consistency: within a model, between models, and over the snapshots of a run."""

"""Measures of success: attention, probes and tuned predictions of every model, and their comparison."""

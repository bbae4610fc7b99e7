"""Errors of models and baselines on fresh prompts, and when a run converged."""

"""Shared parts of studies: groups of runs, histories, errors on the same prompts."""

"""What several studies share: groups of runs, histories, errors on the same prompts."""

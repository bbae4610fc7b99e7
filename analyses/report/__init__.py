"""The head-consistency report: evidence from any number of checkpoints on one page that needs nothing else."""

"""What a run is told: its configuration, read from files and `--set`, and its curriculum."""

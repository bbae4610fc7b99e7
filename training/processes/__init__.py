"""Several runs at once, one process each."""

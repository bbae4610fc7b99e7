"""Runs on disk: format, names, history."""

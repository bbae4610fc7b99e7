"""Activation patching: what components carry, and where it goes."""

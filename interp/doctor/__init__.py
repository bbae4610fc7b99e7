"""Checks of an installation (`interp doctor`)."""

"""Whether this platform is supported. Imports the standard library only, so that it works where other imports fail."""

import sys

SUPPORTED = {"linux": "Linux", "darwin": "macOS"}
"""Platforms by their name in `sys.platform`."""


def unsupported() -> str | None:
    """One line that says that this platform is not supported, and what to do; None if it is."""
    if sys.platform in SUPPORTED:
        return None
    advice = "; on Windows, use WSL" if sys.platform in ("win32", "cygwin") else ""
    names = " and ".join(SUPPORTED.values())
    return f"this platform ({sys.platform}) is not supported: the commands run on {names}{advice}"

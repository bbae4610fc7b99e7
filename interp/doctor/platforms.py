"""Whether this platform is supported. Imports the standard library only, so that it can speak before the rest."""

import sys

SUPPORTED = {"linux": "Linux", "darwin": "macOS"}
"""Names of platforms by what `sys.platform` calls them."""


def unsupported() -> str | None:
    """One line that says that the commands do not run on this platform, and what to do; None if they do."""
    if sys.platform in SUPPORTED:
        return None
    cure = "; on Windows, use WSL" if sys.platform in ("win32", "cygwin") else ""
    return (
        f"this platform ({sys.platform}) is not supported: the commands run on {' and '.join(SUPPORTED.values())}{cure}"
    )

"""Whether `training`, `interp` and `analyses` are this project's: Python imports the first package of a common name.

Imports the standard library only, so that it works where other imports fail.
"""

from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

DISTRIBUTION = "incontext-interp"
PACKAGES = ("training", "interp", "analyses")
HOME = Path(__file__).parents[2]
"""The directory that contains this project's packages."""

LEAVE_OUT = (
    "rename it, start `interp` or Python from another directory, or leave the current one out with PYTHONSAFEPATH=1 "
    "(`python -P`)"
)


def misplaced(package: str, home: Path = HOME) -> str | None:
    """One line on what `import package` finds instead of this project's, and what to do; None if that is found."""
    path = origin(package)
    if path and path.resolve() == (home / package / "__init__.py").resolve():
        return None
    if path is None:
        return f"there is no package '{package}' beside {HOME / 'interp'}: install {DISTRIBUTION} again"
    others = strangers(package)
    advice = f"pip uninstall {others[0]}" if others else LEAVE_OUT
    return f"`import {package}` finds {path}, not this project's {home / package}: {advice}"


def origin(package: str) -> Path | None:
    """The file that `import package` would run; None without one, as in a directory without `__init__.py`."""
    spec = find_spec(package)
    return Path(spec.origin) if spec and spec.origin else None


def strangers(package: str) -> list[str]:
    """The names of other installed distributions with a package of this name."""
    return sorted({*packages_distributions().get(package, ())} - {DISTRIBUTION})

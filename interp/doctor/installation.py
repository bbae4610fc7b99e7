"""What pip knows about this installation: versions, what is missing, whose packages these are. Imports none of them."""

import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from interp.doctor.package_origin import DISTRIBUTION, PACKAGES, misplaced, origin, strangers
from training.common.errors import UserError
from training.common.output import prepare_directory


class Finding(NamedTuple):
    """What a check found.

    Attributes:
        check: what was looked at.
        found: what is there.
        problem: one line that says what is wrong and what to do, or None.
    """

    check: str
    found: str
    problem: str | None = None


def examine_installation(directory: Path) -> list[Finding]:
    """Everything that can be said without importing a heavy package.

    Args:
        directory: where commands would write.
    """
    try:
        project = distribution(DISTRIBUTION)
    except PackageNotFoundError:
        problem = f"pip does not know {DISTRIBUTION}: run `make install` in its checkout"
        return [Finding(DISTRIBUTION, "not installed", problem)]
    requirements = [Requirement(text) for text in project.requires or []]
    return [
        Finding(DISTRIBUTION, project.version),
        check_python(platform.python_version(), project.metadata["Requires-Python"]),
        *(check_dependency(one) for one in requirements if applies(one)),
        *(check_extra(extra, requirements) for extra in project.metadata.get_all("Provides-Extra") or []),
        *(check_package(package) for package in PACKAGES),
        check_notebooks(),
        check_directory(directory),
    ]


def check_python(running: str, needed: str) -> Finding:
    """The running Python against the versions that the project is for.

    >>> check_python("3.10.2", ">=3.11").problem
    'Python 3.10.2 runs, >=3.11 is needed: make the environment again with such a Python'
    """
    fits = SpecifierSet(needed).contains(running, prereleases=True)
    problem = f"Python {running} runs, {needed} is needed: make the environment again with such a Python"
    return Finding("Python", f"{running} ({needed})", None if fits else problem)


def applies(requirement: Requirement, extra: str = "") -> bool:
    """Whether this machine needs it for the extra or, by default, without any."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def check_dependency(requirement: Requirement) -> Finding:
    """One declared dependency: whether it is installed, in a version that will do."""
    name, needed = requirement.name, str(requirement.specifier)
    installed = installed_version(name)
    if installed and requirement.specifier.contains(installed, prereleases=True):
        return Finding(name, f"{installed} ({needed})")
    there = f"{installed} is installed" if installed else "is not installed"
    return Finding(name, installed or "-", f'{name} {there}, {needed} is needed: pip install "{name}{needed}"')


def installed_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def check_extra(extra: str, requirements: Sequence[Requirement]) -> Finding:
    """What of an extra is absent. That is no problem: the commands do not need it."""
    own = [one for one in requirements if applies(one, extra) and not applies(one)]
    absent = [one.name for one in own if check_dependency(one).problem]
    count = f"{len(own) - len(absent)} of {len(own)} packages"
    return Finding(f"extra {extra}", f"{count}; without {', '.join(absent)}" if absent else count)


def check_package(package: str) -> Finding:
    """A top-level package is this project's, and no other distribution has written into it."""
    problem = misplaced(package)
    if not problem and (others := strangers(package)):
        problem = (
            f"{others[0]} has a package '{package}' too, and one may have overwritten the other: "
            f"pip uninstall {others[0]}, then install {DISTRIBUTION} again"
        )
    return Finding(f"package {package}", str(origin(package)), problem)


def check_notebooks() -> Finding:
    """What notebooks use: a kernel, and widgets for progress bars. Commands need neither."""
    versions = {name: installed_version(name) for name in ("ipykernel", "ipywidgets")}
    return Finding("notebooks", ", ".join(f"{name} {there or 'absent'}" for name, there in versions.items()))


def check_directory(directory: Path) -> Finding:
    """Whether commands can write where they are started."""
    try:
        prepare_directory(directory)
    except UserError as error:
        return Finding("directory", str(directory), f"{error}: start elsewhere, or name another place with --out")
    return Finding("directory", f"{directory} can be written to")

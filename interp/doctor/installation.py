"""Checks of the installed packages by their metadata, without importing them: versions, missing and foreign ones."""

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
    """The result of a check.

    Attributes:
        check: its subject.
        result: what is installed, or the measured value.
        problem: one line that says what is wrong and what to do, or None.
    """

    check: str
    result: str
    problem: str | None = None


def examine_installation(directory: Path) -> list[Finding]:
    """All checks that import no heavy package.

    Args:
        directory: the current directory, where commands write.
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
        *(check_dependency(requirement) for requirement in requirements if applies(requirement)),
        *(check_extra(extra, requirements) for extra in project.metadata.get_all("Provides-Extra") or []),
        *(check_package(package) for package in PACKAGES),
        check_notebooks(),
        check_directory(directory),
    ]


def check_python(running: str, needed: str) -> Finding:
    """Whether the project supports the running version of Python.

    >>> check_python("3.10.2", ">=3.11").problem
    'Python 3.10.2 is running, >=3.11 is needed: recreate the environment with such a Python'
    """
    fits = SpecifierSet(needed).contains(running, prereleases=True)
    problem = f"Python {running} is running, {needed} is needed: recreate the environment with such a Python"
    return Finding("Python", f"{running} ({needed})", None if fits else problem)


def applies(requirement: Requirement, extra: str = "") -> bool:
    """Whether the requirement applies on this machine to an extra or, by default, to the plain installation."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def check_dependency(requirement: Requirement) -> Finding:
    """Whether a declared dependency is installed in a permitted version."""
    name, needed = requirement.name, str(requirement.specifier)
    installed = installed_version(name)
    if installed and requirement.specifier.contains(installed, prereleases=True):
        return Finding(name, f"{installed} ({needed})")
    state = f"{installed} is installed" if installed else "is not installed"
    return Finding(name, installed or "-", f'{name} {state}, {needed} is needed: pip install "{name}{needed}"')


def installed_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def check_extra(extra: str, requirements: Sequence[Requirement]) -> Finding:
    """Which packages of an extra are missing. This is no problem: the commands do not need them."""
    of_extra = [requirement for requirement in requirements if applies(requirement, extra) and not applies(requirement)]
    absent = [requirement.name for requirement in of_extra if check_dependency(requirement).problem]
    count = f"{len(of_extra) - len(absent)} of {len(of_extra)} packages"
    return Finding(f"extra {extra}", f"{count}; without {', '.join(absent)}" if absent else count)


def check_package(package: str) -> Finding:
    """Whether a top-level package is this project's and belongs to no other distribution."""
    problem = misplaced(package)
    if not problem and (others := strangers(package)):
        problem = (
            f"{others[0]} also has a package '{package}', and one may have overwritten the other: "
            f"pip uninstall {others[0]}, then install {DISTRIBUTION} again"
        )
    return Finding(f"package {package}", str(origin(package)), problem)


def check_notebooks() -> Finding:
    """The packages that notebooks use for their kernel and progress bars; commands need neither."""
    versions = {name: installed_version(name) for name in ("ipykernel", "ipywidgets")}
    return Finding("notebooks", ", ".join(f"{name} {installed or 'absent'}" for name, installed in versions.items()))


def check_directory(directory: Path) -> Finding:
    """Whether commands can write to the current directory."""
    try:
        prepare_directory(directory)
    except UserError as error:
        return Finding("directory", str(directory), f"{error}: start in another directory, or name one with --out")
    return Finding("directory", f"{directory} can be written to")

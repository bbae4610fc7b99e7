"""The command doctor. Heavy imports wait until it runs, and may fail: that is what it is there to say."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from training import options
from training.common.terminal import echo

if TYPE_CHECKING:
    from interp.doctor.installation import Finding

TRIALS = {"devices": "check_torch", "zoo": "check_zoo", "TransformerLens": "check_hooked"}
"""Checks of interp.doctor.smoke_tests, each of which needs those before it."""


def doctor(json: options.Json = False) -> None:
    """Print versions and devices, and say of every problem with the installation what to do about it.

    A shipped model predicts, and TransformerLens has to predict the same: importing it takes most of the time. Exit
    code 1 if there is a problem.

    \b
    Example:
      interp doctor
    """
    from rich.console import Console

    from interp.doctor.installation import examine_installation
    from training.common.errors import CheckError
    from training.common.output import print_json, print_table

    with Console(stderr=True).status("importing torch and TransformerLens"):
        findings = [*examine_installation(Path.cwd()), *try_out()]
    problems = [finding.problem for finding in findings if finding.problem]
    if json:
        print_json({"checks": [finding._asdict() for finding in findings], "problems": problems})
    else:
        rows = [[check, found, "problem" if problem else "ok"] for check, found, problem in findings]
        print_table("this installation", ["check", "found", ""], rows, align="left")
        for line in problems or ["no problems"]:
            echo(line)
    if problems:
        raise CheckError(f"problems: {len(problems)}")


def try_out() -> "list[Finding]":
    """What comes of computing something, as far as the first trial that breaks off."""
    from interp.doctor.installation import Finding

    findings: list[Finding] = []
    try:
        for function in TRIALS.values():
            findings.append(getattr(import_module("interp.doctor.smoke_tests"), function)())
    except Exception as error:  # a broken installation fails in ways that nobody has foreseen
        name = list(TRIALS)[len(findings)]
        what = " ".join(f"{type(error).__name__}: {error}".split())
        findings.append(
            Finding(name, "failed", f"{name}: {what}: mend what stands above, or make the environment again")
        )
    return findings

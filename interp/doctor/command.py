"""The command doctor. Heavy imports wait until it runs; if they fail, it reports why."""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from training import options

if TYPE_CHECKING:
    from interp.doctor.installation import Finding

SMOKE_TESTS = {"devices": "check_torch", "zoo": "check_zoo", "TransformerLens": "check_hooked"}
"""Functions of interp.doctor.smoke_tests by the name of the check; each needs those before it."""


def doctor(json: options.Json = False) -> None:
    """Print versions and devices, and for every problem with the installation what to do about it.

    Runs a shipped model and compares its predictions with TransformerLens, whose import takes most of the time. Exit
    code 1 if there is a problem.

    \b
    Example:
      interp doctor
    """
    from rich.console import Console

    from interp.doctor.installation import examine_installation
    from training.common.errors import CheckError
    from training.common.output import print_json, print_table
    from training.common.screen import print_text

    with Console(stderr=True).status("importing torch and TransformerLens"):
        findings = [*examine_installation(Path.cwd()), *run_smoke_tests()]
    problems = [finding.problem for finding in findings if finding.problem]
    if json:
        checks = [{"check": check, "found": result, "problem": problem} for check, result, problem in findings]
        print_json({"checks": checks, "problems": problems})
    else:
        rows = [[check, result, "problem" if problem else "ok"] for check, result, problem in findings]
        print_table("this installation", ["check", "found", ""], rows, align="left")
        for line in problems or ["no problems"]:
            print_text(line)
    if problems:
        raise CheckError(f"problems: {len(problems)}")


def run_smoke_tests() -> "list[Finding]":
    """The findings of the smoke tests up to the first one that raises an error, which is reported as a problem."""
    from interp.doctor.installation import Finding

    findings: list[Finding] = []
    try:
        for function in SMOKE_TESTS.values():
            findings.append(getattr(import_module("interp.doctor.smoke_tests"), function)())
    except Exception as error:  # a broken installation can raise anything
        name = list(SMOKE_TESTS)[len(findings)]
        message = " ".join(f"{type(error).__name__}: {error}".split())
        problem = f"{name}: {message}: fix the problems listed above, or recreate the environment"
        findings.append(Finding(name, "failed", problem))
    return findings

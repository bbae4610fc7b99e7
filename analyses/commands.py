"""The commands of the analyses package: study and report. Heavy imports wait until a command runs."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from training import options
from training.commands import check_classes, check_device
from training.common.errors import UserError, refuse_failures
from training.common.terminal import echo

if TYPE_CHECKING:
    from analyses.findings import Findings


class Study(NamedTuple):
    """A question: the module that answers it, in words, and an example of options."""

    module: str
    question: str
    example: str


STUDIES: Mapping[str, Study] = {
    "curricula": Study(
        "curricula",
        "Which curricula learn which function classes, and which forget?",
        "--ckpt 'zoo:*-*' --out results",
    ),
    "inputs": Study(
        "inputs",
        "Does a curriculum over input distributions work as one over function classes does?",
        "--ckpt 'runs/inputs/*/*' --out results",
    ),
    "plateaus": Study(
        "plateaus.study",
        "How many seeds leave the plateau, and is it the no-context optimum?",
        "--ckpt 'zoo:*-*' --out results",
    ),
    "efficiency": Study(
        "efficiency.study", "Does a mixed curriculum need a ninth of the data?", "--ckpt 'zoo:*-*' --out results"
    ),
    "consistency": Study(
        "consistency.study",
        "Are the same heads retrospective on every class, and in every model?",
        "--ckpt 'zoo:*-*' --out results",
    ),
    "cause": Study(
        "cause.study",
        "Do retrospective heads cause in-context learning, in every model that has them?",
        "--ckpt 'zoo:mixed-*' --ckpt 'zoo:random-*' --out cause",
    ),
    "trace": Study(
        "trace.study", "What do retrospective heads carry, and who reads it?", "--ckpt 'zoo:mixed-*' --out trace"
    ),
    "variants": Study(
        "variants.study",
        "What changes with size, prompt length, function class or instruction, and what stays?",
        "--ckpt 'zoo:mixed-*' --ckpt 'runs/sizes/*/*' --out results",
    ),
    "success": Study(
        "success.study",
        "What sets models that learned in context apart from those that stayed on the plateau?",
        "--ckpt 'zoo:*-*' --out success",
    ),
    "published": Study(
        "published",
        "Do the scores of these models look like the published heat maps?",
        "--ckpt zoo:mixed-0 --ckpt zoo:linear-0 --out results",
    ),
    "emergence": Study(
        "emergence.study",
        "When do retrospective heads appear, and does the head come before the loss falls?",
        "--ckpt zoo:mixed-0 --ckpt zoo:random-0 --out emergence",
    ),
}

study = typer.Typer(help="Ask one question of checkpoints: tables, figures and a verdict.", no_args_is_help=True)


@study.callback()
def studies() -> None:
    """Ask one question of checkpoints: tables, figures and a verdict."""


def add_study(name: str, asked: Study) -> None:
    """A command for a module whose `study(checkpoints, n_prompts=…, seed=…)` gives `Findings`."""

    def command(
        ckpt: options.Ckpts,
        prompts: options.Prompts = options.DEFAULT_PROMPTS,
        seed: options.Seed = 0,
        device: options.Device = "cpu",
        json: options.Json = False,
        out: options.Out = None,
    ) -> None:
        from training.checkpoints.name_patterns import load_all
        from training.common import output

        checkpoints = load_all(ckpt, check_device(device))  # before what draws is imported, which takes a second
        if out:
            output.prepare_directory(out)
        present(
            import_module(f"analyses.studies.{asked.module}").study(checkpoints, n_prompts=prompts, seed=seed),
            json,
            out,
        )

    command.__doc__ = f"{asked.question}\n\n\b\nExample:\n  interp study {name} {asked.example}\n"
    study.command(name)(command)


def present(findings: "Findings", json: bool, out: Path | None) -> None:
    """Write the findings of a study where asked to, print them, and end with exit code 1 if a self-check failed."""
    from training.common import output

    if out:
        findings.write(out)
    if json:
        output.print_json(findings.document())
    else:
        findings.show()
        if out:
            echo(f"\ntables, figures and summary.md: {out}/")
    refuse_failures(findings.failures)


for name, asked in STUDIES.items():
    add_study(name, asked)


@study.command()
def retrospective(
    ckpt: options.Ckpt,
    controls: options.Controls = options.DEFAULT_CONTROLS,
    prompts: options.Prompts = options.DEFAULT_PROMPTS,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    json: options.Json = False,
    out: options.Out = None,
) -> None:
    """Do retrospective heads make this model learn in context? Locate them, remove them, judge.

    \b
    Example:
      interp study retrospective --ckpt zoo:mixed-0 --out demo
    """
    from analyses.studies import retrospective as question
    from training.checkpoints.checkpoint import load
    from training.common import output

    checkpoint = load(ckpt, check_device(device))
    if out:
        output.prepare_directory(out)
    present(question.study(checkpoint, n_prompts=prompts, n_controls=controls, seed=seed), json, out)


def report(
    ckpt: options.Ckpts,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FILE.html", help="The page; its numbers go to the directory FILE/ (JSON, CSV) beside it."
        ),
    ] = None,
    classes: options.Classes = None,
    controls: options.Controls = options.DEFAULT_CONTROLS,
    prompts: options.Prompts = options.DEFAULT_PROMPTS,
    seed: options.Seed = 0,
    paths: Annotated[bool, typer.Option("--paths/--no-paths", help="Trace who reads the found heads.")] = True,
    device: options.Device = "cpu",
    json: options.Json = False,
) -> None:
    """Put the evidence for heads that learn in context on one page: verdicts, figures, tables, warnings.

    Heads are chosen by retrospective score on prompts of their own and tested on others. The page is one file that
    needs no network. --out may also be a directory, which then holds report.html.

    \b
    Examples:
      interp report --ckpt zoo:mixed-0 --out report.html
      interp report --ckpt 'zoo:*-*' --classes linear --out reports/all.html
    """
    if out is None and not json:
        raise UserError("--out is missing: name the page, for example --out report.html (or ask for --json)")
    import sys

    from analyses.report import files
    from analyses.report.evidence import Settings
    from analyses.report.report import report as make
    from interp.scores.score import check_scores
    from training.checkpoints.name_patterns import load_all
    from training.common import output

    target = None if out is None else files.page_path(out)
    named = tuple(check_classes(classes, ())) or None
    checkpoints = load_all(ckpt, check_device(device))
    for one in checkpoints:
        check_scores(one.config, named or one.config.evaluated_classes, [])
    if target:
        files.check_writable(target)
    made = make(checkpoints, Settings(prompts, controls, seed, named, paths), sys.argv[1:])
    if target:
        made.write(target)
    if json:
        output.print_json(made.document)
    else:
        for claim in made.account.claims:
            echo(f"- {claim.statement} {claim.verdict.upper()}: {claim.because}")
        n_warnings, numbers = len(made.account.caveats), files.data_directory(target)  # type: ignore[arg-type]
        echo(f"\n{n_warnings} warnings; page: {target}, its numbers: {numbers}/")
    refuse_failures(failure for model in made.evidence.models for failure in model.failures)

"""The commands `interp study` and `interp report`. Heavy imports wait until a command runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analyses.studies.registry import STUDIES, Study, check_studies, study_function
from interp.model.attached import opens_files
from training import options
from training.commands import check_classes, run_command
from training.common.devices import check_device
from training.common.errors import UserError, refuse_failures
from training.common.terminal import echo

if TYPE_CHECKING:
    from collections.abc import Callable

    from analyses.findings import Findings
    from training.checkpoints.checkpoint import Checkpoint
    from training.checkpoints.provenance import Provenance


study = typer.Typer(help="Ask one question of checkpoints: tables, figures and a verdict.", no_args_is_help=True)


@study.callback()
def studies() -> None:
    """Ask one question of checkpoints: tables, figures and a verdict."""


def load_pooled(names: list[str], device: str, independent: bool) -> "list[Checkpoint]":
    """The checkpoints of a command that pools them over independent seeds.

    Args:
        names: names and patterns.
        device: where to.
        independent: whether runs with unknown seeds count as independent.

    Raises:
        UserError: there is no such checkpoint, or several of which one has unknown seeds, without `independent`.
    """
    from interp.statistics.seeds import as_independent, independent_seeds
    from training.checkpoints.name_patterns import load_all

    checkpoints = load_all(names, device)
    if independent:
        checkpoints = as_independent(checkpoints)
    independent_seeds(checkpoints)
    return checkpoints


def add_study(name: str, entry: Study) -> None:
    """Add the command of a module whose `study(checkpoints, n_prompts=…, seed=…)` gives `Findings`."""

    def command(
        ckpt: options.Ckpts,
        prompts: options.Prompts = options.DEFAULT_PROMPTS,
        seed: options.Seed = 0,
        independent: options.Independent = False,
        device: options.Device = "cpu",
        json: options.Json = False,
        out: options.Out = None,
    ) -> None:
        from training.checkpoints.provenance import Provenance

        checkpoints = load_pooled(ckpt, check_device(device), independent)  # before plotting libraries are imported
        run_study = study_function(name)

        def compute() -> "Findings":
            return run_study(checkpoints, n_prompts=prompts, seed=seed).with_unknown_seeds(checkpoints)

        present(compute, Provenance.of(checkpoints, seed, prompts), json, out)

    command.__doc__ = f"{entry.question}\n\n\b\nExample:\n  interp study {name} {entry.example}\n"
    study.command(name)(command)


for name, entry in STUDIES.items():
    add_study(name, entry)


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
    """Do retrospective heads make this model learn in context? Score, ablate, and compare with control sets.

    \b
    Example:
      interp study retrospective --ckpt zoo:mixed-0 --out demo
    """
    from analyses.studies import retrospective as question
    from training.checkpoints.checkpoint import load
    from training.checkpoints.provenance import Provenance

    checkpoint = load(ckpt, check_device(device))

    def compute() -> "Findings":
        return question.study(checkpoint, n_prompts=prompts, n_controls=controls, seed=seed)

    present(compute, Provenance.of([checkpoint], seed, prompts), json, out)


def present(compute: "Callable[[], Findings]", provenance: "Provenance", json: bool, out: Path | None) -> None:
    """Run a study, write its files, print it, and end with exit code 1 if a self-check failed."""
    from analyses.findings import Findings

    findings = run_command(
        compute,
        write=Findings.write,
        document=Findings.document,
        show=Findings.show,
        provenance=provenance,
        verdict=Findings.sentences,
        json=json,
        out=out,
    )
    refuse_failures(findings.failures)


STUDIES_HELP = (
    "Studies to show as well, for example curricula,which_score. auto: those that the models were made for "
    "(pools of functions, transplants, clamping); none."
)


@opens_files("analyses.report.attached:report", "controls", "seed")
def report(
    ckpt: options.AnyCkpts,
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
    paths: Annotated[bool, typer.Option("--paths/--no-paths", help="Trace the readers of the found heads.")] = True,
    studies: Annotated[str, typer.Option("--studies", metavar="NAMES", help=STUDIES_HELP)] = "auto",
    independent: options.Independent = False,
    device: options.Device = "cpu",
    json: options.Json = False,
) -> None:
    """Put the evidence for heads that learn in context on one page: verdicts, figures, tables, warnings.

    Heads are chosen by retrospective score on selection prompts and tested on others. The page is one file that needs
    no network. --out may also be a directory, which then holds report.html.

    \b
    Examples:
      interp report --ckpt zoo:mixed-0 --out report.html
      interp report --ckpt 'zoo:*-*' --classes linear --out reports/all.html
      interp report --ckpt 'runs/clamping/*/*' --studies auto --out clamping.html
    """
    if out is None and not json:
        raise UserError("--out is missing: name the page, for example --out report.html (or ask for --json)")
    import sys

    from analyses.report import files
    from analyses.report.evidence import Settings
    from analyses.report.report import report as make_report
    from interp.scores.score import check_scores
    from training.checkpoints.provenance import Provenance
    from training.common import output
    from training.common.screen import print_text

    target = None if out is None else files.page_path(out)
    chosen_classes, chosen_studies = tuple(check_classes(classes, ())) or None, check_studies(studies)
    checkpoints = load_pooled(ckpt, check_device(device), independent)
    for checkpoint in checkpoints:
        check_scores(checkpoint.config, chosen_classes or checkpoint.config.evaluated_classes, [])
    if target:
        files.check_writable(target)
    provenance = Provenance.of(checkpoints, seed, prompts)
    result = make_report(
        checkpoints, Settings(prompts, controls, seed, chosen_classes, paths, chosen_studies), sys.argv[1:]
    )
    lines = [f"{claim.statement} {claim.verdict.upper()}: {claim.evidence}" for claim in result.account.claims]
    run = provenance.document(lines)
    if target:
        result.write(target)
        files.write_origin(run, target)
    if json:
        output.print_json(result.document | {"run": run})
    else:
        for line in lines:
            print_text(line, bullet="- ")
        echo(f"\n{len(result.account.caveats)} warnings")
    refuse_failures(result.failures)

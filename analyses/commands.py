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
    from analyses.studies.published import PublishedStudy


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
        "cause",
        "Do retrospective heads cause in-context learning, in every model that has them?",
        "--ckpt 'zoo:mixed-*' --ckpt 'zoo:random-*' --out cause",
    ),
    "trace": Study("trace", "What do retrospective heads carry, and who reads it?", "--ckpt 'zoo:mixed-*' --out trace"),
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
    "emergence": Study(
        "emergence",
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
        from analyses import findings

        found = import_module(f"analyses.studies.{asked.module}").study(checkpoints, n_prompts=prompts, seed=seed)
        if out:
            findings.write(found, out)
        if json:
            output.print_json(findings.document(found))
        else:
            findings.show(found)
            if out:
                echo(f"\ntables, figures and summary.md: {out}/")
        refuse_failures(found.failures)

    command.__doc__ = f"{asked.question}\n\n\b\nExample:\n  interp study {name} {asked.example}\n"
    study.command(name)(command)


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
    from interp.commands import curve_table
    from interp.model.heads import show
    from training.checkpoints.checkpoint import load
    from training.common import output

    checkpoint = load(ckpt, check_device(device))
    if out:
        output.prepare_directory(out)
    result = question.study(checkpoint, n_prompts=prompts, n_controls=controls, seed=seed)
    if out:
        question.write(result, out)
    if json:
        about = {
            "checkpoint": ckpt,
            "step": checkpoint.step,
            "seed": seed,
            "prompts": prompts,
            "controls": controls,
        }
        about |= {
            "question": question.QUESTION,
            "verdict": result.sentences,
            "found": [show((h,)) for h in result.found],
        }
        results = output.records(result.ablation.table) if result.ablation else []
        output.print_json(about | {"scores": result.scores.values, "chance": result.scores.chance, "results": results})
        refuse_failures(result.failures)
        return
    title, caption = f"{ckpt}, step {checkpoint.step}", f"{prompts} prompts, seed {seed}"
    output.print_table(*curve_table(result.curves, title, caption))
    for one in (result.scores, result.ablation):
        for table in one.tables() if one else ():
            output.print_table(*table)
    echo(f"\n{question.QUESTION}\n")
    for sentence in result.sentences:
        echo(f"- {sentence}")
    if out:
        echo(f"\ntables, figures and summary.md: {out}/")
    refuse_failures(result.failures)


@study.command()
def published(
    ckpt: options.Ckpts,
    prompts: options.Prompts = options.DEFAULT_PROMPTS,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    json: options.Json = False,
    out: options.Out = None,
) -> None:
    """Do the scores of these models look like the published heat maps? Distributions side by side, and a verdict.

    \b
    Example:
      interp study published --ckpt zoo:mixed-0 --ckpt zoo:linear-0 --out results
    """
    from analyses.studies import published as question
    from training.checkpoints.name_patterns import load_all
    from training.common import output

    checkpoints = load_all(ckpt, check_device(device))
    if out:
        output.prepare_directory(out)
    result = question.study(checkpoints, n_prompts=prompts, seed=seed)
    if out:
        question.write(result, out)
    if json:
        about = {"checkpoints": ckpt, "seed": seed, "prompts": prompts, "question": question.QUESTION}
        about |= {"verdict": result.sentences, "likeness": output.records(result.likeness)}
        output.print_json(about | {"results": output.records(result.table)})
        return
    print_published(result, f"{prompts} prompts, seed {seed}; published maps: one prompt, digitised within 0.01")
    echo(f"\n{question.QUESTION}\n")
    for sentence in result.sentences:
        echo(f"- {sentence}")
    if out:
        echo(f"\ntables and figure: {out}/")


def print_published(result: "PublishedStudy", caption: str) -> None:
    """A row per model and class, and a row per model for the likeness of its maps."""
    from training.common.output import number, print_table, records

    rows = [
        [
            f"{row['model']} {row['curriculum']}, {row['function_class']}",
            *(number(row[name]) for name in ("chance", "maximum", "median", "share_above_half")),
            f"{row['n_near_maximum']} of {row['n_heads']}",
        ]
        for row in records(result.table)
    ]
    header = ["model, class", "chance", "maximum", "median", "share > 0.25", ">= 0.4"]
    print_table("paper score (maximum 0.5) over heads", header, rows, caption)
    likeness: dict[str, list[str]] = {}
    for row in records(result.likeness):
        cell = f"{number(row['overlap'], 2)}, {number(row['spearman'], 2)}"
        likeness.setdefault(f"{row['model']} {row['curriculum']}", []).append(cell)
    pairs = list(dict.fromkeys(row["classes"] for row in records(result.likeness)))
    title = "how alike a model's maps of two classes are: overlap of the heads >= 0.4, Spearman over all heads"
    print_table(title, ["model", *pairs], [[name, *cells] for name, cells in likeness.items()])


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

"""Time to quality: how long one recipe takes to the error at which another one ends.

    interp train --preset small --recipe authors --seed 0 --out runs/authors-0 --set recipe.threads=1
    interp train --preset small --recipe fast --seed 0 --out runs/fast-0 --set recipe.threads=1
    python tests/bench/quality.py --against runs/authors-0 --runs runs/fast-0

1. Pair the runs that learned from the same seeds.
2. The error of an evaluation is the NMSE averaged over points, of each class and of all of them on average. The target
   is where the run of `--against` ends; the other one has reached it at the first evaluation from which the error stays
   there for three.
3. Time a step of both here, in turns. Seconds are steps times the median step, so it does not matter what ran beside
   the training; evaluations and saves are left out of both.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from measure import Out, Repetitions, command, deliver, interval, progress, rotated, spread, timed
from step import OURS, block_size, step_flops, warm_up
from tqdm import tqdm
from trainers import TRAINERS

from training import options
from training.checkpoints.checkpoint import history_until, load
from training.common import output
from training.common.errors import UserError
from training.config.config import RunConfig
from training.evaluation.convergence import HELD, first_held
from training.loop.trainer import arithmetic

SIZES = ("n_layers", "n_heads", "d_model", "n_dims")
ALL = "all"
CAPTION = (
    "target: NMSE over points where the run of --against ends. seconds: of the run up to `reached`. against: of all of "
    "the run of --against. FLOP, ratio: how many times fewer operations and seconds; median [lowest, highest]"
)


@dataclass(frozen=True)
class Course:
    """A finished run.

    Attributes:
        errors: the mean over points, by function class and step; under ALL over classes too.
    """

    name: str
    config: RunConfig
    errors: Mapping[str, Mapping[int, float]]

    def end(self, name: str) -> float:
        return self.errors[name][self.config.recipe.steps]

    def reached(self, name: str, target: float) -> int | None:
        """The step from which on the error was at or below the target, for three evaluations or to the end."""
        steps = sorted(self.errors[name])
        errors = [self.errors[name][step] for step in steps]
        at = first_held([*errors, *errors[-1:] * (HELD - 1)], target)
        return None if at is None else steps[at]


def read_course(name: str) -> Course:
    """That of a finished run, by its directory or as zoo:NAME.

    Raises:
        UserError: it is no run, is damaged, or has not come to its end.
    """
    checkpoint = load(name)
    config = checkpoint.config
    if checkpoint.step < config.recipe.steps:
        raise UserError(f"{name} is not finished: it is at step {checkpoint.step} of {config.recipe.steps}")
    rows = history_until(checkpoint.directory, config, checkpoint.step)
    if not rows:
        raise UserError(f"{name} has no history")
    values: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        for of in (ALL, row["function_class"]):
            error = math.nan if row["nmse"] is None else row["nmse"]
            values.setdefault(of, {}).setdefault(row["step"], []).append(error)
    errors = {of: {step: statistics.fmean(each) for step, each in by_step.items()} for of, by_step in values.items()}
    return Course(name, config, errors)


def paired(against: Sequence[Course], runs: Sequence[Course]) -> list[tuple[Course, Course]]:
    """Each run with the one that it is held against.

    Raises:
        UserError: there is none of its seeds, or more than one, or it has another size, other data or other classes.
    """
    pairs = []
    for run in runs:
        theirs = [one for one in against if one.config.seeds == run.config.seeds]
        if len(theirs) != 1:
            raise UserError(f"{run.name} has the seeds of {len(theirs)} runs of --against; one is needed")
        if task_of(theirs[0].config) != task_of(run.config):
            raise UserError(f"{run.name} and {theirs[0].name} differ in their size, data or curriculum")
        if {*theirs[0].errors} != {*run.errors}:
            raise UserError(f"the histories of {run.name} and {theirs[0].name} are of other function classes")
        pairs.append((theirs[0], run))
    return pairs


def task_of(config: RunConfig) -> tuple[object, ...]:
    """What two runs have to share, so that their errors are errors at the same thing."""
    sizes = tuple(getattr(config.model, name) for name in SIZES)
    return (*sizes, config.curriculum, config.schedule, config.data, config.instruction, config.record.eval_prompts)


def step_seconds(configs: Mapping[str, RunConfig], repetitions: int, bar: "tqdm[Any]") -> dict[str, list[float]]:
    """Seconds of a training step of each configuration, in every repetition."""
    trainers = {name: TRAINERS[OURS](config, "cpu") for name, config in configs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in trainers}
    blocks = {}
    for name, trainer in trainers.items():
        with arithmetic(configs[name].recipe):
            blocks[name] = block_size(warm_up(trainer, "cpu"))
    for repetition in range(repetitions):
        for name in progress(bar, rotated(list(trainers), repetition)):
            with arithmetic(configs[name].recipe):
                seconds[name].append(timed(trainers[name].step, "cpu", blocks[name]))
    return seconds


def compare(theirs: Course, ours: Course, repetitions: int, bar: "tqdm[Any]") -> list[dict[str, Any]]:
    """A row for all classes and one for each of several."""
    if ours.reached(ALL, theirs.end(ALL)) == 0:
        raise UserError(f"{theirs.name} ends no better than {ours.name} is before its first step")
    seconds = step_seconds({"against": theirs.config, "run": ours.config}, repetitions, bar)
    names = list(ours.errors) if len(ours.errors) > 2 else [ALL]
    return [compared(theirs, ours, name, seconds) for name in names]


def compared(theirs: Course, ours: Course, name: str, seconds: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """The row of one class."""
    target, steps = theirs.end(name), theirs.config.recipe.steps
    reached = ours.reached(name, target)
    row = {"against": theirs.name, "run": ours.name, "class": name, "target": target, "end": ours.end(name)}
    row |= {"reached": reached, "steps": ours.config.recipe.steps, "against_steps": steps}
    n_steps = reached or math.nan
    row["flop_ratio"] = steps * step_flops(theirs.config) / (n_steps * step_flops(ours.config))
    row |= spread("seconds", [n_steps * each for each in seconds["run"]])
    row |= spread("against_seconds", [steps * each for each in seconds["against"]])
    pairs = zip(seconds["against"], seconds["run"], strict=True)
    return row | spread("ratio", [steps * one / (n_steps * other) for one, other in pairs])


def print_table(report: Mapping[str, Any]) -> None:
    rows = [
        [
            row["run"],
            row["class"],
            f"{row['target']:.3f}",
            f"{row['end']:.3f}",
            "never" if row["reached"] is None else f"{row['reached']:,} of {row['steps']:,}",
            *savings(row),
        ]
        for row in report["results"]
    ]
    header = ["run", "class", "target", "its end", "reached", "seconds", "against", "FLOP", "ratio"]
    output.print_table("Time to quality", header, rows, CAPTION)


def savings(row: Mapping[str, Any]) -> list[str]:
    """Seconds of both, and the ratios; dashes where nothing was reached by learning."""
    if not row["reached"]:
        return ["-", f"{row['against_seconds']:,.0f}", "-", "-"]
    ratio = interval(row, "ratio", ".1f")
    return [f"{row['seconds']:,.0f}", f"{row['against_seconds']:,.0f}", f"{row['flop_ratio']:.1f}", ratio]


def bench(
    against: Annotated[str, typer.Option(metavar="DIR,DIR", help="Finished runs, whose ends are the targets.")],
    runs: Annotated[str, typer.Option(metavar="DIR,DIR", help="Finished runs that are to reach them.")],
    repetitions: Repetitions = 5,
    json: options.Json = False,
    out: Out = None,
) -> None:
    """How long runs take to the error at which others end.

    \b
    Example:
      python tests/bench/quality.py --against runs/authors-0,runs/authors-1 --runs runs/fast-0,runs/fast-1
    """
    theirs, ours = (
        [read_course(name) for name in options.split_names(option, names)]
        for option, names in (("--against", against), ("--runs", runs))
    )
    pairs = paired(theirs, ours)
    with tqdm(total=2 * repetitions * len(pairs), unit="block", disable=None) as bar:
        rows = [row for pair in pairs for row in compare(*pair, repetitions, bar)]
    deliver({"repetitions": repetitions, "results": rows}, print_table, "", json=json, directory=out)


app = command(bench)

if __name__ == "__main__":
    app()

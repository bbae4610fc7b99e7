"""The cells of a sweep: a cell is a single command, with a name that is also its directory, and the cells it needs."""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path

from analyses.sweep.axes import Axis, Point, file_name, points
from analyses.sweep.options import check_command
from analyses.sweep.settings import Analysis, Grid, SweepFile
from training.checkpoints.checkpoint import locate, snapshot_steps, weights_path
from training.checkpoints.name_patterns import expand
from training.common.errors import UserError, one_of
from training.config.config import RunConfig
from training.config.parse import from_preset
from training.loop.recorder import log_spaced_steps
from training.processes.processes import Task
from training.processes.run_sets import log_of


@dataclass(frozen=True)
class Location:
    """The directory of the sweep file, in which all commands run, and `out` as the file has it."""

    root: Path
    out: str

    @property
    def directory(self) -> Path:
        return self.root / self.out

    def find(self, ckpt: str) -> str:
        """The path of a checkpoint that is named relative to the file, for a process in any directory."""
        return ckpt if ckpt.startswith("zoo:") else str(self.root / ckpt)


@dataclass(frozen=True)
class Cell:
    """A command of a sweep.

    Attributes:
        name: its directory below the sweep's: `runs/mixed-0`, `analyses/score/mixed-0`, `studies/cause`.
        group: the row of the table in which it counts: `train`, or the name of the analysis or study.
        location: of the sweep.
        arguments: of `interp`.
        needs: the names of the cells that have to be done before it.
        config: of a run to train.
        point: the values in which it differs from the other cells of its analysis.
    """

    name: str
    group: str
    location: Location
    arguments: tuple[str, ...]
    needs: tuple[str, ...] = ()
    config: RunConfig | None = None
    point: Point = field(default_factory=dict, hash=False)

    @property
    def directory(self) -> Path:
        return self.location.directory / self.name

    @property
    def lock(self) -> Path:
        return self.location.directory / ".locks" / self.name

    @property
    def device(self) -> str:
        return next((value for key, value in pairs(self.arguments) if key == "--device"), "cpu")

    @property
    def task(self) -> Task:
        """The process that runs it. Python's `-P` keeps files of the root from being imported as modules."""
        record = () if self.config else ("--record", str(self.directory))
        arguments = ("-P", "-m", "analyses.sweep.cell", str(self.lock), *record, "--", *self.arguments)
        threads = self.config.recipe.threads if self.config else 1
        log, on_gpu = log_of(self.directory), self.device == "cuda"
        return Task(self.name, arguments, self.command_line, log, self.location.root, threads, on_gpu)

    @property
    def command_line(self) -> str:
        """The command as a user would write it in the directory of the sweep file."""
        return shlex.join(["interp", *self.arguments])


def pairs(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Every word of a command line with the next one."""
    return pairwise(arguments)


@dataclass(frozen=True)
class SweepCheckpoint:
    """A checkpoint of the sweep.

    Attributes:
        name: in the names of cells, and for patterns.
        ckpt: its name in commands.
        steps: of its snapshots.
        needs: the cell that trains it, if one does.
    """

    name: str
    ckpt: str
    steps: tuple[int, ...]
    needs: tuple[str, ...] = ()


def plan(sweep: SweepFile, root: Path) -> list[Cell]:
    """The cells in the order in which they are to begin: every run is followed by its analyses, studies come last.

    Args:
        sweep: its file.
        root: the directory of its file.

    Raises:
        UserError: a run, a command or a checkpoint that is not valid, or two cells with the same directory.
    """
    location = Location(root, sweep.out)
    runs = [run_cell(grid, point, location) for grid in sweep.grids for point in points(grid.axes)]
    checkpoints = [trained_checkpoint(cell) for cell in runs]
    checkpoints += [existing_checkpoint(name, location) for name in expand(sweep.ckpt, location.root)]
    for analysis in sweep.analyses:
        for point in points(analysis.axes):
            check_command([*analysis.words, *option_words(point)])
        choose_checkpoints(analysis, checkpoints)
    cells: list[Cell] = []
    for index, checkpoint in enumerate(checkpoints):
        cells += runs[index : index + 1]
        cells += [cell for analysis in sweep.analyses for cell in analysis_cells(analysis, checkpoint, location)]
    cells += [study_cell(study, choose_checkpoints(study, checkpoints), location) for study in sweep.studies]
    check_cells(cells)
    return cells


def run_cell(grid: Grid, point: Point, location: Location) -> Cell:
    settings = [f"{key}={value}" for key, value in point.items() if "." in key]
    recipe = point.get("recipe")
    config = from_preset(point["preset"], point["curriculum"], int(point["seed"]), settings, recipe)
    name = f"runs/{run_name(grid.axes, point)}"
    arguments = ["train", "--preset", point["preset"], "--curriculum", point["curriculum"], "--seed", point["seed"]]
    arguments += ["--recipe", recipe] if recipe else []
    arguments += [f"--set={setting}" for setting in settings]
    arguments += ["--device", grid.device, "--resume", "--out", f"{location.out}/{name}"]
    return Cell(name, "train", location, tuple(arguments), config=config, point=point)


def run_name(axes: Sequence[Axis], point: Point) -> str:
    """Curriculum, the value of every setting that is a list in the file, and seed."""
    keys = [axis.key for axis in axes if axis.is_listed or axis.key in ("curriculum", "seed")]
    return "-".join(file_name(f"{key}={point[key]}" if "." in key else point[key]) for key in keys)


def trained_checkpoint(cell: Cell) -> SweepCheckpoint:
    """The checkpoint that a cell trains."""
    assert cell.config is not None
    steps = log_spaced_steps(cell.config.recipe.steps, cell.config.record.snapshots)
    ckpt = f"{cell.location.out}/{cell.name}"
    return SweepCheckpoint(cell.name.removeprefix("runs/"), ckpt, tuple(sorted(steps)), (cell.name,))


def existing_checkpoint(name: str, location: Location) -> SweepCheckpoint:
    """A checkpoint that is there already."""
    directory, step = locate(location.find(name))
    weights_path(directory, step)  # refuses a step that is not there
    return SweepCheckpoint(file_name(name), name, () if step is not None else tuple(snapshot_steps(directory)))


def analysis_cells(analysis: Analysis, checkpoint: SweepCheckpoint, location: Location) -> list[Cell]:
    """The cells of an analysis of a checkpoint: its snapshots times the options' values."""
    if not applies(analysis, checkpoint):
        return []
    steps = checkpoint.steps if analysis.steps == "all" else analysis.steps
    for step in steps:
        if step not in checkpoint.steps:
            raise one_of(f"step of {checkpoint.name}", str(step), checkpoint.steps or ["it has no snapshots"])
    suffixes = [f"@{step}" for step in steps] or [""]
    return [
        analysis_cell(analysis, checkpoint, suffix, point, location)
        for suffix in suffixes
        for point in points(analysis.axes)
    ]


def analysis_cell(
    analysis: Analysis, checkpoint: SweepCheckpoint, suffix: str, point: Point, location: Location
) -> Cell:
    listed = {axis.key: point[axis.key] for axis in analysis.axes if axis.is_listed}
    short = "-".join([checkpoint.name + suffix, *(file_name(f"{key}={value}") for key, value in listed.items())])
    name = f"analyses/{analysis.name}/{short}"
    arguments = (*analysis.words, *option_words(point), "--ckpt", checkpoint.ckpt + suffix)
    arguments += ("--out", f"{location.out}/{name}")
    point = {"run": checkpoint.name + suffix} | listed
    return Cell(name, analysis.name, location, arguments, checkpoint.needs, point=point)


def option_words(point: Point) -> list[str]:
    return [word for key, value in point.items() for word in (f"--{key}", value)]


def study_cell(study: Analysis, checkpoints: Sequence[SweepCheckpoint], location: Location) -> Cell:
    check_command(study.words, several=True)
    name = f"studies/{study.name}"
    ckpts = [word for checkpoint in checkpoints for word in ("--ckpt", checkpoint.ckpt)]
    needs = tuple(need for checkpoint in checkpoints for need in checkpoint.needs)
    return Cell(name, study.name, location, (*study.words, *ckpts, "--out", f"{location.out}/{name}"), needs)


def applies(analysis: Analysis, checkpoint: SweepCheckpoint) -> bool:
    return any(fnmatch(checkpoint.name, pattern) for pattern in analysis.on)


def choose_checkpoints(analysis: Analysis, checkpoints: Sequence[SweepCheckpoint]) -> list[SweepCheckpoint]:
    """The checkpoints that an analysis or study names.

    Raises:
        UserError: there are none.
    """
    matching = [checkpoint for checkpoint in checkpoints if applies(analysis, checkpoint)]
    if not matching:
        raise one_of(f"run for {analysis.name}:", ", ".join(analysis.on), [item.name for item in checkpoints])
    return matching


def check_cells(cells: Iterable[Cell]) -> None:
    """Refuse cells that no process can be given, or that would share a directory."""
    names: set[str] = set()
    for cell in cells:
        if any("\0" in word for word in cell.arguments):
            raise UserError(f"{cell.command_line!r}: a command cannot hold the character \\0")
        if cell.name in names:
            raise UserError(f"two cells have the directory {cell.name}: make what differs a list, or give it a name")
        names.add(cell.name)

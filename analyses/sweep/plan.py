"""From a sweep to its cells: a cell is one command, with a name that is also its directory, and the cells it needs."""

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path

from analyses.sweep.axes import Axis, Point, file_name, points
from analyses.sweep.options import check_command
from analyses.sweep.settings import Asked, Grid, Sweep
from training.checkpoints.checkpoint import locate, snapshot_steps, weights_path
from training.checkpoints.name_patterns import expand
from training.common.errors import UserError, one_of
from training.config.config import RunConfig
from training.config.parse import from_preset
from training.loop.recorder import log_spaced_steps
from training.processes.processes import Task
from training.processes.run_sets import log_of


@dataclass(frozen=True)
class Place:
    """Where a sweep lies: the directory of its file, in which all commands run, and `out` as the file says it."""

    root: Path
    out: str

    @property
    def directory(self) -> Path:
        return self.root / self.out

    def find(self, ckpt: str) -> str:
        """A checkpoint that is named relative to the file, as any process finds it."""
        return ckpt if ckpt.startswith("zoo:") else str(self.root / ckpt)


@dataclass(frozen=True)
class Cell:
    """One command of a sweep.

    Attributes:
        name: its directory below the sweep's: `runs/mixed-0`, `analyses/score/mixed-0`, `studies/cause`.
        group: the row of the table in which it counts: `train`, or the name of the analysis or study.
        place: of the sweep.
        arguments: of `interp`.
        needs: the names of the cells that have to be done before.
        config: of a run to train.
        point: what tells it from the other cells of its analysis.
    """

    name: str
    group: str
    place: Place
    arguments: tuple[str, ...]
    needs: tuple[str, ...] = ()
    config: RunConfig | None = None
    point: Point = field(default_factory=dict, hash=False)

    @property
    def directory(self) -> Path:
        return self.place.directory / self.name

    @property
    def lock(self) -> Path:
        return self.place.directory / ".locks" / self.name

    @property
    def device(self) -> str:
        return next((value for key, value in pairs(self.arguments) if key == "--device"), "cpu")

    @property
    def task(self) -> Task:
        """The process that does it. Python's `-P` keeps files of the root from being taken for modules."""
        record = () if self.config else ("--record", str(self.directory))
        arguments = ("-P", "-m", "analyses.sweep.cell", str(self.lock), *record, "--", *self.arguments)
        threads = self.config.recipe.threads if self.config else 1
        log, on_gpu = log_of(self.directory), self.device == "cuda"
        return Task(self.name, arguments, self.shown, log, self.place.root, threads, on_gpu)

    @property
    def shown(self) -> str:
        """The command as a user would write it in the directory of the sweep file."""
        return shlex.join(["interp", *self.arguments])


def pairs(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Every word of a command line with the next one."""
    return pairwise(arguments)


@dataclass(frozen=True)
class Subject:
    """A checkpoint of the sweep.

    Attributes:
        name: in the names of cells, and for patterns.
        ckpt: as commands are given it.
        steps: of its snapshots.
        needs: the cell that trains it, if one does.
    """

    name: str
    ckpt: str
    steps: tuple[int, ...]
    needs: tuple[str, ...] = ()


def plan(sweep: Sweep, root: Path) -> list[Cell]:
    """The cells in the order in which they are to begin: every run is followed by its analyses, studies come last.

    Args:
        sweep: what is asked for.
        root: the directory of its file.

    Raises:
        UserError: a run, a command or a checkpoint that is not valid, or two cells with the same directory.
    """
    place = Place(root, sweep.out)
    runs = [run_cell(grid, point, place) for grid in sweep.grids for point in points(grid.axes)]
    subjects = [trained(cell) for cell in runs] + [existing(name, place) for name in given(sweep.ckpt, place)]
    for asked in sweep.analyses:
        for point in points(asked.axes):
            check_command([*asked.words, *options(point)])
        chosen(asked, subjects)
    cells: list[Cell] = []
    for number, subject in enumerate(subjects):
        cells += runs[number : number + 1]
        cells += [cell for asked in sweep.analyses for cell in analysis_cells(asked, subject, place)]
    cells += [study_cell(asked, chosen(asked, subjects), place) for asked in sweep.studies]
    check_cells(cells)
    return cells


def run_cell(grid: Grid, point: Point, place: Place) -> Cell:
    settings = [f"{key}={value}" for key, value in point.items() if "." in key]
    recipe = point.get("recipe")
    config = from_preset(point["preset"], point["curriculum"], int(point["seed"]), settings, recipe)
    name = f"runs/{run_name(grid.axes, point)}"
    arguments = ["train", "--preset", point["preset"], "--curriculum", point["curriculum"], "--seed", point["seed"]]
    arguments += ["--recipe", recipe] if recipe else []
    arguments += [f"--set={setting}" for setting in settings]
    arguments += ["--device", grid.device, "--resume", "--out", f"{place.out}/{name}"]
    return Cell(name, "train", place, tuple(arguments), config=config, point=point)


def run_name(axes: Sequence[Axis], point: Point) -> str:
    """Curriculum and seed, and between them the value of everything that is a list in the file."""
    named = [one.key for one in axes if one.is_listed or one.key in ("curriculum", "seed")]
    return "-".join(file_name(f"{key}={point[key]}" if "." in key else point[key]) for key in named)


def trained(cell: Cell) -> Subject:
    """The checkpoint that a cell makes."""
    assert cell.config is not None
    steps = log_spaced_steps(cell.config.recipe.steps, cell.config.record.snapshots)
    ckpt = f"{cell.place.out}/{cell.name}"
    return Subject(cell.name.removeprefix("runs/"), ckpt, tuple(sorted(steps)), (cell.name,))


def given(names: Sequence[str], place: Place) -> list[str]:
    """The checkpoints that names and patterns of the file stand for, relative to it."""
    return expand(names, place.root)


def existing(name: str, place: Place) -> Subject:
    """A checkpoint that is there already."""
    directory, step = locate(place.find(name))
    weights_path(directory, step)  # refuses a step that is not there
    return Subject(file_name(name), name, () if step is not None else tuple(snapshot_steps(directory)))


def analysis_cells(asked: Asked, subject: Subject, place: Place) -> list[Cell]:
    """The cells of one analysis of one checkpoint: its snapshots times the options' values."""
    if not is_about(asked, subject):
        return []
    steps = subject.steps if asked.steps == "all" else asked.steps
    for step in steps:
        if step not in subject.steps:
            raise one_of(f"step of {subject.name}", str(step), subject.steps or ["it has no snapshots"])
    ends = [f"@{step}" for step in steps] or [""]
    return [analysis_cell(asked, subject, end, point, place) for end in ends for point in points(asked.axes)]


def analysis_cell(asked: Asked, subject: Subject, end: str, point: Point, place: Place) -> Cell:
    told = {one.key: point[one.key] for one in asked.axes if one.is_listed}
    short = "-".join([subject.name + end, *(file_name(f"{key}={value}") for key, value in told.items())])
    name = f"analyses/{asked.name}/{short}"
    arguments = (*asked.words, *options(point), "--ckpt", subject.ckpt + end, "--out", f"{place.out}/{name}")
    return Cell(name, asked.name, place, arguments, subject.needs, point={"run": subject.name + end} | told)


def options(point: Point) -> list[str]:
    return [word for key, value in point.items() for word in (f"--{key}", value)]


def study_cell(asked: Asked, subjects: Sequence[Subject], place: Place) -> Cell:
    check_command(asked.words, several=True)
    name = f"studies/{asked.name}"
    checkpoints = [word for one in subjects for word in ("--ckpt", one.ckpt)]
    needs = tuple(need for one in subjects for need in one.needs)
    return Cell(name, asked.name, place, (*asked.words, *checkpoints, "--out", f"{place.out}/{name}"), needs)


def is_about(asked: Asked, subject: Subject) -> bool:
    return any(fnmatch(subject.name, pattern) for pattern in asked.on)


def chosen(asked: Asked, subjects: Sequence[Subject]) -> list[Subject]:
    """The checkpoints that an analysis or study is about.

    Raises:
        UserError: there are none.
    """
    found = [subject for subject in subjects if is_about(asked, subject)]
    if not found:
        raise one_of(f"run for {asked.name}:", ", ".join(asked.on), [subject.name for subject in subjects])
    return found


def check_cells(cells: Iterable[Cell]) -> None:
    """Refuse cells that no process can be given, or that would share a directory."""
    names: set[str] = set()
    for cell in cells:
        if any("\0" in word for word in cell.arguments):
            raise UserError(f"{cell.shown!r}: a command cannot hold the character \\0")
        if cell.name in names:
            raise UserError(f"two cells have the directory {cell.name}: make what differs a list, or give it a name")
        names.add(cell.name)

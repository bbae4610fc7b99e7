"""Which cell comes next, what became of the others, and what is done: nothing here starts a process."""

import io
import random
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from analyses.sweep import cell as cell_process
from analyses.sweep import record
from analyses.sweep.board import MOST_LOST, Board, State
from analyses.sweep.cell import BUSY, holder, locked
from analyses.sweep.gather import gather
from analyses.sweep.plan import Cell, Location, plan
from analyses.sweep.settings import parsed
from analyses.sweep.table import caption, failures, live_table
from training.checkpoints.checkpoint import read_config, write_config, zoo_path
from training.common.atomic_files import write_text
from training.processes.processes import LOST, Task, Workers, carry_out


@pytest.fixture(scope="module")
def grid(tmp_path_factory) -> list[Cell]:
    """Two runs with an analysis each and a study of both."""
    document = {
        "out": "grid",
        "train": {"seeds": "0-1"},
        "analyse": {"command": "score --prompts 16", "name": "score"},
        "study": {"command": "history"},
    }
    return plan(parsed(document), tmp_path_factory.mktemp("root"))


class Dice(Workers):
    """Ends what runs in any order with any exit code."""

    def __init__(self, seed: int, codes: list[int]) -> None:
        self.rng, self.codes, self.running, self.started = random.Random(seed), codes, list[Task](), list[str]()

    @property
    def n_at_once(self) -> int:
        return 2

    def start(self, task: Task) -> None:
        self.running.append(task)
        self.started.append(task.name)

    def ended(self) -> list[tuple[Task, int]]:
        self.rng.shuffle(self.running)
        return [(self.running.pop(), self.rng.choice(self.codes))] if self.running else []

    def stop(self) -> None:
        self.running.clear()


@given(st.integers(0, 2**32), st.integers(0, 2), st.lists(st.sampled_from([1, 2, -9, LOST, BUSY]), max_size=3))
@settings(deadline=None, max_examples=60)
def test_every_cell_ends_and_none_begins_before_what_it_needs(grid, seed, retries, bad):
    board, workers = Board(grid, retries), Dice(seed, [0, *bad])
    in_time = []

    def look() -> None:
        for task in workers.running:
            in_time.append(all(board.status[need].state is State.DONE for need in board.cells[task.name].needs))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("training.processes.processes.POLL", 0)
        carry_out(board, workers, look)
    assert all(in_time)
    for name, status in board.status.items():
        lost_its_needs = any(
            board.status[need].state in (State.FAILED, State.SKIPPED) for need in board.cells[name].needs
        )
        assert status.state in (State.DONE, State.FAILED, State.SKIPPED)
        assert status.tries <= retries + 1
        assert status.lost <= MOST_LOST + 1
        if status.state is State.FAILED:
            assert status.tries == retries + 1 or status.lost == MOST_LOST + 1
        assert (status.state is State.SKIPPED) == (name not in workers.started and lost_its_needs)
    assert {cell.name for cell in board.news} == {*board.cells}


def test_without_failures_every_cell_runs_once_and_a_run_is_followed_by_its_analysis(grid):
    workers = Dice(0, [0])
    carry_out(Board(grid, retries=1), workers, lambda: None)
    assert sorted(workers.started) == sorted(cell.name for cell in grid)
    assert workers.started[:2] == ["runs/mixed-0", "runs/mixed-1"]
    assert workers.started[2].startswith("analyses/score/")
    assert workers.started[-1] == "studies/history"


def test_a_machine_that_goes_is_no_failure_of_the_cell(grid):
    board = Board(grid, retries=0)
    task = board.next()
    for _ in range(MOST_LOST):
        assert task is not None
        board.ended(task, LOST)
        assert board.status[task.name].state is State.WAITING
        task = board.next()
    assert task is not None
    board.ended(task, LOST)
    assert board.status[task.name].state is State.FAILED


def test_a_cell_that_another_process_has_is_left_to_it_and_then_found_done(grid):
    board, first = Board(grid, retries=0), grid[0]
    with locked(first.lock) as is_free:
        assert is_free
        task = board.next()
        assert task is not None
        assert task.name == "runs/mixed-1"
        assert [*board.elsewhere] == [first.name]
        assert cell_process.run(first.lock, None, ["train", "--nothing"]) == BUSY
        assert board.next() is None
        shutil.copytree(zoo_path("mixed-0"), first.directory)
        assert first.config is not None
        write_config(first.directory, first.config)
    analysis = board.next()
    assert analysis is not None
    assert analysis.name == "analyses/score/mixed-0"
    assert board.status[first.name].state is State.DONE
    assert board.status[first.name].tries == 0
    shutil.rmtree(first.directory)


def test_a_lock_says_who_holds_it(tmp_path, monkeypatch):
    monkeypatch.setattr(cell_process, "stop_with_parent", lambda: None)
    seen = []
    monkeypatch.setattr(cell_process, "exit_code", lambda _: seen.append(holder(tmp_path / "lock")) or 0)
    assert cell_process.run(tmp_path / "lock", None, []) == 0
    assert seen[0].startswith("process ")
    assert holder(tmp_path / "lock") is None
    assert holder(tmp_path / "absent") is None


@pytest.fixture
def scored(tmp_path) -> Cell:
    """An analysis of a copy of a shipped model that is done."""
    shutil.copytree(zoo_path("mixed-0"), tmp_path / "model")
    (cell,) = plan(parsed({"out": "grid", "ckpt": "model", "analyse": {"command": "score"}}), tmp_path)
    now = record.record(cell.arguments, cell.location)
    record.begin(cell.directory, now)
    write_text("value\n1\n", cell.directory / "scores.csv")
    assert not record.is_done(cell)
    record.finish(cell.directory, now)
    assert record.is_done(cell)
    return cell


def test_an_analysis_is_done_for_these_weights(scored):
    weights = scored.location.root / "model" / "model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-4] + b"\0\0\0\0")
    assert not record.is_done(scored)
    weights.write_bytes(before)
    assert record.is_done(scored)


def test_an_analysis_is_done_for_this_configuration(scored):
    from dataclasses import replace

    model = scored.location.root / "model"
    config = read_config(model)
    write_config(model, config)  # by another commit, on another machine
    assert record.is_done(scored)
    write_config(model, replace(config, data=replace(config.data, classes=("linear",))))
    assert not record.is_done(scored)


def test_an_analysis_is_done_for_this_command(scored):
    from dataclasses import replace

    assert not record.is_done(replace(scored, arguments=(*scored.arguments, "--seed", "1")))


def test_an_analysis_is_done_by_this_code(scored, monkeypatch):
    monkeypatch.setattr(record, "source_hash", lambda _: "of another version")
    assert not record.is_done(scored)


def test_an_analysis_whose_results_were_deleted_is_not_done(scored):
    shutil.rmtree(scored.directory)
    assert not record.is_done(scored)


def test_results_of_another_command_are_removed_and_an_interrupted_one_goes_on(scored):
    now = record.record(scored.arguments, scored.location)
    record.begin(scored.directory, now)
    assert (scored.directory / "scores.csv").exists()
    assert not record.is_done(scored)
    record.begin(scored.directory, now | {"command": ["another"]})
    assert not (scored.directory / "scores.csv").exists()


def test_what_others_put_beside_results_outlives_another_command(scored, tmp_path):
    notes = [scored.directory / name for name in ("notes.md", "mine.csv", "figures/notes.md")]
    for path in notes:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine\n1\n")
    (written,) = gather([scored], tmp_path / "tables")
    assert written.name == "scores.csv"
    record.begin(scored.directory, record.record(scored.arguments, scored.location) | {"command": ["another"]})
    assert not (scored.directory / "scores.csv").exists()
    assert [path.read_text() for path in notes] == ["mine\n1\n"] * 3


@pytest.mark.parametrize(
    "listed", [["../thesis.tex"], ["link/thesis.tex"], ["/etc/hosts", 1], "thesis.tex", None, ["\0"]]
)
def test_a_record_that_lists_files_of_others_removes_none(scored, listed):
    (scored.directory / "link").symlink_to("..")
    thesis = scored.directory.parent / "thesis.tex"
    thesis.write_text("years of work")
    record.write(scored.directory, record.read(scored.directory) | {"files": listed})
    record.begin(scored.directory, {"command": ["another"]})
    assert thesis.read_text() == "years of work"
    assert record.read(scored.directory) == {"command": ["another"], "done": False, "files": []}


def test_files_that_no_sweep_has_written_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    record.begin(tmp_path, {"command": []})
    assert (tmp_path / "thesis.tex").exists()


def test_a_damaged_record_is_none(scored):
    (scored.directory / record.FILE).write_text("{")
    assert not record.is_done(scored)


def test_the_live_table_says_what_runs_and_how_long_it_will_be(grid, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    board = Board(grid, retries=0)
    first, _ = board.next(), board.next()
    assert caption(board, 2) == "0 of 5 cells done, 2 at a time"
    clock[0] = 60.0
    assert first is not None
    board.ended(first, 0)
    assert caption(board, 2) == "1 of 5 cells done, 2 at a time, about 1:30 left"  # three more minutes of two
    (grid[2].directory).mkdir(parents=True)
    (grid[2].directory / "history.jsonl").write_text('{"step": 1200}\n')
    console = Console(file=io.StringIO(), width=100)
    console.print(live_table(board, 2))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "runs/mixed-1, step 1200 of 3000, 1:00" in text
    rows = {line.split()[1]: [word for word in line.split() if word.isdigit()] for line in text.splitlines()[3:6]}
    assert rows == {
        "train": ["0", "1", "1", "0", "0", "2"],
        "score": ["2", "0", "0", "0", "0", "2"],
        "history": ["1", "0", "0", "0", "0", "1"],
    }
    shutil.rmtree(grid[2].directory)


def test_failures_are_told_with_the_end_of_their_log_and_what_they_cost(grid):
    board = Board(grid, retries=1)
    for _ in range(2):
        task = board.next()
        assert task is not None
        task.log.parent.mkdir(parents=True, exist_ok=True)
        task.log.write_text("$ interp train\nold words\n$ interp train\nread this\nand this\n")
        board.ended(task, 2)
    assert failures(board) == [
        f"runs/mixed-0 failed twice, exit code 2; {grid[0].task.log} ends with:",
        "    read this",
        "    and this",
        "analyses/score/mixed-0 was skipped: it needs runs/mixed-0",
        "studies/history was skipped: it needs runs/mixed-0",
    ]


def test_what_a_place_finds_is_relative_to_the_file():
    assert Location(Path("there"), "grid").find("runs/a@7") == str(Path("there") / "runs/a@7")
    assert Location(Path("there"), "grid").find("zoo:mixed-0") == "zoo:mixed-0"

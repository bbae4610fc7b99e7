"""Sweeps on two machines, each with a network, a disk and processes of its own: a slow, full, lost or foreign one."""

import importlib.util
import json
import subprocess
from collections import Counter
from collections.abc import Iterator

import pytest
from grids import Grid, wait_until
from machines import HEAD, LOCAL, Machine, can_be_made, two_machines

from training.checkpoints.checkpoint import read_resume

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra `cluster` is not installed"),
    pytest.mark.skipif(not can_be_made, reason="machines are Linux namespaces, which takes root"),
]

Machines = tuple[Machine, Machine]


@pytest.fixture
def machines() -> Iterator[Machines]:
    with two_machines() as both:
        both[0].join()
        yield both


def start(grid: Grid, machine: Machine, *options: object) -> "subprocess.Popen[str]":
    """The sweep, driven from a machine."""
    sweep = ("-m", "interp", "sweep", grid.file, "--cluster", HEAD, "--json", *options)
    return machine.python(*sweep, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def states(driver: "subprocess.Popen[str]") -> Counter[str]:
    """How many cells are in which state when the driver has ended."""
    out, errors = driver.communicate(timeout=400)
    assert driver.returncode == 0, errors
    return Counter(cell["state"] for cell in json.loads(out)["cells"])


LONG = ("recipe.steps=1000", "record.eval_every=500")


def test_a_slow_machine_gets_less_and_holds_up_nothing(machines, quick_settings, tmp_path):
    first, second = machines
    second.join()
    grid = Grid(tmp_path, range(8), [*quick_settings, "recipe.steps=600", "record.eval_every=200"])
    with second.slowed():
        assert states(start(grid, first)) == {"done": 8}
    assert grid.starts() == 8
    places = grid.places()
    assert 1 <= places["second"] < places["first"], places
    assert grid.is_as_by_hand()


def fill_disk(machine: Machine) -> None:
    with pytest.raises(RuntimeError, match="No space left"):
        machine.run("dd", "if=/dev/zero", f"of={LOCAL}/full", "bs=1M")


def test_a_machine_whose_own_disk_is_full_is_refused(machines, quick_settings, tmp_path):
    first, second = machines
    second.join()
    fill_disk(second)
    grid = Grid(tmp_path, range(2), quick_settings)
    driver = start(grid, first)
    out, errors = driver.communicate(timeout=300)
    assert (driver.returncode, out) == (2, "")
    last = errors.splitlines()[-1]
    assert last.startswith("interp: --cluster: node second (10.77.0.2) cannot run this package: "), errors


def test_a_machine_whose_own_disk_fills_up_loses_nothing(machines, quick_settings, tmp_path):
    first, second = machines
    second.join()
    grid = Grid(tmp_path, range(6), [*quick_settings, *LONG])
    driver = start(grid, first)
    wait_until(lambda: all(read_resume(run) for run in grid.runs[:2]), driver)
    fill_disk(second)
    assert states(driver) == {"done": 6}
    assert grid.is_as_by_hand()


def test_a_machine_that_is_cut_off_goes_on_elsewhere(machines, quick_settings, tmp_path):
    first, second = machines
    second.join()
    grid = Grid(tmp_path, range(2), [*quick_settings, "recipe.steps=6000", "record.eval_every=2000"])
    driver = start(grid, first, "--retries", 0)
    wait_until(lambda: all(read_resume(run) for run in grid.runs), driver)
    second.run("ip", "link", "set", second.name, "down")
    assert states(driver) == {"done": 2}
    assert grid.is_as_by_hand()


def test_a_machine_that_does_not_see_the_directory_is_refused_and_nothing_is_left(machines, quick_settings, tmp_path):
    first, second = machines
    second.run("mount", "-t", "tmpfs", "elsewhere", tmp_path)
    second.join()
    grid = Grid(tmp_path, range(2), quick_settings)
    driver = start(grid, first)
    out, errors = driver.communicate(timeout=300)
    assert (driver.returncode, out) == (2, "")
    assert f"node second (10.77.0.2) does not see {tmp_path}/grid" in errors
    assert sorted(tmp_path.iterdir()) == [grid.file]


def test_a_foreign_machine_that_joins_later_gets_nothing(machines, quick_settings, tmp_path):
    first, second = machines
    grid = Grid(tmp_path, range(3), [*quick_settings, *LONG])
    driver = start(grid, first)
    wait_until(lambda: read_resume(grid.runs[0]), driver)
    second.run("mount", "-t", "tmpfs", "elsewhere", tmp_path)
    second.join()
    out, errors = driver.communicate(timeout=300)
    assert driver.returncode == 0, errors
    assert f"node second (10.77.0.2) does not see {tmp_path}/grid" in errors
    assert "it gets no cells" in errors
    assert json.loads(out)["counts"]["done"] == 3
    assert grid.places() == {"first": 3}


def test_a_machine_that_joins_later_takes_its_share(machines, quick_settings, tmp_path):
    first, second = machines
    grid = Grid(tmp_path, range(6), [*quick_settings, *LONG])
    driver = start(grid, first)
    wait_until(lambda: read_resume(grid.runs[0]), driver)
    second.join()
    assert states(driver) == {"done": 6}
    assert grid.places()["second"] >= 1
    assert grid.starts() == 6

"""Sweeps on a Ray cluster of two nodes, both on this machine: same bits, and nothing is lost when parts of it die."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
from grids import Grid, wait_until

from analyses.sweep.cell import holder
from analyses.sweep.cluster import Cluster, check_address
from analyses.sweep.nodes import Node, about_node, check_node, check_sizes
from analyses.sweep.plan import Location
from training.checkpoints.checkpoint import load, read_resume
from training.common.errors import UserError
from training.processes.run_sets import steps_done

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra `cluster` is not installed")

NODES = """
import sys
from ray.cluster_utils import Cluster
size = {"num_cpus": 1, "object_store_memory": 80_000_000}
cluster = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
second = cluster.add_node(**size)
cluster.wait_for_nodes()
print(cluster.address, flush=True)
for line in sys.stdin:
    cluster.remove_node(second, allow_graceful=False)
cluster.shutdown()
"""


@pytest.fixture
def nodes():
    """A process that holds a cluster; a line kills the second node, the end of its stdin the first."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "RAY_USAGE_STATS_ENABLED": "0"}
    command, pipe = [sys.executable, "-c", NODES], subprocess.PIPE
    with subprocess.Popen(
        command, env=environment, text=True, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def address(nodes) -> str:
    return nodes.stdout.readline().strip()


LONG = ("recipe.steps=2000", "record.eval_every=500")
ENDLESS = ("recipe.steps=500000", "record.save_every=100000")


@pytest.mark.slow
@needs_ray
def test_a_cluster_gives_the_bits_of_runs_by_hand_and_what_it_did_is_done(address, interp, quick_settings, tmp_path):
    analysis = '[[analyse]]\ncommand = "score --prompts 16"\nname = "score"'
    grid = Grid(tmp_path, range(2), quick_settings, analysis)
    driver = interp("sweep", grid.file, "--cluster", address, "--json", stdout=subprocess.PIPE)
    out, errors = driver.communicate(timeout=300)
    assert driver.returncode == 0, errors
    assert json.loads(out)["counts"]["done"] == 4
    assert grid.is_as_by_hand()
    by_hand = interp("score", "--prompts", 16, "--ckpt", "grid/runs/mixed-1", "--out", tmp_path / "s", cwd=tmp_path)
    by_hand.communicate(timeout=300)
    table = tmp_path / "grid" / "analyses" / "score" / "mixed-1" / "scores.csv"
    assert table.read_bytes() == (tmp_path / "s" / "scores.csv").read_bytes()
    local = interp("sweep", grid.file, "--json", stdout=subprocess.PIPE)
    out, errors = local.communicate(timeout=300)
    assert [cell["tries"] for cell in json.loads(out)["cells"]] == [0, 0, 0, 0]
    assert not [*(tmp_path / "grid").glob(".probe*")]


@pytest.mark.slow
@needs_ray
def test_the_cells_of_a_node_that_dies_go_on_elsewhere(address, nodes, interp, quick_settings, tmp_path):
    grid = Grid(tmp_path, range(2), [*quick_settings, *LONG])
    driver = interp("sweep", grid.file, "--cluster", address, "--retries", 0, "--json", stdout=subprocess.PIPE)
    wait_until(lambda: all(read_resume(run) for run in grid.runs), driver)
    nodes.stdin.write("die\n")
    nodes.stdin.flush()
    out, errors = driver.communicate(timeout=400)
    assert driver.returncode == 0, errors
    assert {cell["state"] for cell in json.loads(out)["cells"]} == {"done"}
    assert grid.starts() == 3
    assert sum("resumed at step" in log for log in grid.logs()) == 1
    assert grid.is_as_by_hand()


@pytest.mark.slow
@needs_ray
def test_a_driver_that_is_killed_stops_its_cells_and_a_second_one_goes_on(address, interp, quick_settings, tmp_path):
    grid = Grid(tmp_path, range(2), [*quick_settings, *LONG])
    driver = interp("sweep", grid.file, "--cluster", address)
    wait_until(lambda: all(read_resume(run) for run in grid.runs), driver)
    driver.kill()
    driver.communicate()
    again = interp("sweep", grid.file, "--cluster", address)  # while the cells of the first may still be saving
    _, errors = again.communicate(timeout=400)
    assert again.returncode == 0, errors
    assert grid.starts() == 4
    assert all("resumed at step" in log and "in use" not in log for log in grid.logs())
    assert not any(map(holder, grid.locks))
    assert grid.is_as_by_hand()


@pytest.mark.slow
@needs_ray
def test_an_interrupted_driver_has_its_cells_save(address, interp, quick_settings, tmp_path):
    grid = Grid(tmp_path, range(2), [*quick_settings, *ENDLESS])
    driver = interp("sweep", grid.file, "--cluster", address)
    wait_until(lambda: all(steps_done(run) >= 25 for run in grid.runs), driver)
    driver.terminate()
    _, errors = driver.communicate(timeout=120)
    assert driver.returncode == 130, errors
    assert not any(map(holder, grid.locks))
    assert all(load(run).step >= 25 for run in grid.runs)


def test_a_node_that_does_not_see_the_directory_or_has_other_code_is_refused(tmp_path):
    probe, place = tmp_path / "probe", Location(tmp_path, "grid")
    elsewhere = about_node(probe)
    probe.write_text("here")
    here = about_node(probe)
    check_node("n1", here, about_node(probe), place)
    with pytest.raises(UserError, match=f"node n1 does not see {tmp_path}/grid: a sweep lies on storage that all"):
        check_node("n1", here, elsewhere, place)
    with pytest.raises(UserError, match=r"node n1 has torch 1\.0, this machine 2"):
        check_node("n1", here, here | {"torch": "1.0"}, place)
    with pytest.raises(UserError, match="node n1 has code 0123456789ab, this machine"):
        check_node("n1", here, here | {"code": "0123456789abcdef"}, place)


@pytest.mark.parametrize(
    ("has", "need", "taken", "room"),
    [
        ((4, 0), (1, 0), [], 4),
        ((4, 0), (2, 0), [(1, 0)], 1),
        ((4, 0), (1, 1), [], 0),
        ((8, 2), (2, 1), [(2, 1)], 1),
        ((2, 8), (1, 1), [(1, 0)], 1),
        ((1, 0), (1, 0), [(1, 0), (1, 0)], 0),
    ],
)
def test_a_machine_has_room_for_what_its_cpus_and_gpus_allow(has, need, taken, room):
    assert Node("id", "n1", *has).room(need, taken) == room


def test_what_no_machine_can_take_is_refused():
    nodes = [Node("1", "n1", 4, 0), Node("2", "n2", 1, 2)]
    check_sizes(nodes, {(4, 0), (1, 1)})
    with pytest.raises(UserError, match="no node has the 2 CPUs and 1 GPUs that a cell needs"):
        check_sizes(nodes, {(2, 1)})


@pytest.mark.parametrize("address", ["here", "localhost:", "localhost:port", ":6379"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(UserError, match=r"auto or HOST:PORT is needed"):
        check_address(address)


def test_an_address_where_nobody_answers_is_refused_at_once():
    with pytest.raises(UserError, match=r"--cluster 127\.0\.0\.1:1: nobody answers there"):
        check_address("127.0.0.1:1")


def test_without_ray_the_command_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"--cluster needs Ray: pip install 'incontext-interp\[cluster\]'"):
        Cluster("auto", Location(tmp_path, "grid"), [])

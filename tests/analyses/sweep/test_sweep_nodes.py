"""Which machine gets a cell, and what becomes of the cells of one that is gone: with a stand-in for Ray, in no time."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from analyses.sweep import cluster
from analyses.sweep.cluster import Cluster
from analyses.sweep.nodes import about_node
from analyses.sweep.plan import Location
from training.common.errors import UserError
from training.processes.processes import LOST, Task


class Ray:
    """Machines by id: their CPUs, whether they see the directory, and what they were sent. Tasks never end."""

    def __init__(self, **cpus: int) -> None:
        self.cpus, self.blind, self.sent = cpus, set[str](), dict[str, list[str]]()
        self.exceptions = SimpleNamespace(RayError=RuntimeError)

    def init(self, *_, **__) -> None:
        pass

    def nodes(self) -> list[dict[str, Any]]:
        told = {"Alive": True, "NodeManagerAddress": "10.0.0.1"}
        return [
            told | {"NodeID": name, "NodeManagerHostname": name, "Resources": {"CPU": float(cpus)}}
            for name, cpus in self.cpus.items()
        ]

    def remote(self, scheduling_strategy: str, **_):
        def wrap(function):
            return SimpleNamespace(remote=lambda *given: self.run(scheduling_strategy, function, *given))

        return wrap

    def run(self, name: str, function, given):
        if function is about_node:
            return about_node(given) | ({"probe": ""} if name in self.blind else {})
        self.sent.setdefault(name, []).append(given.name)
        return given.name

    def get(self, answer, timeout: float | None = None):
        del timeout
        return answer

    def wait(self, references: list[Any], **_) -> tuple[list[Any], list[Any]]:
        return [], references


@pytest.fixture
def on(monkeypatch, tmp_path):
    """A cluster of stand-ins, for tasks of these threads."""

    def make(ray: Ray, *threads: int) -> Cluster:
        monkeypatch.setitem(sys.modules, "ray", ray)
        strategies = SimpleNamespace(NodeAffinitySchedulingStrategy=lambda name, soft: name if not soft else None)
        monkeypatch.setitem(sys.modules, "ray.util.scheduling_strategies", strategies)
        monkeypatch.setattr(cluster, "check_address", lambda _: None)
        return Cluster("auto", Location(tmp_path, "grid"), [task("any", n) for n in threads])

    return make


def task(name: str, threads: int = 1) -> Task:
    return Task(name, (), name, Path(name), threads=threads)


def test_cells_go_where_most_room_is_and_no_further(on):
    workers = on(ray := Ray(small=1, large=3), 1)
    assert workers.n_at_once == 4
    for number in range(4):
        workers.start(task(str(number)))
    assert ray.sent == {"large": ["0", "1", "3"], "small": ["2"]}
    assert workers.n_at_once == 4


def test_the_cells_of_a_machine_that_is_gone_are_lost_though_ray_says_nothing_of_them(on):
    workers = on(ray := Ray(one=1, two=1), 1)
    for name in ("a", "b"):
        workers.start(task(name))
    assert workers.ended() == []
    del ray.cpus["two"]
    ((lost, code),) = workers.ended()
    assert ([lost.name], code) == (ray.sent["two"], LOST)
    assert workers.n_at_once == 1


def test_a_foreign_machine_that_joins_is_named_once_and_gets_nothing(on, capsys):
    workers = on(ray := Ray(one=1), 1)
    ray.cpus["foreign"], ray.cpus["late"] = 8, 1
    ray.blind.add("foreign")
    assert workers.n_at_once == 2
    for name in ("a", "b"):
        workers.start(task(name))
    assert {*ray.sent} == {"one", "late"}
    assert capsys.readouterr().err.count("node foreign (10.0.0.1) does not see") == 1


def test_where_the_only_able_machine_has_just_gone_neither_a_foreign_nor_a_small_one_takes_its_place(on):
    workers = on(ray := Ray(small=1, large=4), 1, 4)
    ray.cpus["foreign"] = 8
    ray.blind.add("foreign")
    assert workers.n_at_once > 0
    del ray.cpus["large"]
    workers.start(task("wide", 4))
    assert ray.sent == {"large": ["wide"]}
    assert [code for _, code in workers.ended()] == [LOST]


def test_a_sweep_that_is_refused_leaves_no_directory(on, tmp_path):
    ray = Ray(one=1, foreign=1)
    ray.blind.add("foreign")
    with pytest.raises(UserError, match=r"node foreign \(10\.0\.0\.1\) does not see"):
        on(ray, 1)
    assert not (tmp_path / "grid").exists()

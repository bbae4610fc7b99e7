"""The scaling bench measures what it says: it finds a power law, and its works grow with the sizes."""

import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pandas as pd
import pytest
import scaling
from typer.testing import CliRunner

SMALL = scaling.BASE | {"n_layers": 2, "n_heads": 2, "d_model": 16, "n_points": 8, "n_prompts": 16}


@pytest.mark.parametrize("name", scaling.WORKS)
def test_every_work_takes_time_and_memory(name):
    found = scaling.measure_here(name, SMALL, repetitions=1)
    assert found["seconds"] > 0
    assert found["memory"] >= 0


N_BYTES = 64 * 2**20


def memory_of_ones() -> float:
    scaling.work_of = lambda *_: lambda: np.ones(N_BYTES, np.uint8).sum()
    return scaling.measure_here("sweep", SMALL, repetitions=1)["memory"]


@pytest.mark.slow
def test_memory_is_what_was_taken_at_most():
    """In a process that has done nothing else: of a large one, the kernel may page something out meanwhile."""
    with ProcessPoolExecutor(1, get_context("spawn")) as processes:
        assert processes.submit(memory_of_ones).result() == pytest.approx(N_BYTES, rel=0.1)


def test_a_power_law_is_found_beyond_a_fixed_cost():
    sizes = scaling.AXES["n_points"]
    rows = [
        {"work": "patch", "axis": "n_points", "size": size, "seconds": 0.002 + (size / 100) ** 3, "memory": size}
        for size in sizes
    ]
    (row,) = scaling.summary(pd.DataFrame(rows), budget=1000.0)
    assert row["slope"] == pytest.approx(3, abs=0.2)
    assert row["affordable"] == pytest.approx(1000, rel=0.2)
    assert (row["seconds_largest"], row["memory_largest"]) == (pytest.approx(1.002), 100)


def fixed(name, sizes, repetitions):
    del name, sizes, repetitions
    return {"seconds": 1.0, "memory": 5.0}


def test_the_document_reports_what_was_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "measure_apart", fixed)
    options = ["--axes", "n_points", "--works", "sweep", "--json", "--out", str(tmp_path / "new")]
    done = CliRunner().invoke(scaling.app, options)
    document = json.loads(done.stdout)
    assert [row["size"] for row in document["results"]] == list(scaling.AXES["n_points"])
    assert document["summary"][0]["slope"] == pytest.approx(0, abs=1e-9)
    assert (tmp_path / "new" / "bench.csv").exists()

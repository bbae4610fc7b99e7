"""How much sooner `interp sweep` ends with two workers than with one, with processes of this machine and on Ray.

    python tests/bench/speedup.py                                 # a quarter of an hour on two cores
    python tests/bench/speedup.py --engines local --runs 2 --steps 100 --repetitions 1 --json

The grid is some tiny runs of one thread, trained anew every time. A worker is a process (`--jobs`), or a node of a Ray
cluster with one CPU; both nodes are on this machine, whose cores Ray's own processes share. Seconds are those of the
whole command, the start of Python and the end, where a worker has nothing left, included.
"""

import importlib.util
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from measure import Out, Repetitions, command, deliver, interval, spread
from tqdm import tqdm

from training import options
from training.common import output
from training.common.errors import UserError, one_of

ENGINES = ("local", "ray")
WORKERS = (1, 2)
CAPTION = "seconds: medians; speed-up: one worker's over two workers' in the same repetition, median [lowest, highest]"


@contextmanager
def ray_nodes(n: int) -> Iterator[str]:
    """The address of a Ray cluster of some nodes with one CPU each."""
    size = {"num_cpus": 1, "object_store_memory": 80_000_000}
    head = {**size, "include_dashboard": False}
    cluster = import_module("ray.cluster_utils").Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(n - 1):
            cluster.add_node(**size)
        cluster.wait_for_nodes()
        yield cluster.address
    finally:
        cluster.shutdown()


@contextmanager
def workers(engine: str, n: int) -> Iterator[Sequence[str]]:
    """The options of `interp sweep` for so many workers."""
    if engine == "local":
        yield ["--jobs", str(n)]
        return
    with ray_nodes(n) as address:
        yield ["--cluster", address]


def measure(engine: str, n_workers: int, n_runs: int, steps: int) -> float:
    """Seconds of one sweep from nothing."""
    with TemporaryDirectory() as folder, workers(engine, n_workers) as chosen:
        file = Path(folder) / "sweep.toml"
        file.write_text(f'out = "grid"\n[train]\nseeds = "0-{n_runs - 1}"\n[train.set]\nrecipe.steps = {steps}\n')
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "interp", "sweep", str(file), *chosen],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
        )
        took = time.monotonic() - began
    if done.returncode:
        sys.exit(done.stderr)
    return took


def compare(engine: str, n_runs: int, steps: int, repetitions: int, bar: "tqdm[Any]") -> dict[str, Any]:
    """One row: seconds with one worker and with two, in turns."""
    seconds: dict[int, list[float]] = {n: [] for n in WORKERS}
    for repetition in range(repetitions):
        for n in WORKERS if repetition % 2 == 0 else WORKERS[::-1]:
            seconds[n].append(measure(engine, n, n_runs, steps))
            bar.update()
    ratios = [one / two for one, two in zip(*seconds.values(), strict=True)]
    medians = {f"seconds_{n}": statistics.median(of_n) for n, of_n in seconds.items()}
    return {"engine": engine, "runs": n_runs, "steps": steps} | medians | spread("speedup", ratios)


def print_table(report: Mapping[str, Any]) -> None:
    rows = [
        [row["engine"], f"{row['runs']} of {row['steps']} steps"]
        + [f"{row[f'seconds_{n}']:.1f} s" for n in WORKERS]
        + [interval(row, "speedup", ".2f")]
        for row in report["results"]
    ]
    output.print_table("two workers", ["engine", "runs", "one worker", "two", "speed-up"], rows, CAPTION)


def bench(
    engines: Annotated[str, typer.Option("--engines", metavar="NAME,NAME", help=", ".join(ENGINES))] = "local,ray",
    runs: Annotated[int, typer.Option("--runs", metavar="N", min=2)] = 6,
    steps: Annotated[int, typer.Option("--steps", metavar="N", min=1, help="Of each run.")] = 500,
    repetitions: Repetitions = 3,
    json: options.Json = False,
    out: Out = None,
) -> None:
    """What a second worker of a sweep saves.

    \b
    Example:
      python tests/bench/speedup.py --engines local --repetitions 5
    """
    names = options.split_names("--engines", engines)
    for name in names:
        if name not in ENGINES:
            raise one_of("--engines", name, ENGINES)
    if "ray" in names and importlib.util.find_spec("ray") is None:
        raise UserError("--engines ray needs Ray, which the extra `cluster` installs")
    with tqdm(total=len(names) * repetitions * len(WORKERS), unit="sweep", disable=None) as bar:
        rows = [compare(name, runs, steps, repetitions, bar) for name in names]
    deliver({"results": rows}, print_table, "", json=json, directory=out)


app = command(bench)

if __name__ == "__main__":
    app()

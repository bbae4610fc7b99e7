"""How cost grows with layers, heads, width, points and prompts, in time and memory, and what a budget allows.

    python tests/bench/scaling.py                                 # minutes on two cores
    python tests/bench/scaling.py --axes points --works sweep,patch --json

1. Start from the tiny preset and change one size at a time; weights are random, since cost does not depend on them.
2. Every piece of work runs in a process of its own, which says how long it took (the fastest of a few times, after one
   to warm up) and how much memory it took at most beyond what the process had before (Linux only).
3. A power law by size: the slope of log seconds over the larger half of an axis, where the fixed costs have faded.
4. Beyond the axis: the size at which the work would take `--budget` seconds, if that law goes on.
"""

import json as json_format
import math
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from measure import Out, Repetitions, command, deliver, timed
from tqdm import tqdm

from training import options
from training.common import output
from training.common.errors import one_of
from training.common.table_rows import where

NAME = "linear"
BASE = {"n_layers": 3, "n_heads": 8, "d_model": 64, "n_points": 16, "n_prompts": 256}
AXES: Mapping[str, Sequence[int]] = {
    "n_layers": (2, 3, 6, 12, 24),
    "n_heads": (2, 4, 8, 16, 32),
    "d_model": (32, 64, 128, 256, 512),
    "n_points": (8, 16, 32, 64, 100),
    "n_prompts": (64, 256, 1024, 4096),
}
WORKS: Mapping[str, str] = {
    "train": "one training step, batch 64",
    "score": "every score of every head",
    "sweep": "every head removed, one replacement",
    "patch": "resid_pre patched at every layer and token",
    "gradient": "the same estimated from gradients",
}
FAR = 100  # times the largest size that was measured
CAPTION = (
    "seconds at the base size and at the largest of the axis; slope: of log seconds over the larger half of the axis; "
    f"budget at: where the work would take the budget if that went on, - beyond {FAR} times the largest; memory: "
    "at the largest, beyond what the process had before"
)


def checkpoint_of(sizes: Mapping[str, int]) -> Any:
    """A model of these sizes with random weights."""
    from ablations import random_checkpoint

    shape = [f"model.{name}={sizes[name]}" for name in ("n_layers", "n_heads", "d_model")]
    points = [f"data.n_points={sizes['n_points']}", f"model.n_ctx={2 * sizes['n_points']}"]
    return random_checkpoint("tiny", [*shape, *points], "cpu")


def work_of(name: str, sizes: Mapping[str, int]) -> Callable[[], object]:
    """The piece of work, ready to run; training repeats a step."""
    from sweepers import Ours, Task

    from interp import attribute, patch
    from interp.attribution.nodes import METHODS
    from interp.scores.score import score_all
    from training.loop.state import new_state
    from training.loop.trainer import step_batch, training_predict, training_step

    checkpoint, n_prompts = checkpoint_of(sizes), sizes["n_prompts"]
    if name == "train":
        config = replace(checkpoint.config, recipe=replace(checkpoint.config.recipe, batch_size=64))
        state, schedule = new_state(config, "cpu"), config.parsed_schedule()
        predict = training_predict(state.model, config.recipe)
        return lambda: training_step(state, config, step_batch(config, schedule, state), predict)
    if name == "sweep":
        return Ours(Task(checkpoint, n_prompts)).errors
    if name == "score":
        return lambda: score_all(checkpoint, [NAME], n_prompts=n_prompts, intervals=False)
    if name == "patch":
        return lambda: patch(checkpoint, [NAME], site="resid_pre", n_prompts=n_prompts)
    assert "gradient" in METHODS
    return lambda: attribute(
        checkpoint, [NAME], site="resid_pre", methods=["gradient"], n_prompts=n_prompts, n_validate=0
    )


def measure_here(name: str, sizes: Mapping[str, int], repetitions: int) -> dict[str, float]:
    """Seconds and peak memory of one piece of work in this process, which has done nothing else."""
    work = work_of(name, sizes)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    work()
    peak = max(before, resident("VmHWM"))  # the kernel's counts are off by some pages
    return {"seconds": min(timed(work, "cpu") for _ in range(repetitions)), "memory": peak - before}


def resident(kind: str) -> int:
    """The resident size of this process, now (VmRSS) or at its peak (VmHWM), in bytes."""
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in status if line.startswith(f"{kind}:"))


def measure_apart(name: str, sizes: Mapping[str, int], repetitions: int) -> dict[str, float]:
    """The same in a process of its own."""
    asked = json_format.dumps([name, dict(sizes), repetitions])
    done = subprocess.run([sys.executable, __file__, "--one", asked], capture_output=True, text=True, check=True)
    return json_format.loads(done.stdout)


def slope(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Of log seconds over log size, for the larger half of the sizes.

    >>> round(slope([1, 2, 4, 8], [1.0, 1.1, 4.0, 16.0]), 3)
    2.0
    """
    half = len(sizes) // 2
    return float(np.polyfit(np.log(sizes[half:]), np.log(seconds[half:]), 1)[0])


def affordable(size: float, seconds: float, power: float, budget: float) -> float:
    """The size at which the work takes the budget, by the power law; infinite where that is too far off to say.

    >>> affordable(100, 10.0, 2.0, 1000.0)
    1000.0
    >>> affordable(100, 10.0, 0.2, 1000.0)
    inf
    """
    found = size * (budget / seconds) ** (1 / power) if power > 0 else math.inf
    return found if found < FAR * size else math.inf


def summary(results: pd.DataFrame, budget: float) -> list[dict[str, Any]]:
    """One row per work and axis."""
    rows = []
    for work, axis in dict.fromkeys(zip(results["work"], results["axis"], strict=True)):
        cells = where(results, work=work, axis=axis).sort_values("size")
        sizes, seconds = cells["size"].tolist(), cells["seconds"].tolist()
        power = slope(sizes, seconds)
        rows.append(
            {"work": work, "axis": axis, "base": BASE[axis], "largest": sizes[-1], "slope": power}
            | {"seconds_base": seconds[sizes.index(BASE[axis])], "seconds_largest": seconds[-1]}
            | {"memory_largest": cells["memory"].iloc[-1]}
            | {"affordable": affordable(sizes[-1], seconds[-1], power, budget)}
        )
    return rows


def print_tables(report: Mapping[str, Any]) -> None:
    rows = [
        [
            f"{row['work']}: {row['axis']}",
            f"{row['seconds_base']:.3g} s at {row['base']}",
            f"{row['seconds_largest']:.3g} s at {row['largest']}",
            f"{row['slope']:.2f}",
            "-" if math.isinf(row["affordable"]) else f"{row['affordable']:.3g}",
            f"{row['memory_largest'] / 2**20:.0f} MiB",
        ]
        for row in report["summary"]
    ]
    header = ["work: axis", "base", "largest", "slope", f"{report['budget']:g} s at", "memory"]
    output.print_table("what grows how", header, rows, CAPTION)


def bench(
    axes: Annotated[str, typer.Option("--axes", metavar="NAME,NAME", help=", ".join(AXES))] = ",".join(AXES),
    works: Annotated[str, typer.Option("--works", metavar="NAME,NAME", help=", ".join(WORKS))] = ",".join(WORKS),
    largest: Annotated[int, typer.Option("--largest", metavar="N", help="Leave out sizes beyond this.")] = 4096,
    repetitions: Repetitions = 3,
    budget: Annotated[
        float, typer.Option("--budget", metavar="SECONDS", help="What one piece of work may take.")
    ] = 600,
    one: Annotated[str | None, typer.Option("--one", hidden=True)] = None,
    json: options.Json = False,
    out: Out = None,
) -> None:
    """Cost by size, one size at a time.

    \b
    Example:
      python tests/bench/scaling.py --axes n_points,n_heads --works sweep,patch,gradient
    """
    if one is not None:
        output.print_json(measure_here(*json_format.loads(one)))
        return
    chosen, asked = options.split_names("--axes", axes), options.split_names("--works", works)
    for option, names, valid in (("--axes", chosen, AXES), ("--works", asked, WORKS)):
        for name in names:
            if name not in valid:
                raise one_of(option, name, valid)
    cells = [
        {"work": work, "axis": axis, "size": size}
        for axis in chosen
        for work in asked
        if (work, axis) != ("train", "n_prompts")  # a step's batch is its own
        for size in AXES[axis]
        if size <= largest
    ]
    results = [
        cell | measure_apart(cell["work"], {**BASE, cell["axis"]: cell["size"]}, repetitions)
        for cell in tqdm(cells, unit="cell", disable=None)
    ]
    report = {"budget": budget, "summary": summary(pd.DataFrame(results), budget), "results": results}
    deliver(report, print_tables, "", json=json, directory=out)


app = command(bench)

if __name__ == "__main__":
    app()

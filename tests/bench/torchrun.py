"""Whether several processes on one run pay: data-parallel steps beside runs of their own.

    python tests/bench/torchrun.py                                # a few minutes on two cores
    python tests/bench/torchrun.py --presets tiny --seconds 2 --json

Three ways to use the same cores, each started by torchrun, in turns:

- alone: one run, one process with a thread per core;
- shared: one run, a process per core, each with a part of the batch; they average gradients (DistributedDataParallel);
- apart: a run per core, each with the whole batch, as `interp sweep` and `interp train --seeds` do.

Reported are prompts per second of the machine, as ratios to `alone` in the same repetition. CPU only (gloo).
"""

import json as json_format
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, NoReturn

import torch
import torch.distributed as dist
import typer
from measure import Out, Presets, Repetitions, Settings, command, deliver, interval, rotated, spread
from tqdm import tqdm

from training import options
from training.common import output
from training.common.errors import UserError
from training.config.parse import from_preset
from training.loop.state import new_state
from training.loop.trainer import arithmetic, step_batch, training_predict, training_step
from training.model.transformer import Transformer

CAPTION = "prompts per second over those of `alone` in the same repetition; median [lowest, highest]"


@dataclass(frozen=True)
class Way:
    """How cores are used.

    Attributes:
        is_per_core: whether every core has a process of its own.
        is_one_run: whether processes share a batch and their gradients.
    """

    is_per_core: bool
    is_one_run: bool

    def processes(self, n_cores: int) -> int:
        return n_cores if self.is_per_core else 1

    def runs(self, n_cores: int) -> int:
        return 1 if self.is_one_run else self.processes(n_cores)


WAYS: Mapping[str, Way] = {"alone": Way(False, True), "shared": Way(True, True), "apart": Way(True, False)}


class Forward(torch.nn.Module):
    """The forward pass as a module, which is what DistributedDataParallel wraps."""

    def __init__(self, model: Transformer, predict: Any) -> None:
        super().__init__()
        self.model, self.predict = model, predict

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.predict(tokens)


def measure_here(preset: str, way: Way, n_cores: int, seconds: float, settings: list[str]) -> dict[str, Any]:
    """Prompts per second of all processes together, as one of them; and the sum of each one's weights afterwards."""
    dist.init_process_group("gloo")
    rank, n_processes = dist.get_rank(), dist.get_world_size()
    config = from_preset(preset, "mixed", 0, settings)
    batch_size = config.recipe.batch_size // (n_processes if way.is_one_run else 1)
    recipe = replace(config.recipe, batch_size=batch_size, threads=n_cores // n_processes)
    config = replace(config, recipe=recipe, seeds=replace(config.seeds, data=(config.seeds.data or 0) + rank))
    state, schedule = new_state(config, "cpu"), config.parsed_schedule()
    predict = training_predict(state.model, recipe)
    if way.is_one_run and n_processes > 1:
        predict = torch.nn.parallel.DistributedDataParallel(Forward(state.model, predict))
    with arithmetic(recipe):
        training_step(state, config, step_batch(config, schedule, state), predict)
        dist.barrier()
        began, steps = time.perf_counter(), 0
        while goes_on(began, seconds, way):
            training_step(state, config, step_batch(config, schedule, state), predict)
            steps += 1
        took = time.perf_counter() - began
    rate = steps * batch_size / took
    weights = sum(float(parameter.detach().double().sum()) for parameter in state.model.parameters())
    found: list[Any] = [None] * n_processes
    dist.all_gather_object(found, (rate, weights))
    dist.destroy_process_group()
    return {"rate": sum(rate for rate, _ in found), "weights": [weights for _, weights in found]}


def end_worker() -> NoReturn:
    """End this process without Python's finalisation.

    DistributedDataParallel keeps the process group, and with it gloo's threads, beyond `destroy_process_group`. Where
    one of them asks for the interpreter while it is finalised, as happens on a busy machine, the process aborts.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def goes_on(began: float, seconds: float, way: Way) -> bool:
    """Whether there is time for a step; processes of one run decide it together."""
    left = torch.tensor([seconds - (time.perf_counter() - began)])
    if way.is_one_run:
        dist.broadcast(left, src=0)
    return float(left) > 0


def measure_apart(preset: str, name: str, n_cores: int, seconds: float, settings: list[str]) -> dict[str, Any]:
    """The same in processes of their own."""
    asked = json_format.dumps([preset, name, n_cores, seconds, settings])
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
    start += [str(WAYS[name].processes(n_cores)), __file__, "--one", asked]
    environment = {**os.environ, "OMP_NUM_THREADS": str(n_cores)}
    done = subprocess.run(start, capture_output=True, text=True, check=False, env=environment)
    try:
        return json_format.loads(done.stdout)  # whole, it is the result, however the processes ended after it
    except ValueError:
        sys.exit(done.stderr)


def compare(
    preset: str, n_cores: int, seconds: float, repetitions: int, settings: list[str], bar: "tqdm[Any]"
) -> list[dict[str, Any]]:
    """One row per way."""
    rates: dict[str, list[float]] = {name: [] for name in WAYS}
    for repetition in range(repetitions):
        for name in rotated([*WAYS], repetition):
            rates[name].append(measure_apart(preset, name, n_cores, seconds, settings)["rate"])
            bar.update()
    rows = []
    for name, of_way in rates.items():
        ratios = [rate / alone for rate, alone in zip(of_way, rates["alone"], strict=True)]
        row = {"preset": preset, "way": name, "runs": WAYS[name].runs(n_cores), "rate": statistics.median(of_way)}
        rows.append(row | spread("ratio", ratios))
    return rows


def print_table(report: Mapping[str, Any]) -> None:
    rows = [
        [row["preset"], row["way"], str(row["runs"]), f"{row['rate']:.1f}", interval(row, "ratio", ".2f")]
        for row in report["results"]
    ]
    output.print_table("one run on all cores", ["preset", "way", "runs", "prompts/s", "ratio"], rows, CAPTION)


def bench(
    presets: Presets = "tiny,small,paper",
    seconds: Annotated[float, typer.Option("--seconds", metavar="S", min=0.1, help="Of each measurement.")] = 20,
    repetitions: Repetitions = 3,
    settings: Settings = None,
    one: Annotated[str | None, typer.Option("--one", hidden=True)] = None,
    json: options.Json = False,
    out: Out = None,
) -> None:
    """Whether several processes on one run pay.

    \b
    Example:
      python tests/bench/torchrun.py --presets paper --seconds 60
    """
    if one is not None:
        preset, name, n_cores, *rest = json_format.loads(one)
        found = measure_here(preset, WAYS[name], n_cores, *rest)
        if os.environ["RANK"] == "0":
            output.print_json(found)
        end_worker()
    n_cores, names = os.cpu_count() or 1, options.split_names("--presets", presets)
    for name in names:
        batch_size = from_preset(name, "mixed", 0, settings or []).recipe.batch_size
        if batch_size < n_cores:
            raise UserError(f"{name}: {n_cores} cores cannot share a batch of {batch_size} (--set recipe.batch_size=N)")
    with tqdm(total=len(names) * repetitions * len(WAYS), unit="way", disable=None) as bar:
        rows = [row for name in names for row in compare(name, n_cores, seconds, repetitions, settings or [], bar)]
    deliver({"cores": n_cores, "results": rows}, print_table, "", json=json, directory=out)


app = command(bench)

if __name__ == "__main__":
    app()

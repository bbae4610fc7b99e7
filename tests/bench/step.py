"""How long a training step takes: this project's against three other ways to train the same network (`trainers.py`).

    python tests/bench/step.py                                   # what `make bench` runs
    python tests/bench/step.py --presets tiny,small --repetitions 9 --json
    python tests/bench/step.py --presets paper --set recipe.precision=bf16

1. Build the trainers of a preset and warm each of them up.
2. Repeat: every trainer takes a block of steps, in an order that rotates; torch.mm is timed between them.
3. Report medians over the repetitions. A ratio is taken within a repetition, so a slow minute does not favour anyone.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from measure import (
    Out,
    Presets,
    Repetitions,
    Settings,
    command,
    deliver,
    interval,
    matmul_rate,
    progress,
    rotated,
    spread,
    timed,
)
from tqdm import tqdm
from trainers import TRAINERS, Trainer

from training import options
from training.commands import check_device
from training.common import output
from training.config.config import RunConfig
from training.config.parse import from_preset
from training.loop.trainer import arithmetic
from training.model import flops

OURS = "ours"
BLOCK_SECONDS = 1.0  # our share of a repetition lasts about this long
MAX_BLOCK = 50  # steps
CAPTION = (
    "ratio: their time over ours, in the same repetition; median [lowest, highest]. gpt2: transformers.GPT2Model; "
    "twice: with the authors' second forward, for attention maps; hooked: HookedTransformer. Ours skips what no "
    "prediction reads. Peak: the fastest torch.mm of this run in that precision; attention is counted over visible "
    "pairs only."
)


@dataclass(frozen=True)
class Comparison:
    """What was measured on one preset.

    Attributes:
        block: steps per trainer and repetition.
        seconds: of one step, by trainer and repetition.
        peak: the highest torch.mm rate, FLOP/s.
    """

    preset: str
    config: RunConfig
    block: int
    seconds: Mapping[str, Sequence[float]]
    peak: float

    def ratios(self, trainer: str) -> list[float]:
        """How many of our steps this trainer's step lasts, by repetition."""
        pairs = zip(self.seconds[trainer], self.seconds[OURS], strict=True)
        return [theirs / ours for theirs, ours in pairs]

    @property
    def rate(self) -> float:
        """FLOP/s of our step."""
        return step_flops(self.config) / statistics.median(self.seconds[OURS])


def compare(preset: str, config: RunConfig, device: str, repetitions: int, bar: "tqdm[Any]") -> Comparison:
    """Time all trainers on one configuration, with the threads that it asks for."""
    bar.set_description(preset)
    dtype = torch.bfloat16 if config.recipe.precision == "bf16" else torch.float32
    with arithmetic(config.recipe):
        trainers = {name: build(config, device) for name, build in TRAINERS.items()}
        warm = {name: warm_up(trainers[name], device) for name in progress(bar, list(trainers))}
        block = block_size(warm[OURS])
        seconds: dict[str, list[float]] = {name: [] for name in trainers}
        peak = 0.0
        for repetition in range(repetitions):
            peak = max(peak, matmul_rate(device, dtype))
            for name in progress(bar, rotated(list(trainers), repetition)):
                seconds[name].append(timed(trainers[name].step, device, block))
    return Comparison(preset, config, block, seconds, peak)


def block_size(seconds: float) -> int:
    """How many steps in a row to time, where one takes so long.

    >>> block_size(3.0), block_size(0.1), block_size(0.001)
    (1, 10, 50)
    """
    return min(MAX_BLOCK, max(1, round(BLOCK_SECONDS / seconds)))


def warm_up(trainer: Trainer, device: str) -> float:
    """Seconds of a step; the first one also allocates, so where steps are short the second one counts."""
    first = timed(trainer.step, device)
    return first if first > BLOCK_SECONDS else timed(trainer.step, device)


def step_flops(config: RunConfig) -> int:
    """Floating-point operations of our training step: work that it skips does not count.

    >>> step_flops(from_preset("tiny", "mixed", 0)) / 1e6
    1583.153152
    """
    return flops.step_flops(config.model, config.recipe.batch_size, config.data.n_points)


def result_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """One row per trainer; times in ms per step."""
    return [
        {"preset": comparison.preset, "trainer": trainer}
        | spread("ms", [1e3 * second for second in comparison.seconds[trainer]])
        | spread("ratio", comparison.ratios(trainer))
        for trainer in comparison.seconds
    ]


def preset_row(comparison: Comparison) -> dict[str, Any]:
    return {
        "preset": comparison.preset,
        "threads": comparison.config.recipe.threads,
        "steps_per_repetition": comparison.block,
        "gflop_per_step": step_flops(comparison.config) / 1e9,
        "gflop_per_second": comparison.rate / 1e9,
        "peak_gflop_per_second": comparison.peak / 1e9,
        "share_of_peak": comparison.rate / comparison.peak,
    }


def measurement_rows(comparison: Comparison) -> list[dict[str, Any]]:
    return [
        {"preset": comparison.preset, "trainer": trainer, "repetition": repetition, "ms": 1e3 * second}
        for trainer, seconds in comparison.seconds.items()
        for repetition, second in enumerate(seconds)
    ]


def document(comparisons: Sequence[Comparison], device: str, repetitions: int) -> dict[str, Any]:
    """All that was measured, as `--json` prints it."""
    return {
        "device": device if device == "cpu" else torch.cuda.get_device_name(device),
        "versions": {name: version(name) for name in ("torch", "transformers", "transformer-lens")},
        "repetitions": repetitions,
        "presets": [preset_row(comparison) for comparison in comparisons],
        "results": [row for comparison in comparisons for row in result_rows(comparison)],
        "measurements": [row for comparison in comparisons for row in measurement_rows(comparison)],
    }


def print_tables(report: Mapping[str, Any]) -> None:
    rows = [
        [f"{row['preset']}: {row['trainer']}", interval(row, "ms", ",.1f"), interval(row, "ratio", ".2f")]
        for row in report["results"]
    ]
    title = f"One training step on {report['device']}; interleaved repetitions: {report['repetitions']}"
    output.print_table(title, ["preset: trainer", "ms per step", "ratio"], rows)
    shares = [
        [
            row["preset"],
            str(row["threads"]),
            f"{row['gflop_per_step']:.3g}",
            f"{row['gflop_per_second']:.3g}",
            f"{row['peak_gflop_per_second']:.3g}",
            f"{row['share_of_peak']:.0%}",
        ]
        for row in report["presets"]
    ]
    header = ["ours", "threads", "GFLOP per step", "GFLOP/s", "torch.mm peak GFLOP/s", "share of peak"]
    output.print_table("", header, shares, CAPTION)


def defeats(report: Mapping[str, Any]) -> list[str]:
    """Where another trainer is as fast as ours or faster."""
    others = [row for row in report["results"] if row["trainer"] != OURS]
    return [f"{row['trainer']} on {row['preset']} ({row['ratio']:.2f})" for row in others if row["ratio"] <= 1]


def bench(
    presets: Presets = "tiny,small,paper",
    repetitions: Repetitions = 5,
    settings: Settings = None,
    device: options.Device = "cpu",
    json: options.Json = False,
    out: Out = None,
) -> None:
    """Time a training step of this project against other trainers of the same network.

    Exits with 1 if one of them is as fast.
    """
    configs = {
        preset: from_preset(preset, "mixed", 0, settings or []) for preset in options.split_names("--presets", presets)
    }
    device = check_device(device)
    ticks = len(configs) * len(TRAINERS) * (1 + repetitions)
    with tqdm(total=ticks, unit="block", disable=None) as bar:
        comparisons = [compare(preset, config, device, repetitions, bar) for preset, config in configs.items()]
    report = document(comparisons, device, repetitions)
    failure = f"not ahead of {', '.join(defeats(report))}" if defeats(report) else ""
    deliver(report, print_tables, failure, json=json, directory=out)


app = command(bench)

if __name__ == "__main__":
    app()

"""How long it takes to remove every head in turn: this project's sweep against TransformerLens loops (`sweepers.py`).

    python tests/bench/ablations.py                                # what `make bench` runs
    python tests/bench/ablations.py --presets paper --prompts 32 --json

1. Build a model of a preset's shape with random weights, and the prompts.
2. Repeat: every way removes all heads once, in an order that rotates; torch.mm is timed between them.
3. Report medians over the repetitions, ratios within a repetition, and how far the results are apart.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

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
    prompts_option,
    rotated,
    spread,
    timed,
)
from sweepers import SWEEPERS, Loop, Task, sweep_flops
from tqdm import tqdm

from training import options
from training.checkpoints.checkpoint import Checkpoint
from training.commands import check_device
from training.common import output
from training.config.parse import from_preset
from training.model.transformer import Transformer

OURS = "ours"
AHEAD = 3  # times the plain loop, on CPU: what this project promises
SAME = 1e-3  # of the largest effect: float32 through another order of sums
PROMPTS: Mapping[str, int] = {"tiny": 1024, "small": 128, "paper": 16}
CAPTION = (
    "ratio: their time over ours, in the same repetition; median [lowest, highest]. loop: HookedTransformer."
    "run_with_hooks for every head; suffix: with start_at_layer; at the batch size that suits them best. difference: "
    "of squared errors, over the largest effect of any head. Peak: the fastest float32 torch.mm of this run."
)


@dataclass(frozen=True)
class Comparison:
    """What was measured on one preset.

    Attributes:
        n_heads: removed, one after the other.
        batches: prompts at once, of the loops.
        seconds: for all heads, by way and repetition.
        differences: by way, from ours.
        flops: of our sweep.
        peak: the highest torch.mm rate, FLOP/s.
    """

    preset: str
    n_prompts: int
    n_heads: int
    batches: Mapping[str, int]
    seconds: Mapping[str, Sequence[float]]
    differences: Mapping[str, float]
    flops: int
    peak: float

    def ratios(self, name: str) -> list[float]:
        return [theirs / ours for theirs, ours in zip(self.seconds[name], self.seconds[OURS], strict=True)]

    @property
    def rate(self) -> float:
        """FLOP/s of our sweep."""
        return self.flops / statistics.median(self.seconds[OURS])


def random_checkpoint(preset: str, settings: Sequence[str], device: str) -> Checkpoint:
    """A model of this shape in which every parameter is random, so that every head does something."""
    config = from_preset(preset, "mixed", 0, list(settings))
    generator = torch.Generator().manual_seed(0)
    model = Transformer(config.model, generator, layout=config.layout)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return Checkpoint(preset, Path(preset), config, 0, model.requires_grad_(False).eval().to(device))


def compare(checkpoint: Checkpoint, n_prompts: int, repetitions: int, bar: "tqdm[Any]") -> Comparison:
    """Time all ways to sweep one model."""
    bar.set_description(checkpoint.name)
    device = str(checkpoint.model.device)
    task = Task(checkpoint, n_prompts)
    ways = {name: build(task) for name, build in SWEEPERS.items()}
    errors = {}
    for name, way in ways.items():
        errors[name] = way.errors()
        bar.update()
    intact = task.chunk(range(min(task.sweep.chunk_size, n_prompts)))[1]
    effect = abs(errors[OURS][:, : len(intact)] - intact).max()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    peak = 0.0
    for repetition in range(repetitions):
        peak = max(peak, matmul_rate(device))
        for name in rotated(list(ways), repetition):
            seconds[name].append(timed(ways[name].errors, device))
            bar.update()
    return Comparison(
        checkpoint.name,
        n_prompts,
        len(task.heads),
        {name: way.batch for name, way in ways.items() if isinstance(way, Loop)},
        seconds,
        {name: float(abs(errors[name] - errors[OURS]).max() / effect) for name in ways},
        sweep_flops(task),
        peak,
    )


def document(comparisons: Sequence[Comparison], device: str, repetitions: int) -> dict[str, Any]:
    """All that was measured, as `--json` prints it."""
    return {
        "device": device if device == "cpu" else torch.cuda.get_device_name(device),
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("torch", "transformer-lens")},
        "repetitions": repetitions,
        "presets": [preset_row(comparison) for comparison in comparisons],
        "results": [row for comparison in comparisons for row in result_rows(comparison)],
    }


def preset_row(comparison: Comparison) -> dict[str, Any]:
    return {
        "preset": comparison.preset,
        "prompts": comparison.n_prompts,
        "heads": comparison.n_heads,
        "gflop": comparison.flops / 1e9,
        "gflop_per_second": comparison.rate / 1e9,
        "peak_gflop_per_second": comparison.peak / 1e9,
        "share_of_peak": comparison.rate / comparison.peak,
    }


def result_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """One row per way."""
    return [
        {"preset": comparison.preset, "way": name, "batch": comparison.batches.get(name)}
        | spread("seconds", comparison.seconds[name])
        | spread("ratio", comparison.ratios(name))
        | {"difference": comparison.differences[name]}
        for name in comparison.seconds
    ]


def print_tables(report: Mapping[str, Any]) -> None:
    rows = [
        [
            f"{row['preset']}: {row['way']}",
            interval(row, "seconds", ",.2f"),
            interval(row, "ratio", ".2f"),
            "" if row["way"] == OURS else f"{row['difference']:.1e}",
        ]
        for row in report["results"]
    ]
    title = (
        f"Every head removed on {report['device']}, {report['threads']} threads; repetitions: {report['repetitions']}"
    )
    output.print_table(title, ["preset: way", "seconds", "ratio", "difference"], rows)
    shares = [
        [
            row["preset"],
            str(row["heads"]),
            str(row["prompts"]),
            f"{row['gflop']:,.0f}",
            f"{row['gflop_per_second']:.3g}",
            f"{row['peak_gflop_per_second']:.3g}",
            f"{row['share_of_peak']:.0%}",
        ]
        for row in report["presets"]
    ]
    header = ["ours", "heads", "prompts", "GFLOP", "GFLOP/s", "torch.mm peak GFLOP/s", "share of peak"]
    output.print_table("", header, shares, CAPTION)


def failures(report: Mapping[str, Any]) -> list[str]:
    """Where results differ, or ours is not ahead by as much as is promised."""
    others = [row for row in report["results"] if row["way"] != OURS]
    slow = [row for row in others if row["ratio"] < (AHEAD if row["way"] == "loop" else 1)]
    wrong = [row for row in others if row["difference"] > SAME]
    return [f"{row['way']} on {row['preset']}: {row['ratio']:.2f} times our time" for row in slow] + [
        f"{row['way']} on {row['preset']}: results differ by {row['difference']:.1e}" for row in wrong
    ]


def bench(
    presets: Presets = "tiny,small,paper",
    prompts: Annotated[int | None, prompts_option(PROMPTS, "For every head.")] = None,
    repetitions: Repetitions = 3,
    settings: Settings = None,
    device: options.Device = "cpu",
    json: options.Json = False,
    out: Out = None,
) -> None:
    """Time the removal of every head against TransformerLens loops over the same model.

    Exits with 1 if results differ or ours is not ahead by as much as is promised.
    """
    device = check_device(device)
    checkpoints = [
        random_checkpoint(preset, settings or [], device) for preset in options.split_names("--presets", presets)
    ]
    with tqdm(total=len(checkpoints) * len(SWEEPERS) * (1 + repetitions), unit="sweep", disable=None) as bar:
        comparisons = [compare(one, prompts or PROMPTS.get(one.name, 64), repetitions, bar) for one in checkpoints]
    report = document(comparisons, device, repetitions)
    deliver(report, print_tables, "; ".join(failures(report)), json=json, directory=out)


app = command(bench)

if __name__ == "__main__":
    app()

"""How long an exact map of the residual stream takes: ours against `transformer_lens.patching` on the same model.

    python tests/bench/patching.py                                # what `make bench` runs
    python tests/bench/patching.py --presets paper --prompts 2 --json

1. Build a model of a preset's shape with random weights, and clean and corrupt prompts.
2. Repeat: both patch resid_pre at every layer and token once, the first of them alternating.
3. Report medians over the repetitions, ratios within a repetition, and how far the maps are apart.

TransformerLens patches with `generic_activation_patch`, which its `get_act_patch_resid_pre` wraps, given every layer
and token: on its own it takes the number of tokens from the last axis of the prompt, here their width. Its batch size
is the one that is fastest for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import product
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
from ablations import random_checkpoint
from jaxtyping import Float
from measure import (
    Out,
    Presets,
    Repetitions,
    Settings,
    command,
    deliver,
    interval,
    prompts_option,
    rotated,
    spread,
    timed,
)
from torch import Tensor
from tqdm import tqdm
from transformer_lens import patching

from interp.model.hooked_transformer import hooked
from interp.patching.effects import effect_of
from interp.patching.maps import list_locations, source_activations
from interp.patching.runner import Question, run_patches
from training import options
from training.checkpoints.checkpoint import Checkpoint
from training.commands import check_device
from training.common import output

OURS, THEIRS = "ours", "transformer_lens.patching"
NAME, SITE = "linear", "resid_pre"
AHEAD = 2  # times, on CPU: what this project promises
SAME = 1e-4  # of an effect
PROMPTS: Mapping[str, int] = {"tiny": 256, "small": 16, "paper": 1}
BATCHES = (1, 8, 32, 128, 256)
CAPTION = (
    "ratio: their time over ours, in the same repetition; median [lowest, highest]; difference: the largest, of "
    "effects (0 nothing happened, 1 everything was patched)"
)


class Ours:
    """The sweep as `interp patch` calls it, self-checks included."""

    def __init__(self, checkpoint: Checkpoint, question: Question) -> None:
        places = list_locations(checkpoint.config, SITE, None, None, checkpoint.config.data.n_points - 1)
        self.variants = [place.variant for place in places]
        self.checkpoint, self.question = checkpoint, question

    def effects(self) -> Float[np.ndarray, " cell"]:
        with tqdm(disable=True) as bar:
            prepare = source_activations(self.variants)
            outcomes = run_patches(self.checkpoint, NAME, self.question, [self.variants], prepare, bar).outcomes
        weights = np.full((1, len(outcomes.answer)), 1 / len(outcomes.answer))
        return np.array([one.value for one in effect_of(outcomes.patched, *self.question.ends(outcomes), weights)])


class Theirs:
    """generic_activation_patch over all layers and tokens; only the metric is ours."""

    def __init__(self, checkpoint: Checkpoint, question: Question) -> None:
        device = str(checkpoint.model.device)
        self.model, pairs = hooked(checkpoint, device), question.pairs(checkpoint, NAME)
        self.corrupt, self.clean = (checkpoint.model.needed(side.tokens) for side in question.sides(pairs))
        with torch.no_grad():
            base, source = (self.model(tokens)[:, -1, 0] for tokens in (self.corrupt, self.clean))
        self.base, self.gap = base, source - base
        layers, tokens = range(checkpoint.config.model.n_layers), range(self.clean.shape[1])
        self.cells = pd.DataFrame(product(layers, tokens), columns=["layer", "pos"])
        fitting = [size for size in BATCHES if size < len(self.clean)] + [len(self.clean)]
        self.batch = min(fitting, key=self.seconds_per_prompt)

    def seconds_per_prompt(self, batch: int) -> float:
        self.sums(slice(0, batch), self.cells.head(2))
        return timed(lambda: self.sums(slice(0, batch), self.cells.head(2)), str(self.clean.device)) / batch

    def effects(self) -> Float[np.ndarray, " cell"]:
        sums = [
            self.sums(slice(start, start + self.batch), self.cells) for start in range(0, len(self.clean), self.batch)
        ]
        return (torch.stack(sums).sum(0) / self.gap.square().sum()).double().cpu().numpy()

    @torch.no_grad()
    def sums(self, prompts: slice, cells: pd.DataFrame) -> Float[Tensor, " cell"]:
        """By cell, the sum over prompts of (p - p_base) (p_source - p_base)."""
        cache = self.model.run_with_cache(self.clean[prompts], names_filter=lambda name: name.endswith(SITE))[1]

        def metric(logits: Float[Tensor, "batch pos 1"]) -> Float[Tensor, ""]:
            return ((logits[:, -1, 0] - self.base[prompts]) * self.gap[prompts]).sum()

        return patching.generic_activation_patch(
            self.model, self.corrupt[prompts], cache, metric, patching.layer_pos_patch_setter, SITE, index_df=cells
        )


@dataclass(frozen=True)
class Comparison:
    """What was measured on one preset.

    Attributes:
        n_cells: layers times tokens.
        batch: prompts at once, of TransformerLens.
        seconds: for the map, by way and repetition.
        difference: the largest of any cell.
    """

    preset: str
    n_prompts: int
    n_cells: int
    batch: int
    seconds: Mapping[str, Sequence[float]]
    difference: float

    @property
    def ratios(self) -> list[float]:
        return [theirs / ours for theirs, ours in zip(self.seconds[THEIRS], self.seconds[OURS], strict=True)]


def compare(checkpoint: Checkpoint, n_prompts: int, repetitions: int, bar: "tqdm[Any]") -> Comparison:
    """Time both on one model."""
    bar.set_description(checkpoint.name)
    device, question = str(checkpoint.model.device), Question(n_prompts=n_prompts)
    ours, theirs = Ours(checkpoint, question), Theirs(checkpoint, question)
    ways = {OURS: ours.effects, THEIRS: theirs.effects}
    maps = {}
    for name, way in ways.items():
        maps[name] = way()
        bar.update()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repetition in range(repetitions):
        for name in rotated(list(ways), repetition):
            seconds[name].append(timed(ways[name], device))
            bar.update()
    difference = float(abs(maps[OURS] - maps[THEIRS]).max())
    return Comparison(checkpoint.name, n_prompts, len(ours.variants), theirs.batch, seconds, difference)


def document(comparisons: Sequence[Comparison], device: str, repetitions: int) -> dict[str, Any]:
    """All that was measured, as `--json` prints it."""
    return {
        "device": device if device == "cpu" else torch.cuda.get_device_name(device),
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("torch", "transformer-lens")},
        "repetitions": repetitions,
        "results": [
            {"preset": one.preset, "prompts": one.n_prompts, "cells": one.n_cells, "batch": one.batch}
            | spread("ours", one.seconds[OURS])
            | spread("theirs", one.seconds[THEIRS])
            | spread("ratio", one.ratios)
            | {"difference": one.difference}
            for one in comparisons
        ],
    }


def print_tables(report: Mapping[str, Any]) -> None:
    rows = [
        [
            row["preset"],
            str(row["cells"]),
            str(row["prompts"]),
            *(interval(row, name, ",.2f") for name in ("ours", "theirs", "ratio")),
            f"{row['difference']:.1e}",
        ]
        for row in report["results"]
    ]
    title = (
        f"A map of resid_pre on {report['device']}, {report['threads']} threads; {report['repetitions']} repetitions"
    )
    header = ["preset", "cells", "prompts", "ours, s", THEIRS, "ratio", "difference"]
    output.print_table(title, header, rows, CAPTION)


def failures(report: Mapping[str, Any]) -> list[str]:
    """Where maps differ, or ours is not ahead by as much as is promised."""
    rows = report["results"]
    slow = [f"{row['preset']}: {row['ratio']:.2f} times our time" for row in rows if row["ratio"] < AHEAD]
    return slow + [
        f"{row['preset']}: maps differ by {row['difference']:.1e}" for row in rows if row["difference"] > SAME
    ]


def bench(
    presets: Presets = "tiny,small",
    prompts: Annotated[int | None, prompts_option(PROMPTS, "Pairs of them.")] = None,
    repetitions: Repetitions = 3,
    settings: Settings = None,
    device: options.Device = "cpu",
    json: options.Json = False,
    out: Out = None,
) -> None:
    """Time an exact map of the residual stream against transformer_lens.patching on the same model.

    Exits with 1 if maps differ or ours is not ahead by as much as is promised.
    """
    device = check_device(device)
    checkpoints = [
        random_checkpoint(preset, settings or [], device) for preset in options.split_names("--presets", presets)
    ]
    patching.tqdm = lambda cells, **_: cells  # type: ignore[assignment]  # its bar cannot be turned off otherwise
    with tqdm(total=len(checkpoints) * 2 * (1 + repetitions), unit="map", disable=None) as bar:
        comparisons = [compare(one, prompts or PROMPTS.get(one.name, 16), repetitions, bar) for one in checkpoints]
    report = document(comparisons, device, repetitions)
    deliver(report, print_tables, "; ".join(failures(report)), json=json, directory=out)


app = command(bench)

if __name__ == "__main__":
    app()

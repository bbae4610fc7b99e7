"""What happens to the error when heads are removed, and whether other heads would have done the same.

1. Draw test prompts and, apart from them, reference prompts of the same class (for mean and resample).
2. Prove on some of them that the intervention acts (`interp.checks`).
3. Run every set under test and every matched random set on the same prompts; keep the error of each prompt.
4. Effects with paired bootstrap intervals; p-values against the null sets; Holm over function classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from interp.checks import check_ablation
from interp.engine import predict_with, trace
from interp.heads import HeadSet, head_set, show
from interp.interventions import MODES, Reference, Value, mode
from interp.stats import Match, NullSets, fraction_lost, holm, matched_sets, paired_effects, permutation_p
from training.checkpoint import Checkpoint
from training.config import stream_seed
from training.evaluate import evaluation_prompts, no_context_error
from training.output import write_table
from training.prompts import last_quarter
from training.transformer import Transformer

CHUNK = 128  # prompts per pass: the activations of one chunk stay in the processor's cache
CHECKED = 32  # prompts on which an intervention proves that it acts
MATCHES: tuple[Match, ...] = ("layer", "size")

Nulls = Mapping[tuple[HeadSet, Match], NullSets]
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Ablation:
    """The result of removing head sets.

    Attributes:
        table: one row per set, function class and mode. Errors are NMSE over the effect's positions; `effect` has its
            95 % interval `ci_low`, `ci_high`; `p_value`, `p_holm`, `n_controls`, `smallest_p`, `exact` (all sets there
            are), `control_effect` (mean) and `control_max` are against layer-matched sets, and the same with the
            prefix `size_` against sets of the same size from any layer.
        null: one row per null set, function class, mode and matching: the effects behind the p-values.
        curves: `nmse` by number of examples, one row per set, class, mode and number; the modes `intact` and
            `no_context` belong to no set.
        seed: of prompts, null sets and resampling.
        n_prompts: per class.
    """

    table: pd.DataFrame
    null: pd.DataFrame
    curves: pd.DataFrame
    seed: int
    n_prompts: int

    def write(self, directory: Path) -> None:
        """The three tables as CSV files."""
        for name, table in (("", self.table), ("_null", self.null), ("_curves", self.curves)):
            write_table(table, directory / f"ablation{name}.csv")


@dataclass(frozen=True)
class ClassErrors:
    """Squared errors on one class, over E[y²].

    Attributes:
        intact: with all heads.
        no_context: of the no-context optimum.
        ablated: by mode and set: averaged over the effect's positions for each prompt.
        curves: by mode and set: averaged over prompts for each number of examples.
    """

    intact: Float[np.ndarray, "prompt point"]
    no_context: Float[np.ndarray, "prompt point"]
    ablated: Mapping[str, Mapping[HeadSet, Float[np.ndarray, " prompt"]]]
    curves: Mapping[str, Mapping[HeadSet, Float[np.ndarray, " point"]]]


def ablate(
    checkpoint: Checkpoint,
    sets: Sequence[HeadSet],
    classes: Sequence[str] | None = None,
    *,
    modes: Sequence[str] = tuple(MODES),
    n_prompts: int = 1024,
    n_controls: int = 200,
    matches: Sequence[Match] = MATCHES,
    seed: int = 0,
) -> Ablation:
    """Remove head sets and judge the damage against random sets.

    Args:
        checkpoint: a loaded run (`interp.load`).
        sets: the head sets (`interp.parse_heads`); choose them on other prompts (stream `selection` of `score`).
        classes: function classes; None takes those of the run.
        modes: what a removed head writes instead: `zero`, `mean`, `resample`.
        n_prompts: per class; the same ones for every condition.
        n_controls: null sets per set and matching; all there are when there are no more.
        matches: `layer` keeps the number of heads per layer, `size` only the total.
        seed: of prompts, null sets and resampling.

    Raises:
        CheckError: an intervention did not act, or acted where it should not.
        UserError: unknown class or mode.

    >>> from interp import load, parse_heads
    >>> result = ablate(load("zoo:mixed-0"), parse_heads("0.0", 3, 8), ["linear"], n_prompts=64, n_controls=5)
    >>> list(result.table["mode"])
    ['zero', 'mean', 'resample']
    """
    classes = list(classes or checkpoint.config.evaluated_classes)
    values = {name: mode(name) for name in modes}
    nulls = draw_nulls(checkpoint, sets, matches, n_controls, seed)
    every_set = list(dict.fromkeys([*sets, *(null_set for null in nulls.values() for null_set in null.sets)]))
    n_runs = len(classes) * len(values) * len(every_set)
    rows, null_rows, curves = [], [], []
    with tqdm(total=n_runs, desc="ablate", unit="set", disable=None) as bar:
        for name in classes:
            errors = class_errors(
                checkpoint,
                name,
                every_set,
                head_set(h for s in sets for h in s),
                values,
                n_prompts=n_prompts,
                seed=seed,
                bar=bar,
            )
            for key in values:
                new_rows, new_null_rows = judge(errors, name, key, sets, nulls, seed)
                rows += new_rows
                null_rows += new_null_rows
            curves += curve_rows(errors, name, sets)
    add_holm(rows)
    order = {show(heads): place for place, heads in enumerate(sets)}
    table = pd.DataFrame(rows).sort_values("heads", key=lambda names: names.map(order), kind="stable")
    null = pd.DataFrame(null_rows, columns=["heads", "function_class", "mode", "match", "control", "effect"])
    return Ablation(table.reset_index(drop=True), null, pd.DataFrame(curves), seed, n_prompts)


def draw_nulls(
    checkpoint: Checkpoint, sets: Sequence[HeadSet], matches: Sequence[Match], n_controls: int, seed: int
) -> Nulls:
    config = checkpoint.config.model
    rng = np.random.default_rng(stream_seed("null sets", seed))
    return {
        (heads, match): matched_sets(heads, config.n_layers, config.n_heads, match=match, n_sets=n_controls, rng=rng)
        for heads in sets
        for match in matches
    }


def class_errors(
    checkpoint: Checkpoint,
    name: str,
    every_set: Sequence[HeadSet],
    tested_heads: HeadSet,
    values: Mapping[str, Value],
    *,
    n_prompts: int,
    seed: int,
    bar: "tqdm[Any]",
) -> ClassErrors:
    """Errors of the intact model, the no-context optimum and every ablated model on the same prompts of one class."""
    config, model = checkpoint.config, checkpoint.model
    test, other = (
        evaluation_prompts(config, name, n_prompts=n_prompts, seed=seed, stream=stream).to(model.device)
        for stream in ("test", "reference")
    )
    means = mean_z(model, other.tokens)
    check_ablation(model, test.tokens[:CHECKED], references(model, other.tokens[:CHECKED], means), tested_heads, values)

    unit, n_points = config.second_moment(name), config.data.n_points
    tail = last_quarter(n_points)
    intact = np.empty((n_prompts, n_points))
    ablated = {key: {heads: np.empty(n_prompts) for heads in every_set} for key in values}
    curves = {key: {heads: np.zeros(n_points) for heads in every_set} for key in values}
    for start in range(0, n_prompts, CHUNK):
        rows = slice(start, start + CHUNK)
        tokens, ys = test.tokens[rows], test.ys[rows]
        run, reference = trace(model, tokens), references(model, other.tokens[rows], means)
        intact[rows] = nmse(predict_with(model, run, (), []), ys, unit)
        for key, value in values.items():
            replacements = [value.replacement(layer) for layer in reference]
            for heads in every_set:
                error = nmse(predict_with(model, run, heads, replacements), ys, unit)
                ablated[key][heads][rows] = error[:, tail].mean(1)
                curves[key][heads] += error.sum(0) / n_prompts
                bar.update(len(ys) / n_prompts)
    no_context = no_context_error(config, name, test).cpu().double().numpy() / unit
    return ClassErrors(intact, no_context, ablated, curves)


def nmse(
    predicted: Float[Tensor, "batch point"], ys: Float[Tensor, "batch point"], unit: float
) -> Float[np.ndarray, "batch point"]:
    return (predicted - ys).square().double().cpu().numpy() / unit


def mean_z(model: Transformer, tokens: Float[Tensor, "batch pos dim"]) -> list[Float[Tensor, "1 _ head d_head"]]:
    """Each layer's z averaged over prompts, position by position."""
    sums: list[Tensor] = []
    for chunk in tokens.split(CHUNK):
        parts = [z.sum(0, keepdim=True) for z in trace(model, chunk).z]
        sums = [total + part for total, part in zip(sums, parts, strict=True)] if sums else parts
    return [total / len(tokens) for total in sums]


def references(
    model: Transformer, tokens: Float[Tensor, "batch pos dim"], means: Sequence[Float[Tensor, "1 _ head d_head"]]
) -> list[Reference]:
    """By layer, what `interp.interventions` resolves its values against."""
    return [Reference(z, mean) for z, mean in zip(trace(model, tokens).z, means, strict=True)]


def judge(
    errors: ClassErrors, name: str, key: str, sets: Sequence[HeadSet], nulls: Nulls, seed: int
) -> tuple[Rows, Rows]:
    """Effects and p-values of the sets under test on one class under one mode, and the null effects behind them."""
    tail = last_quarter(errors.intact.shape[1])
    intact, no_context = errors.intact[:, tail].mean(1), errors.no_context[:, tail].mean(1)
    ablated = errors.ablated[key]
    rng = np.random.default_rng(stream_seed("bootstrap", seed, name))
    effects = paired_effects(np.stack([ablated[heads] for heads in sets]), intact, no_context, rng)
    rows, null_rows = [], []
    for heads, effect in zip(sets, effects, strict=True):
        about = {"heads": show(heads), "function_class": name, "mode": key}
        row = about | {
            "nmse_before": intact.mean(),
            "nmse_after": ablated[heads].mean(),
            "nmse_no_context": no_context.mean(),
            "effect": effect.value,
            "ci_low": effect.ci_low,
            "ci_high": effect.ci_high,
        }
        for match in MATCHES:
            null = nulls.get((heads, match), NullSets((), 0))
            means = [intact.mean(), no_context.mean(), *(ablated[null_set].mean() for null_set in null.sets)]
            null_effects = fraction_lost(np.array([means]))[0] if effect.defined else np.full(len(null.sets), np.nan)
            row |= null_columns(effect.value, null, null_effects, "" if match == "layer" else f"{match}_")
            null_rows += [
                about | {"match": match, "control": show(null_set), "effect": value}
                for null_set, value in zip(null.sets, null_effects, strict=True)
            ]
        rows.append(row)
    return rows, null_rows


def null_columns(
    effect: float, null: NullSets, null_effects: Float[np.ndarray, " set"], prefix: str
) -> dict[str, float | int | bool]:
    """What one null says of one effect."""
    some = len(null_effects) > 0
    return {
        f"{prefix}p_value": permutation_p(effect, null_effects),
        f"{prefix}n_controls": len(null.sets),
        f"{prefix}smallest_p": null.smallest_p,
        f"{prefix}exact": null.exact,
        f"{prefix}control_effect": null_effects.mean() if some else np.nan,
        f"{prefix}control_max": null_effects.max() if some else np.nan,
    }


def add_holm(rows: Rows) -> None:
    """Adjust p-values over function classes, within each set and mode."""
    families: dict[tuple[str, str], Rows] = {}
    for row in rows:
        families.setdefault((row["heads"], row["mode"]), []).append(row)
    for family in families.values():
        for prefix in ("", "size_"):
            adjusted = holm([row[f"{prefix}p_value"] for row in family])
            for row, p_value in zip(family, adjusted, strict=True):
                row[f"{prefix}p_holm"] = p_value


def curve_rows(errors: ClassErrors, name: str, sets: Sequence[HeadSet]) -> Rows:
    """Error by number of in-context examples."""
    curves = {("", "intact"): errors.intact.mean(0), ("", "no_context"): errors.no_context.mean(0)}
    curves |= {(show(heads), key): by_set[heads] for key, by_set in errors.curves.items() for heads in sets}
    return [
        {"heads": heads, "function_class": name, "mode": key, "examples": examples, "nmse": value}
        for (heads, key), curve in curves.items()
        for examples, value in enumerate(curve)
    ]

"""Attention-pattern scores for every head, each with its chance level: the value under uniform causal attention.

A score (`interp.scores.kinds`) is defined by (query, key) pairs; a weighting (`interp.scores.weightings`) defines how
much a key contributes to a query. One pass over the prompts gives any number of scores: each layer's attention is
reduced at once and not kept.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from interp.display.result import Axes, Result
from interp.model.heads import all_heads
from interp.model.opened import opens_models
from interp.model.parallel import map_parts
from interp.model.positions import one_range, show_points
from interp.names import ScoreName, WeightingName
from interp.scores.kinds import SCORES, ScoreKind, chance, points_in, score_kind
from interp.scores.measured import MeasuredScore, ScoredPrompts
from interp.scores.weightings import Weighting, open_layer, weighting
from training.checkpoints.checkpoint import Checkpoint
from training.common.bootstrap import mean_interval
from training.common.errors import UserError, one_of
from training.common.library_defaults import library_defaults
from training.common.progress import progress_bar
from training.config.config import RunConfig, stream_seed
from training.evaluation.evaluate import CHUNK, evaluation_prompts
from training.evaluation.own_prompts import OwnPrompts
from training.evaluation.own_run import open_own
from training.model.transformer import Transformer
from training.options import DEFAULT_PROMPTS
from training.tasks.function_classes import choose_classes
from training.tasks.prompts import Prompts
from training.tasks.shifts import SHIFTS
from training.tasks.shifts import shift as shift_called

FLOATS = 2**22  # of attention held at a time by each core: 256 prompts of the tiny preset, 11 of the paper's


class Measure(NamedTuple):
    """A score over a range of pairs; None takes all pairs that the score reads."""

    kind: ScoreKind | MeasuredScore
    points: slice | None = None


def measures_of(names: Sequence[str], ranges: Sequence[slice] | None = None) -> list[Measure]:
    """Every named score over every range; `all` is every score of attention, with ranges every one that takes them.

    Raises:
        UserError: there is no such score.

    >>> [measure.kind.name for measure in measures_of(["all"], [slice(0, 4)])][:2]
    ['retrospective', 'previous_token']
    """
    if list(names) == ["all"]:
        names = [name for name, kind in SCORES.items() if ranges is None or kind.n_pairs is None]
    return [Measure(score_kind(name), points) for name in names for points in ranges or [None]]


@dataclass(frozen=True, repr=False, eq=False)
class HeadScores(Result):
    """One score of every head of one model on every class.

    Attributes:
        checkpoint: the model's name.
        step: of its training.
        kind: the score.
        by: the weighting.
        inputs: input distribution of the prompts.
        shift: change of the prompts.
        points: the pairs whose tokens were queries.
        values: by class, the mean over prompts.
        ci_low: by class, lower end of the 95 % interval over prompts.
        ci_high: upper end.
        chances: by class, the value under uniform causal attention; only `lookup` in prompts that repeat an x has
            different ones.
        n_prompts: per class.
        seed: of the prompts.
    """

    checkpoint: str
    step: int | None
    kind: ScoreKind | MeasuredScore
    by: str
    inputs: str
    shift: str
    points: slice
    values: dict[str, Float[np.ndarray, "layer head"]]
    ci_low: dict[str, Float[np.ndarray, "layer head"]]
    ci_high: dict[str, Float[np.ndarray, "layer head"]]
    chances: dict[str, float]
    n_prompts: int
    seed: int

    def plot(self, *others: "HeadScores") -> list[Axes]:
        """Heat maps [layer x head], a panel per class.

        Args:
            others: scores to draw below it, one row each.
        """
        return self.view("plot", *others)

    @property
    def chance(self) -> float:
        """The value under uniform causal attention, averaged over classes."""
        return float(np.mean(list(self.chances.values())))

    def mean(self, classes: Sequence[str]) -> Float[np.ndarray, "layer head"]:
        """The average over classes, by which heads are ranked.

        Raises:
            UserError: a class was not scored.
        """
        for name in {*classes} - {*self.values}:
            raise one_of("function class", name, self.values)
        return np.mean([self.values[name] for name in classes], axis=0)

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per function class and head.

        Columns: `checkpoint`, `step`, `score`, `by`, `function_class`, `inputs`, `shift`, `points`, `layer`, `head`,
        `value` with its 95 % interval `ci_low`, `ci_high`, and `chance`.
        """
        rows = [
            {
                "checkpoint": self.checkpoint,
                "step": self.step,
                "score": self.kind.name,
                "by": self.by,
                "function_class": function_class,
                "inputs": self.inputs,
                "shift": self.shift,
                "points": show_points(self.points),
                "layer": head.layer,
                "head": head.number,
                "value": float(values[head]),
                "ci_low": float(self.ci_low[function_class][head]),
                "ci_high": float(self.ci_high[function_class][head]),
                "chance": self.chances[function_class],
            }
            for function_class, values in self.values.items()
            for head in all_heads(*values.shape)
        ]
        return pd.DataFrame(rows)


@opens_models
def score(
    checkpoint: Checkpoint,
    classes: str | Sequence[str] | None = None,
    *,
    kind: ScoreName | str | ScoreKind | MeasuredScore = "retrospective",
    by: WeightingName | str = "pattern",
    inputs: str | None = None,
    shift: str = "none",
    points: str | slice | None = None,
    n_prompts: int = DEFAULT_PROMPTS,
    seed: int = 0,
    stream: str = "test",
    intervals: bool = True,
    prompts: OwnPrompts | None = None,
) -> HeadScores:
    """One score of every head on prompts of each class.

    Args:
        checkpoint: a loaded run (`interp.load`).
        classes: function classes; None takes those of the run.
        kind: a name in `interp.names.SCORE_DEFINITIONS`, or a definition of your own: of attention (`ScoreKind`), or
            any function of a model and prompts (`interp.scores.measured.MeasuredScore`).
        by: a name in `interp.names.WEIGHTING_DEFINITIONS`.
        inputs: input distribution; None is the run's first.
        shift: a change of the whole prompt (`training.tasks.shifts`).
        points: the pairs, counted from 0, whose tokens are queries (`0-3`, or a slice); None takes all.
        n_prompts: per class.
        seed: of the prompts.
        stream: `selection` gives other prompts than `test`, so that heads can be chosen on one and tested on the other.
        intervals: whether to compute them; else `ci_low` and `ci_high` are NaN.
        prompts: of your own, in the place of `classes` (`interp.OwnPrompts`), of which the first `n_prompts` are taken.

    Raises:
        UserError: unknown class, score, weighting, inputs or shift, a shift of the query only, or pairs that the
            prompts or the score do not have.

    >>> from interp import load
    >>> bool(score(load("zoo:mixed-0"), ["linear"], n_prompts=64).values["linear"].max() > 0.5)
    True
    """
    checkpoint, n_prompts = open_own(checkpoint, prompts, classes, n_prompts, is_split=False)
    (result,) = score_all(
        checkpoint,
        classes,
        measures=[Measure(score_kind(kind), one_range(points) if isinstance(points, str) else points)],
        by=by,
        inputs=inputs,
        shift=shift,
        n_prompts=n_prompts,
        seed=seed,
        stream=stream,
        intervals=intervals,
    )
    return result


@library_defaults()
def score_all(
    checkpoint: Checkpoint,
    classes: str | Sequence[str] | None = None,
    *,
    measures: Sequence[Measure] | None = None,
    by: str = "pattern",
    inputs: str | None = None,
    shift: str = "none",
    n_prompts: int = DEFAULT_PROMPTS,
    seed: int = 0,
    stream: str = "test",
    intervals: bool = True,
) -> list[HeadScores]:
    """Several scores in one pass over the same prompts; arguments as in `score`.

    Args:
        checkpoint: a loaded run.
        classes: function classes; None takes those of the run.
        measures: scores and ranges of pairs; None takes every score over its whole range.
        by: weighting.
        inputs: input distribution; None is the run's first.
        shift: a change of the whole prompt.
        n_prompts: per class.
        seed: of the prompts.
        stream: `test` or `selection`.
        intervals: whether to compute them.

    Raises:
        UserError: see `score`.

    >>> from interp import load
    >>> [result.kind.name for result in score_all(load("zoo:mixed-0"), ["linear"], n_prompts=8)][:2]
    ['retrospective', 'paper']
    """
    config = checkpoint.config
    names = choose_classes(classes, config.evaluated_classes)
    measures = measures_of(["all"]) if measures is None else measures
    check_scores(config, names, measures, by=by, inputs=inputs, shift=shift)
    means, lows, highs, chances = {}, {}, {}, {}
    for name in progress_bar(names, desc="score", unit="class"):
        prompts = evaluation_prompts(
            config, name, n_prompts=n_prompts, seed=seed, stream=stream, inputs=inputs, shift=shift
        )
        scored = ScoredPrompts(checkpoint, name, n_prompts, seed, stream)
        scores = all_scores(checkpoint.model, prompts, scored, measures, weighting(by))
        rng = np.random.default_rng(stream_seed("score", seed, name))
        means[name], chances[name] = scores.heads.mean(0), scores.chance.mean(0)
        no_end = np.full_like(means[name], np.nan)
        lows[name], highs[name] = mean_interval(scores.heads, rng) if intervals else (no_end, no_end)
    return [
        HeadScores(
            checkpoint.name,
            checkpoint.step,
            kind,
            by,
            inputs or config.data.inputs[0],
            shift,
            points_in(kind, points, config.data.n_points),
            values={name: by_measure[i] for name, by_measure in means.items()},
            ci_low={name: by_measure[i] for name, by_measure in lows.items()},
            ci_high={name: by_measure[i] for name, by_measure in highs.items()},
            chances={name: float(by_measure[i]) for name, by_measure in chances.items()},
            n_prompts=n_prompts,
            seed=seed,
        )
        for i, (kind, points) in enumerate(measures)
    ]


@library_defaults()
def selection_scores(
    checkpoint: Checkpoint, n_prompts: int = DEFAULT_PROMPTS, seed: int = 0
) -> Float[np.ndarray, "layer head"]:
    """The retrospective scores by which heads are chosen: mean over the trained classes, on separate prompts.

    Args:
        checkpoint: a loaded run.
        n_prompts: per class.
        seed: of the prompts, which no test shares (stream `selection`).
    """
    trained = checkpoint.config.trained_classes
    scores = score(checkpoint, trained, n_prompts=n_prompts, seed=seed, stream="selection", intervals=False)
    return scores.mean(trained)


def check_scores(
    config: RunConfig,
    classes: Sequence[str],
    measures: Sequence[Measure],
    *,
    by: str = "pattern",
    inputs: str | None = None,
    shift: str = "none",
) -> None:
    """Refuse arguments that `score_all` would refuse, by building every score's weights for one prompt.

    Raises:
        UserError: see `score`.
    """
    weighting(by)
    refuse_for_measured(
        measures, {"weighting": by != "pattern", "inputs": inputs is not None, "shift": shift != "none"}
    )
    if shift_called(shift).query_only:
        whole = [name for name, family in SHIFTS.items() if not family.query_only]
        raise UserError(
            f"shift '{shift}' changes only the query, and a score reads every pair (valid: {', '.join(whole)})"
        )
    for name in classes:
        prompt = evaluation_prompts(config, name, n_prompts=1, seed=0, inputs=inputs, shift=shift)
        for kind, points in measures:
            if isinstance(kind, ScoreKind):
                kind.weights(prompt.xs, config.layout, points)


def refuse_for_measured(measures: Sequence[Measure], changes: Mapping[str, bool]) -> None:
    """
    Raises:
        UserError: what only scores of attention take is given for another one.
    """
    for kind, points in measures:
        if isinstance(kind, ScoreKind):
            continue
        given = [name for name, changed in {**changes, "points": points is not None}.items() if changed]
        if given:
            raise UserError(f"the score {kind.name} is no score of attention: it takes no {given[0]}")


class PromptScores(NamedTuple):
    """Scores on single prompts: of every head, and of uniform causal attention."""

    heads: Float[np.ndarray, "batch measure layer head"]
    chance: Float[np.ndarray, "batch measure"]


def all_scores(
    model: Transformer, prompts: Prompts, scored: ScoredPrompts, measures: Sequence[Measure], weigh_keys: Weighting
) -> PromptScores:
    """Scores of attention in one pass over the prompts, and each measured score by its own function, in their order."""
    of_attention = [measure for measure in measures if isinstance(measure.kind, ScoreKind)]
    attention = prompt_scores(model, prompts, of_attention, weigh_keys) if of_attention else None
    heads, chances = [], []
    for measure in measures:
        if isinstance(measure.kind, MeasuredScore):
            heads.append(check_values(measure.kind, measure.kind.measure(scored), scored))
            chances.append(np.zeros(len(heads[-1])))
        elif attention is not None:
            heads.append(attention.heads[:, of_attention.index(measure)])
            chances.append(attention.chance[:, of_attention.index(measure)])
    return PromptScores(np.stack(heads, axis=1), np.stack(chances, axis=1))


def check_values(kind: MeasuredScore, values: object, scored: ScoredPrompts) -> Float[np.ndarray, "batch layer head"]:
    """
    Raises:
        UserError: a measured score has not one value for every prompt and head.
    """
    model = scored.checkpoint.config.model
    needed = (scored.n_prompts, model.n_layers, model.n_heads)
    array = np.asarray(values)
    if array.shape != needed or array.dtype.kind != "f":
        raise UserError(
            f"the score {kind.name} measures {array.dtype} {list(array.shape)}: floats {list(needed)} are needed "
            "(prompt, layer, head)"
        )
    return array


def prompt_scores(
    model: Transformer, prompts: Prompts, measures: Sequence[Measure], weigh_keys: Weighting
) -> PromptScores:
    """Every score of attention of every head on every prompt."""
    n_floats = prompts.tokens.shape[1] ** 2 * (model.config.n_heads + len(measures))
    n_at_once = min(CHUNK, max(1, FLOATS // n_floats))

    @torch.no_grad()
    def score_part(part: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        xs, tokens = (tensor.to(model.device) for tensor in part)
        masks = [kind.weights(xs, prompts.layout, points) for kind, points in measures if isinstance(kind, ScoreKind)]
        layers = [
            torch.stack([weigh(attention, mask) for mask in masks], dim=1)
            for attention in weighted_attention(model, tokens, weigh_keys)
        ]
        chances = torch.stack([chance(mask.double()).expand(len(xs)) for mask in masks], dim=1)
        return torch.stack(layers, dim=2).double().cpu(), chances.cpu()

    parts = zip(prompts.xs.split(n_at_once), prompts.tokens.split(n_at_once), strict=True)
    heads, chances = zip(*map_parts(score_part, parts), strict=True)
    return PromptScores(torch.cat(heads).numpy(), torch.cat(chances).numpy())


def weighted_attention(
    model: Transformer, tokens: Float[Tensor, "batch pos dim"], weigh_keys: Weighting
) -> Iterator[Float[Tensor, "batch head query_pos key_pos"]]:
    """How much every key matters to every query, layer by layer."""
    resid, last = model.read_in(tokens), model.config.n_layers - 1
    for index, block in enumerate(model.layers):
        layer = open_layer(block, resid)
        yield weigh_keys(block, layer).contiguous()  # every measure reads all of it
        resid = block.write(layer.resid_pre, layer.z) if index < last else resid


def weigh(
    attention: Float[Tensor, "batch head query_pos key_pos"], weights: Float[Tensor, "#batch query_pos key_pos"]
) -> Float[Tensor, "batch head"]:
    """The score of every head on every prompt.

    >>> attention = torch.tensor([[[[1.0, 0.0], [0.25, 0.75]]]])
    >>> weigh(attention, SCORES["retrospective"].weights(torch.zeros(1, 1, 4))).tolist()
    [[0.25]]
    """
    flat, weights = attention.flatten(2), weights.to(attention).flatten(1)
    return flat @ weights[0] if len(weights) == 1 else (flat @ weights[..., None])[..., 0]

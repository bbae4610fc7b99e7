"""Linear probes: what can be decoded from the residual stream, where, and whether the model has to do with it.

1. A ridge regression per target, stage, token type and number of examples, fitted on prompts of the stream `reference`
   and judged on those of `test`: held-out R², or accuracy for the function class.
2. Two controls: every prompt is given another prompt's target (`shuffled`: what a fit finds by chance), and the same
   probe reads a model of the same shape that was never trained (`untrained`: what the architecture makes decodable).
   Only what exceeds both (`above`) is news.
3. That something is decodable does not mean that it is used: `interp.readouts.subspace_patching` tests that.

The targets are those of Akyürek et al. 2022 (arXiv 2211.15661, section 5), whose probes are correlational.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from interp.ablation.reference_activations import reference_values
from interp.display.result import Axes, Result
from interp.model.engine import Substitutes
from interp.model.heads import HeadSet, show
from interp.model.self_checks import plain_edits
from interp.readouts.lens import check_enough
from interp.readouts.ridge import Errors, Ridge, errors_of, fit_ridges, r2_resamples
from interp.readouts.stream import TOKENS, Stage, Token, position_after, read_stream, stages
from interp.readouts.targets import CLASS, check_targets, one_hot, values
from training.checkpoints.checkpoint import Checkpoint
from training.common.bootstrap import bootstrap_weights, percentile_interval
from training.common.errors import UserError, one_of
from training.common.library_defaults import library_defaults
from training.common.progress import progress_bar
from training.common.table_rows import distinct
from training.config.config import RunConfig, stream_seed
from training.evaluation.evaluate import evaluation_functions
from training.model.sites import Edit
from training.model.transformer import Transformer
from training.sampling import Sampled
from training.tasks.function_classes import choose_classes

DEFAULT_FIT_PROMPTS = 2048


class Place(NamedTuple):
    """Where probes read: at the x or the y token that has seen so many examples."""

    token: Token
    examples: int


@dataclass(frozen=True)
class Protocol:
    """How probes are fitted and judged.

    Attributes:
        tokens: token types.
        examples: numbers of examples seen; empty takes the last of every quarter of the points.
        without: heads that give their mean over the reference prompts of the class in one more condition.
        n_prompts: to judge on, per class.
        n_fit: to fit on and to choose the penalty.
        seed: of everything.
    """

    tokens: tuple[Token, ...] = TOKENS
    examples: tuple[int, ...] = ()
    without: HeadSet = ()
    n_prompts: int = 1024
    n_fit: int = DEFAULT_FIT_PROMPTS
    seed: int = 0

    def places(self, n_points: int) -> list[Place]:
        """Where probes read prompts of so many pairs.

        Raises:
            UserError: no token has seen so many examples and precedes a prediction.
        """
        quarters = {n_points * quarter // 4 - 1 for quarter in (1, 2, 3, 4)}
        chosen = self.examples or tuple(sorted(k for k in quarters if k >= 1))
        for k in chosen:
            if not 1 <= k <= n_points - 1:
                raise UserError(f"--examples {k}: this run's prompts have 1 to {n_points - 1} examples before a query")
        return [Place(token, k) for token in self.tokens for k in chosen]


DEFAULT = Protocol()


@dataclass(frozen=True, repr=False, eq=False)
class Probes(Result):
    """What was decoded from one model.

    Attributes:
        checkpoint: the model's name.
        step: of its training.
        table: one row per function class, condition (`intact`, `without HEADS`), target, token type, number of examples
            and stage: `value` (R², or accuracy where `metric` says so), that of the controls `shuffled` and
            `untrained`, and `above`, the value less the higher of the two; each with a 95 % interval over test prompts.
        protocol: how.
    """

    checkpoint: str
    step: int
    table: pd.DataFrame
    protocol: Protocol

    def plot_without(self, target: str) -> list[Axes]:
        """One target by stage, with and without heads, beside the controls.

        Args:
            target: which.

        Raises:
            UserError: it was not decoded.
        """
        targets = distinct(self.table, "target")
        if target not in targets:
            raise one_of("target", target, targets)
        return self.view("plot_without", target)

    @property
    def files(self) -> Mapping[str, pd.DataFrame]:
        return {"probes": self.table}


@library_defaults()
def probe(
    checkpoint: Checkpoint,
    classes: str | Sequence[str] | None = None,
    *,
    targets: Sequence[str] | None = None,
    protocol: Protocol = DEFAULT,
) -> Probes:
    """Probe the residual stream at every stage.

    Args:
        checkpoint: a loaded run (`interp.load`).
        classes: function classes; None takes those of the run.
        targets: names in `interp.readouts.targets.TARGETS`; None takes all but `x` that exist for a class.
        protocol: how to fit and judge.

    Raises:
        UserError: unknown class or target, a target that a class does not have, or a number of examples that prompts do
            not have.

    >>> from interp import load
    >>> few = Protocol(tokens=("y",), examples=(15,), n_prompts=64, n_fit=256)
    >>> found = probe(load("zoo:mixed-0"), ["linear"], targets=["xty"], protocol=few)
    >>> len(found.table), bool(found.table["value"].max() > 0.5)
    (7, True)
    """
    config = checkpoint.config
    wanted = choose_classes(classes, config.evaluated_classes)
    found = check_targets(targets, wanted, config.evaluated_classes, protocol.tokens)
    check_enough(protocol.n_prompts)
    check_enough(protocol.n_fit, "--fit-prompts")
    places = protocol.places(config.data.n_points)
    needed = list(dict.fromkeys(name for group in found for name in group.split(",")))
    bar = progress_bar(needed, desc="read", unit="class")
    readings = {name: read_class(checkpoint, name, protocol, places) for name in bar}
    tables = [
        probe_group([readings[name] for name in group.split(",")], group, names, protocol, places)
        for group, names in progress_bar(found.items(), desc="probe", unit="class")
    ]
    table = pd.concat(tables, ignore_index=True)
    table.insert(0, "checkpoint", checkpoint.name)
    table.insert(1, "step", checkpoint.step)
    return Probes(checkpoint.name, checkpoint.step, table, protocol)


class Streams(NamedTuple):
    """The residual stream under one condition, to fit on and to judge on."""

    fit: Float[np.ndarray, "stage prompt place d_model"]
    test: Float[np.ndarray, "stage _ place d_model"]


@dataclass(frozen=True)
class Reading:
    """What probes of one function class are made from.

    Attributes:
        fit: prompts and functions to fit on.
        test: to judge on.
        at: the stages.
        conditions: the streams of the intact model and of that without heads.
        untrained: those of a model that was never trained.
    """

    fit: Sampled
    test: Sampled
    at: list[Stage]
    conditions: Mapping[str, Streams]
    untrained: Streams


def read_class(checkpoint: Checkpoint, name: str, protocol: Protocol, places: Sequence[Place]) -> Reading:
    """Run the model, the model without heads and an untrained one on prompts of one class."""
    config, model = checkpoint.config, checkpoint.model
    fit = evaluation_functions(config, name, n_prompts=protocol.n_fit, seed=protocol.seed, stream="reference")
    test = evaluation_functions(config, name, n_prompts=protocol.n_prompts, seed=protocol.seed)
    at = stages(config.model.n_layers)
    positions = torch.tensor([position_after(config.layout, config.data.n_points, *place) for place in places])

    def streams(of: Transformer, edits: Mapping[str, Edit] | None = None) -> Streams:
        return Streams(*(read_stream(of, drawn.prompts, at, positions, edits) for drawn in (fit, test)))

    conditions = {"intact": streams(model)}
    if protocol.without:
        removed = mean_edits(checkpoint, name, protocol)
        conditions[f"without {show(protocol.without)}"] = streams(model, removed)
    return Reading(fit, test, at, conditions, streams(untrained_twin(config, protocol.seed).to(model.device)))


def untrained_twin(config: RunConfig, seed: int) -> Transformer:
    """A model of the same shape and initialisation, from another seed than the run's."""
    generator = torch.Generator().manual_seed(stream_seed("untrained", seed, config.seeds.init))
    return Transformer(config.model, generator, config.layout).requires_grad_(False)


def mean_edits(checkpoint: Checkpoint, name: str, protocol: Protocol) -> dict[str, Edit]:
    """Edits that put the mean over reference prompts, at every position, in place of what the heads and MLPs give."""
    mean = reference_values(checkpoint, name, protocol.seed).moments.mean
    every, n_layers = [one[None] for one in mean], checkpoint.config.model.n_layers
    return plain_edits(protocol.without, Substitutes(every[:n_layers], every[n_layers:]), "z", None)


class Trial(NamedTuple):
    """One probe with its controls, prompt by prompt.

    Attributes:
        about: what it is, as columns of the table.
        probed: its errors.
        shuffled: those of the probe for another prompt's target.
        untrained: those of the probe of the untrained model.
    """

    about: dict[str, Any]
    probed: Errors
    shuffled: Errors
    untrained: Errors


def probe_group(
    readings: Sequence[Reading], group: str, names: Sequence[str], protocol: Protocol, places: Sequence[Place]
) -> pd.DataFrame:
    """All probes of one function class, or those for the class of several."""
    trials = []
    for i, place in enumerate(places):
        known = {name: target_pair(readings, name, place) for name in names if name != "x" or place.token == "y"}
        if known:
            for number, stage in enumerate(readings[0].at):
                about = {"function_class": group, "token": place.token, "examples": place.examples, "stage": str(stage)}
                trials += trials_at(readings, known, (number, i), about, protocol.seed)
    rng = np.random.default_rng(stream_seed("probe", protocol.seed, group))
    return tabulate(trials, bootstrap_weights(len(trials[0].probed.residual), rng))


class Pair(NamedTuple):
    """A target's values, to fit on and to judge on."""

    fit: Float[np.ndarray, "prompt 1 target"]
    test: Float[np.ndarray, "_ 1 target"]

    def shuffled(self, rng: np.random.Generator) -> "Pair":
        return Pair(rng.permutation(self.fit), rng.permutation(self.test))


def target_pair(readings: Sequence[Reading], name: str, place: Place) -> Pair:
    """A target's values; the class of prompts of several classes, interleaved."""
    if name == CLASS:
        sizes = (len(one.prompts.ys) for one in (readings[0].fit, readings[0].test))
        return Pair(*(one_hot(len(readings), size)[:, None] for size in sizes))
    (reading,) = readings
    return Pair(*(values(name, drawn, *place)[:, None] for drawn in (reading.fit, reading.test)))


def features_at(streams: Sequence[Streams], number: int, place: int) -> tuple[np.ndarray, np.ndarray]:
    """[prompt 1 d_model] to fit on and to judge on, those of several classes interleaved."""
    fit, test = (
        np.stack([getattr(one, part)[number, :, place] for one in streams], axis=1) for part in Streams._fields
    )
    return fit.reshape(-1, 1, fit.shape[2]), test.reshape(-1, 1, test.shape[2])


def trials_at(
    readings: Sequence[Reading],
    known: Mapping[str, Pair],
    where: tuple[int, int],
    about: Mapping[str, Any],
    seed: int,
) -> list[Trial]:
    """Every target at one stage and place, under every condition."""
    rng = np.random.default_rng(stream_seed("shuffle", seed, *about.values()))
    pairs = [*known.values(), *(pair.shuffled(rng) for pair in known.values())]
    n_classes = len(readings)
    untrained = errors_at(features_at([one.untrained for one in readings], *where), pairs[: len(known)], n_classes)
    trials = []
    for condition in readings[0].conditions:
        found = errors_at(features_at([one.conditions[condition] for one in readings], *where), pairs, n_classes)
        for i, name in enumerate(known):
            is_class = name == CLASS
            told: dict[str, Any] = {"condition": condition, "target": name, "metric": "accuracy" if is_class else "r2"}
            told["chance"] = 1 / n_classes if is_class else 0.0
            trials.append(Trial({**about, **told}, found[i], found[len(known) + i], untrained[i]))
    return trials


def errors_at(features: tuple[np.ndarray, np.ndarray], pairs: Sequence[Pair], n_classes: int) -> list[Errors]:
    """The errors on test prompts of the probe for each of these targets."""
    fits = fit_ridges(features[0], [pair.fit for pair in pairs])
    judge = errors_of if n_classes == 1 else class_errors
    return [judge(fit, features[1], pair.test) for fit, pair in zip(fits, pairs, strict=True)]


def class_errors(
    fit: Ridge, features: Float[np.ndarray, "row 1 feature"], target: Float[np.ndarray, "row 1 target"]
) -> Errors:
    """The share of each prompt's classes that is named wrongly, beside 1, so that `r2` is the accuracy."""
    wrong = fit.predict(features).argmax(-1) != target.argmax(-1)
    per_prompt = wrong.reshape(-1, target.shape[2]).mean(1)
    return Errors(per_prompt, np.ones_like(per_prompt))


def tabulate(trials: Sequence[Trial], weights: Float[np.ndarray, "resample prompt"]) -> pd.DataFrame:
    """A row per trial, with intervals."""
    table = pd.DataFrame([trial.about for trial in trials])
    point: dict[str, np.ndarray] = {}
    resamples: dict[str, np.ndarray] = {}
    for column, part in (("value", "probed"), ("shuffled", "shuffled"), ("untrained", "untrained")):
        errors: list[Errors] = [getattr(trial, part) for trial in trials]
        point[column] = np.array([one.r2 for one in errors])
        residual, total = (np.stack([getattr(one, side) for one in errors]) for side in Errors._fields)
        resamples[column] = r2_resamples(residual, total, weights)
    is_shuffled = point["shuffled"] > point["untrained"]
    point["above"] = point["value"] - np.where(is_shuffled, point["shuffled"], point["untrained"])
    control = np.where(is_shuffled, resamples["shuffled"], resamples["untrained"])
    resamples["above"] = resamples["value"] - control
    for column, value in point.items():
        low, high = percentile_interval(resamples[column])
        ends = ("ci_low", "ci_high") if column == "value" else (f"{column}_low", f"{column}_high")
        table = table.assign(**{column: value, ends[0]: low, ends[1]: high})
    return table

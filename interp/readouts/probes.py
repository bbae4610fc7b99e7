"""Linear probes: what can be decoded from the residual stream and where, compared with controls.

1. A ridge regression per target, stage, token type and number of examples, fitted on prompts of the stream `reference`
   and tested on those of `test`: held-out R², or accuracy for the function class.
2. Two controls: every prompt gets the target of another prompt (`shuffled`: what a fit finds by chance), and the same
   probe reads an untrained model of the same shape (`untrained`: what the architecture alone makes decodable). Only the
   excess over both (`above`) is evidence about the trained model.
3. That a target is decodable does not mean that the model uses it: `interp.readouts.subspace_patching` tests that.

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
from interp.model.opened import opens_models
from interp.model.self_checks import plain_edits
from interp.readouts.lens import check_enough
from interp.readouts.ridge import Errors, Ridge, errors_of, fit_ridges, r2_resamples
from interp.readouts.stream import TOKENS, Stage, Token, choose_tokens, model_stages, position_after, read_stream
from interp.readouts.targets import CLASS, check_targets, one_hot, target_values
from interp.scores.head_choice import HeadChoice, choose_sets
from training.checkpoints.checkpoint import Checkpoint
from training.common.bootstrap import bootstrap_weights, percentile_interval
from training.common.errors import UserError, one_of
from training.common.progress import progress_bar
from training.common.table_rows import distinct, label_rows
from training.config.config import RunConfig, stream_seed
from training.evaluation.evaluate import evaluation_functions
from training.model.sites import Edit
from training.model.transformer import Transformer
from training.options import DEFAULT_PROMPTS, as_numbers
from training.sampling import Sampled
from training.tasks.function_classes import choose_classes

DEFAULT_FIT_PROMPTS = 2048


class ProbePosition(NamedTuple):
    """The x or the y token that has seen so many examples."""

    token: Token
    examples: int


@dataclass(frozen=True)
class Protocol:
    """How probes are fitted and tested.

    Attributes:
        tokens: token types.
        examples: numbers of examples seen; empty takes the last of every quarter of the points.
        without: heads that are mean-ablated in a further condition.
        n_prompts: per class, to test on.
        n_fit: per class, to fit on and to choose the penalty.
        seed: of all random draws.
    """

    tokens: tuple[Token, ...] = TOKENS
    examples: tuple[int, ...] = ()
    without: HeadSet = ()
    n_prompts: int = DEFAULT_PROMPTS
    n_fit: int = DEFAULT_FIT_PROMPTS
    seed: int = 0

    def __post_init__(self) -> None:
        check_enough(self.n_prompts)
        check_enough(self.n_fit, "--fit-prompts")

    def positions(self, n_points: int) -> list[ProbePosition]:
        """The positions of probes in prompts of so many pairs.

        Raises:
            UserError: no token has seen so many examples and precedes a prediction.
        """
        ends_of_quarters = {n_points * quarter // 4 - 1 for quarter in (1, 2, 3, 4)}
        examples = self.examples or tuple(sorted(k for k in ends_of_quarters if k >= 1))
        for k in examples:
            if not 1 <= k <= n_points - 1:
                raise UserError(f"--examples {k}: this run's prompts have 1 to {n_points - 1} examples before a query")
        return [ProbePosition(token, k) for token in self.tokens for k in examples]


@dataclass(frozen=True, repr=False, eq=False)
class Probes(Result):
    """What probes decode from one model.

    Attributes:
        checkpoint: the model's name.
        step: of its training.
        table: one row per function class, condition (`intact`, `without HEADS`), target, token type, number of examples
            and stage: `value` (R², or accuracy if `metric` says so), that of the controls `shuffled` and `untrained`,
            and `above`, the value minus the higher of the two; each with a 95 % interval over test prompts.
        protocol: how they were fitted and tested.
    """

    checkpoint: str
    step: int
    table: pd.DataFrame
    protocol: Protocol

    def plot_without(self, target: str) -> list[Axes]:
        """Plot one target by stage, with and without heads, beside the controls.

        Args:
            target: its name.

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


@opens_models
def probe(
    checkpoint: Checkpoint,
    classes: str | Sequence[str] | None = None,
    *,
    targets: str | Sequence[str] | None = None,
    tokens: str | Sequence[str] = TOKENS,
    examples: int | str | Sequence[int] = (),
    without: HeadChoice = (),
    n_prompts: int = DEFAULT_PROMPTS,
    n_fit: int = DEFAULT_FIT_PROMPTS,
    seed: int = 0,
) -> Probes:
    """Probe the residual stream at every stage.

    Args:
        checkpoint: a loaded run (`interp.load`).
        classes: function classes; None takes those of the run.
        targets: names in `interp.readouts.targets.TARGETS`, or text such as `w,t`; None takes all of a class but `x`.
        tokens: token types, such as `x` or `x,y`, at which to probe.
        examples: numbers of examples seen; empty takes the last of every quarter of the points.
        without: one set of heads (text, a `Head`, or a set) to mean-ablate in a further condition.
        n_prompts: per class, to test on.
        n_fit: per class, to fit on and to choose the penalty.
        seed: of all random draws.

    Raises:
        UserError: unknown class or target, a target that a class does not have, a number of examples that prompts do
            not have, several sets of heads, or too few prompts.

    >>> from interp import load
    >>> few = {"tokens": ["y"], "examples": [15], "n_prompts": 64, "n_fit": 256}
    >>> result = probe(load("zoo:mixed-0"), "linear", targets="xty", **few)
    >>> len(result.table), bool(result.table["value"].max() > 0.5)
    (7, True)
    """
    config = checkpoint.config
    heads = choose_one_set(checkpoint, without, n_prompts, seed)
    protocol = Protocol(choose_tokens(tokens), tuple(as_numbers("examples", examples)), heads, n_prompts, n_fit, seed)
    class_names = choose_classes(classes, config.evaluated_classes)
    by_group = check_targets(split_targets(targets), class_names, config.evaluated_classes, protocol.tokens)
    positions = protocol.positions(config.data.n_points)
    needed = list(dict.fromkeys(name for group in by_group for name in group.split(",")))
    bar = progress_bar(needed, desc="read", unit="class")
    activations = {name: read_class(checkpoint, name, protocol, positions) for name in bar}
    tables = [
        probe_group([activations[name] for name in group.split(",")], group, names, protocol, positions)
        for group, names in progress_bar(by_group.items(), desc="probe", unit="class")
    ]
    table = label_rows(pd.concat(tables, ignore_index=True), checkpoint=checkpoint.name, step=checkpoint.step)
    return Probes(checkpoint.name, checkpoint.step, table, protocol)


def split_targets(targets: str | Sequence[str] | None) -> Sequence[str] | None:
    """Names of targets from text such as `w,t`."""
    return [name.strip() for name in targets.split(",")] if isinstance(targets, str) else targets


def choose_one_set(checkpoint: Checkpoint, without: HeadChoice, n_prompts: int, seed: int) -> HeadSet:
    """The one set of heads to ablate; top:K and above:SCORE choose on prompts of the stream `selection`.

    Raises:
        UserError: there is no such head, or there are several sets.
    """
    if not without:
        return ()
    sets = choose_sets(checkpoint, without, n_prompts=n_prompts, seed=seed)
    if len(sets) != 1:
        raise UserError(f"--ablate-heads {without}: one set of heads is needed, this names {len(sets)}")
    return sets[0]


class Streams(NamedTuple):
    """The residual stream in one condition, of prompts to fit on and to test on."""

    fit: Float[np.ndarray, "stage prompt position d_model"]
    test: Float[np.ndarray, "stage _ position d_model"]


@dataclass(frozen=True)
class ClassActivations:
    """The data for probes of one function class.

    Attributes:
        fit: prompts and functions to fit on.
        test: prompts and functions to test on.
        stages: of the residual stream.
        conditions: the streams of the intact model and, if heads are removed, of the model without them.
        untrained: the streams of an untrained model.
    """

    fit: Sampled
    test: Sampled
    stages: list[Stage]
    conditions: Mapping[str, Streams]
    untrained: Streams


def read_class(
    checkpoint: Checkpoint, function_class: str, protocol: Protocol, positions: Sequence[ProbePosition]
) -> ClassActivations:
    """Run the model, the model without heads and an untrained one on prompts of one class."""
    config, model, seed = checkpoint.config, checkpoint.model, protocol.seed
    fit = evaluation_functions(config, function_class, n_prompts=protocol.n_fit, seed=seed, stream="reference")
    test = evaluation_functions(config, function_class, n_prompts=protocol.n_prompts, seed=seed)
    stages = model_stages(config.model.n_layers)
    at = torch.tensor([position_after(config.layout, config.data.n_points, *position) for position in positions])

    def streams(run: Transformer, edits: Mapping[str, Edit] | None = None) -> Streams:
        return Streams(*(read_stream(run, drawn.prompts, stages, at, edits) for drawn in (fit, test)))

    conditions = {"intact": streams(model)}
    if protocol.without:
        edits = mean_ablation(checkpoint, function_class, protocol)
        conditions[f"without {show(protocol.without)}"] = streams(model, edits)
    return ClassActivations(fit, test, stages, conditions, streams(untrained_twin(config, seed).to(model.device)))


def untrained_twin(config: RunConfig, seed: int) -> Transformer:
    """A model with the run's shape and initialisation scheme, drawn from another seed."""
    generator = torch.Generator().manual_seed(stream_seed("untrained", seed, config.seeds.init))
    return Transformer(config.model, generator, config.layout).requires_grad_(False)


def mean_ablation(checkpoint: Checkpoint, function_class: str, protocol: Protocol) -> dict[str, Edit]:
    """Edits that replace the outputs of the protocol's heads and MLPs by their mean over reference prompts."""
    n_layers = checkpoint.config.model.n_layers
    means = [mean[None] for mean in reference_values(checkpoint, function_class, protocol.seed).moments.mean]
    return plain_edits(protocol.without, Substitutes(means[:n_layers], means[n_layers:]), "z", None)


class ProbeErrors(NamedTuple):
    """Errors by prompt of one probe and its controls.

    Attributes:
        columns: that describe it in the table.
        probed: errors of the probe.
        shuffled: errors of the probe for another prompt's target.
        untrained: errors of the probe of an untrained model.
    """

    columns: dict[str, Any]
    probed: Errors
    shuffled: Errors
    untrained: Errors


def probe_group(
    classes: Sequence[ClassActivations],
    group: str,
    names: Sequence[str],
    protocol: Protocol,
    positions: Sequence[ProbePosition],
) -> pd.DataFrame:
    """All probes of one function class, or those that decode the class among several."""
    probes = []
    for i, position in enumerate(positions):
        targets = {name: read_target(classes, name, position) for name in names if name != "x" or position.token == "y"}
        if targets:
            for number, stage in enumerate(classes[0].stages):
                columns = {"function_class": group, **position._asdict(), "stage": str(stage)}
                probes += probes_at(classes, targets, (number, i), columns, protocol.seed)
    rng = np.random.default_rng(stream_seed("probe", protocol.seed, group))
    return tabulate(probes, bootstrap_weights(len(probes[0].probed.residual), rng))


class TargetValues(NamedTuple):
    """A target's values, of prompts to fit on and to test on."""

    fit: Float[np.ndarray, "prompt 1 target"]
    test: Float[np.ndarray, "_ 1 target"]

    def shuffled(self, rng: np.random.Generator) -> "TargetValues":
        return TargetValues(rng.permutation(self.fit), rng.permutation(self.test))


def read_target(classes: Sequence[ClassActivations], name: str, position: ProbePosition) -> TargetValues:
    """A target's values; for the target `class`, labels of interleaved prompts of several classes."""
    if name == CLASS:
        sizes = (len(drawn.prompts.ys) for drawn in (classes[0].fit, classes[0].test))
        return TargetValues(*(one_hot(len(classes), size)[:, None] for size in sizes))
    (data,) = classes
    return TargetValues(*(target_values(name, drawn, *position)[:, None] for drawn in (data.fit, data.test)))


def features_at(streams: Sequence[Streams], stage: int, position: int) -> tuple[np.ndarray, np.ndarray]:
    """[prompt 1 d_model] to fit on and to test on, prompts of several classes interleaved."""
    fit, test = (
        np.stack([getattr(stream, part)[stage, :, position] for stream in streams], axis=1) for part in Streams._fields
    )
    return fit.reshape(-1, 1, fit.shape[2]), test.reshape(-1, 1, test.shape[2])


def probes_at(
    classes: Sequence[ClassActivations],
    targets: Mapping[str, TargetValues],
    stage_and_position: tuple[int, int],
    columns: Mapping[str, Any],
    seed: int,
) -> list[ProbeErrors]:
    """The probes for every target at one stage and position, in every condition."""
    rng = np.random.default_rng(stream_seed("shuffle", seed, *columns.values()))
    values = [*targets.values(), *(target.shuffled(rng) for target in targets.values())]
    n_classes, n_targets = len(classes), len(targets)
    untrained_features = features_at([data.untrained for data in classes], *stage_and_position)
    untrained = fit_and_test(untrained_features, values[:n_targets], n_classes)
    probes = []
    for condition in classes[0].conditions:
        features = features_at([data.conditions[condition] for data in classes], *stage_and_position)
        errors = fit_and_test(features, values, n_classes)
        for i, name in enumerate(targets):
            metric, chance = ("accuracy", 1 / n_classes) if name == CLASS else ("r2", 0.0)
            labels = {"condition": condition, "target": name, "metric": metric, "chance": chance}
            probes.append(ProbeErrors({**columns, **labels}, errors[i], errors[n_targets + i], untrained[i]))
    return probes


def fit_and_test(
    features: tuple[np.ndarray, np.ndarray], targets: Sequence[TargetValues], n_classes: int
) -> list[Errors]:
    """Fit a probe for each target; returns their errors on test prompts."""
    fits = fit_ridges(features[0], [target.fit for target in targets])
    test = errors_of if n_classes == 1 else class_errors
    return [test(fit, features[1], target.test) for fit, target in zip(fits, targets, strict=True)]


def class_errors(
    fit: Ridge, features: Float[np.ndarray, "row 1 feature"], target: Float[np.ndarray, "row 1 target"]
) -> Errors:
    """By prompt index, the share of misclassified prompts over classes; totals are 1, so that `r2` is the accuracy."""
    wrong = fit.predict(features).argmax(-1) != target.argmax(-1)
    per_prompt = wrong.reshape(-1, target.shape[2]).mean(1)
    return Errors(per_prompt, np.ones_like(per_prompt))


def tabulate(probes: Sequence[ProbeErrors], weights: Float[np.ndarray, "resample prompt"]) -> pd.DataFrame:
    """A row per probe, with intervals."""
    values: dict[str, np.ndarray] = {}
    resamples: dict[str, np.ndarray] = {}
    for column, part in (("value", "probed"), ("shuffled", "shuffled"), ("untrained", "untrained")):
        errors: list[Errors] = [getattr(probe, part) for probe in probes]
        values[column] = np.array([error.r2 for error in errors])
        residual, total = (np.stack([getattr(error, side) for error in errors]) for side in Errors._fields)
        resamples[column] = r2_resamples(residual, total, weights)
    is_shuffled = values["shuffled"] > values["untrained"]
    for parts in (values, resamples):
        parts["above"] = parts["value"] - np.where(is_shuffled, parts["shuffled"], parts["untrained"])
    table = pd.DataFrame([probe.columns for probe in probes])
    for column, value in values.items():
        low, high = percentile_interval(resamples[column])
        prefix = "ci" if column == "value" else column
        table = table.assign(**{column: value, f"{prefix}_low": low, f"{prefix}_high": high})
    return table

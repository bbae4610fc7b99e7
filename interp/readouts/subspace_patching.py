"""Does the model use what a probe decodes? The probed subspace is swapped between two runs.

1. Every probe has two subspaces. `weights` is the row space of its weights: what the probe reads. `pattern` is the span
   of the stream's covariance with the probe's output: how the stream changes with it (Haufe et al. 2014, NeuroImage
   87). They differ because weights also cancel other variation, along directions of little variance, in which a swap
   barely moves the stream. At an x token the probe and the swap are at the query only, where the prediction is read; at
   y tokens they are at every y token before the query, with one probe for all of them.
2. The clean prompt's component in the subspace is replaced by that of the same query under another function (or another
   class, or after other inputs, if the target is one of these). Everything else stays, and later layers are recomputed.
3. The effect is that of a patch (`interp.patching.effects`): 0 = the prediction stays, 1 = it becomes the other run's.
   `full` is the effect of swapping the whole stream at the same tokens, the largest that can be expected there.
4. The controls are random subspaces of the same dimension, either uniform (`p_value`) or drawn from the distribution of
   the stream but orthogonal to the probed subspace (`p_matched`): the latter carry much of the difference between the
   two runs, whatever it means, and nothing of the tested component.
5. The position (token type and stage) of a target is chosen on selection prompts, where its effect exceeds both kinds
   of controls most clearly, and tested once on the test prompts (`p_chosen`, the larger p; `p_holm` after Holm over
   targets and classes). An effect above 1 overshoots, and counts as evidence no more than one that falls short of 1 by
   as much.

Before all this, a self-check shows that the swap acts (`check_swap`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor

from interp.display.result import Result
from interp.model.opened import opens_models
from interp.model.self_checks import CHECKED
from interp.patching.effects import effect_of
from interp.patching.prompt_pairs import PromptPairs, prompt_pairs
from interp.readouts.probes import DEFAULT_FIT_PROMPTS, ProbePosition, Protocol, split_targets
from interp.readouts.ridge import fit_ridges
from interp.readouts.stream import TOKENS, Stage, choose_tokens, model_stages, read_stream, token_positions
from interp.readouts.subspace_exchange import Exchange, check_swap, make_exchange
from interp.readouts.targets import CLASS, TARGETS, check_targets, one_hot, target_values
from interp.statistics.effects import SIGNIFICANT, TIE, Effect, holm, permutation_p
from training.checkpoints.checkpoint import Checkpoint
from training.common.bootstrap import bootstrap_weights
from training.common.errors import UserError
from training.common.progress import progress_bar
from training.common.table_rows import label_rows
from training.config.config import stream_seed
from training.evaluation.evaluate import evaluation_functions, predictions
from training.model.transformer import Transformer
from training.options import DEFAULT_PROMPTS
from training.tasks.function_classes import choose_classes

RANK_TOLERANCE = 1e-6
"""Directions that are this much smaller than the largest are rounding errors."""
LEAST_CONTROLS = 100
SELECTION_CONTROLS = 40
"""Number of controls of each kind on selection prompts, enough to estimate their spread."""
CONTROLS = ("even", "matched")


@dataclass(frozen=True, repr=False, eq=False)
class Swaps(Result):
    """The causal test of one model's probes.

    Attributes:
        checkpoint: the model's name.
        step: of its training.
        table: one row per function class, target, `subspace` (`weights`, `pattern`), token type and stage: `rank`, the
            `effect` with a 95 % interval over prompts, `full` (the whole stream, with its interval), the mean
            effects of the two kinds of controls, `random` (uniform) and `matched`, with `p_value` and `p_matched`, from
            `n_controls` subspaces each; `evidence`, by how many standard deviations of the controls the effect exceeds
            their mean on selection prompts; `p_chosen`, the larger p, at the position (stage and token type) with most
            evidence, NaN elsewhere; `p_holm`, the same after Holm over the targets and classes of its kind of subspace.
        controls: the effect of every control subspace, of the kind `control` (`even`: uniform, `matched`).
        protocol: of the probes.
        n_compared: prompts on which swap and controls are compared.
    """

    checkpoint: str
    step: int
    table: pd.DataFrame
    controls: pd.DataFrame
    protocol: Protocol
    n_compared: int

    @property
    def files(self) -> Mapping[str, pd.DataFrame]:
        return {"swaps": self.table, "swaps_controls": self.controls}


@opens_models
def swap(
    checkpoint: Checkpoint,
    classes: str | Sequence[str] | None = None,
    *,
    targets: str | Sequence[str] | None = None,
    tokens: str | Sequence[str] = TOKENS,
    examples: int | None = None,
    n_prompts: int = DEFAULT_PROMPTS,
    n_fit: int = DEFAULT_FIT_PROMPTS,
    n_controls: int | None = None,
    n_compared: int = 256,
    seed: int = 0,
) -> Swaps:
    """Swap the probed subspaces between two runs.

    Args:
        checkpoint: a loaded run (`interp.load`).
        classes: function classes; None takes those of the run.
        targets: names in `interp.readouts.targets.TARGETS`, or text such as `w,t`; None takes all of a class but `x`.
        tokens: token types, such as `x` or `x,y`, at which to swap.
        examples: pairs before the query; None takes all but the last pair.
        n_prompts: per class, to test on.
        n_fit: per class, to fit the probes on.
        n_controls: random subspaces of each kind; None takes `LEAST_CONTROLS`, or as many as p <= 0.05 after Holm over
            all targets and classes needs.
        n_compared: of the test prompts, on which controls are compared with the probed subspace.
        seed: of all random draws.

    Raises:
        UserError: see `interp.readouts.probes.probe`; or no class is the run's, for the target `class`.
        CheckError: the swap does not do what it should.

    >>> from interp import load
    >>> few = {"tokens": ["x"], "n_prompts": 64, "n_fit": 256, "n_controls": 4}
    >>> rows = swap(load("zoo:mixed-0"), "linear", targets="t", **few).table
    >>> [*rows["stage"].unique()], bool(rows["effect"].iloc[-1] > 0.5)
    (['0.post', '1.post', '2.post'], True)
    """
    config = checkpoint.config
    protocol = Protocol(choose_tokens(tokens), () if examples is None else (examples,), (), n_prompts, n_fit, seed)
    class_names = choose_classes(classes, config.evaluated_classes)
    by_group = check_targets(split_targets(targets), class_names, config.evaluated_classes, protocol.tokens)
    k = max(position.examples for position in protocol.positions(config.data.n_points))
    setups = [
        SwapSetup(
            checkpoint, name, group.split(","), ProbePosition(token, k), names, protocol, n_controls or 0, n_compared
        )
        for name in class_names
        for group, group_targets in by_group.items()
        if name in group.split(",")
        for token in protocol.tokens
        if (token == "x" or config.model.n_layers > 1)
        and (names := [target for target in group_targets if token in TARGETS[target].tokens])
    ]
    if not setups:
        raise UserError(
            "--swap: nothing to swap (y tokens need a second layer to be read, a class has to be the run's)"
        )
    if n_controls is None:
        n_tests = len({(setup.function_class, target) for setup in setups for target in setup.targets})
        setups = [replace(setup, n_controls=max(LEAST_CONTROLS, needed_controls(n_tests))) for setup in setups]
    rows, controls = zip(
        *(result for setup in progress_bar(setups, desc="swap", unit="setup") for result in swap_targets(setup)),
        strict=True,
    )
    table, effects = (
        label_rows(frame, checkpoint=checkpoint.name, step=checkpoint.step)
        for frame in (mark_chosen(pd.DataFrame(list(rows))), pd.concat(controls, ignore_index=True))
    )
    return Swaps(checkpoint.name, checkpoint.step, table, effects, protocol, min(n_compared, n_prompts))


def mark_chosen(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `p_chosen`, at the position with most evidence for every target, class and kind of subspace, and
    `p_holm`."""
    families = [table[column] for column in ("function_class", "target", "subspace")]
    is_chosen = table["evidence"].groupby(families).rank(ascending=False, method="first") == 1
    larger = table[["p_value", "p_matched"]].max(axis=1, skipna=False)
    table = table.assign(p_chosen=larger.where(is_chosen))
    for kind in dict.fromkeys(table["subspace"]):
        of_kind = table["subspace"] == kind
        table.loc[of_kind, "p_holm"] = holm(table.loc[of_kind, "p_chosen"].tolist())
    return table


def needed_controls(n_tests: int) -> int:
    """How many controls allow a p of at most 5 % after Holm over so many tests.

    >>> needed_controls(1), needed_controls(15)
    (19, 299)
    """
    return math.ceil(n_tests / SIGNIFICANT - TIE) - 1


@dataclass(frozen=True)
class SwapSetup:
    """The swaps on one function class at one type of token.

    Attributes:
        checkpoint: the run.
        function_class: of the clean prompts.
        group: the classes on whose prompts the probes are fitted.
        position: token type, and examples before the query.
        targets: names.
        protocol: of the probes.
        n_controls: random subspaces of each kind.
        n_compared: prompts on which controls are compared.
    """

    checkpoint: Checkpoint
    function_class: str
    group: Sequence[str]
    position: ProbePosition
    targets: Sequence[str]
    protocol: Protocol
    n_controls: int
    n_compared: int

    @property
    def model(self) -> Transformer:
        return self.checkpoint.model

    @property
    def positions(self) -> Int[Tensor, " swapped"]:
        """The query, or every y token before it."""
        token, k = self.position
        every = token_positions(self.checkpoint.config.layout, k + 1, token)
        return every[k:] if token == "x" else every[:k]

    @property
    def stages(self) -> list[Stage]:
        """After every layer; at y tokens not after the last, since no later layer reads them."""
        after_layers = model_stages(self.model.config.n_layers, mid=False)[1:]
        return after_layers if self.position.token == "x" else after_layers[:-1]

    def draw_pairs(self, corruption: str, n_prompts: int, seed: int) -> PromptPairs:
        """Clean and corrupt prompts on the model's device."""
        config, k = self.checkpoint.config, self.position.examples
        pairs = prompt_pairs(config, self.function_class, corruption, n_prompts=n_prompts, seed=seed, examples=k)
        return pairs.to(self.model.device)


def swap_targets(setup: SwapSetup) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """A row per target and stage, with the effects of its controls."""
    swaps = []
    for corruption in dict.fromkeys(TARGETS[name].corruption for name in setup.targets):
        targets = [name for name in setup.targets if TARGETS[name].corruption == corruption]
        seed = setup.protocol.seed
        test = setup.draw_pairs(corruption, setup.protocol.n_prompts, seed)
        selection = setup.draw_pairs(corruption, setup.n_compared, stream_seed("swap selection", seed))
        for stage, (bases, root) in zip(setup.stages, probed_subspaces(setup, targets), strict=True):
            exchanges = [make_exchange(setup.model, pairs, stage, setup.positions) for pairs in (test, selection)]
            swaps += swap_at(setup, exchanges[0], exchanges[1], bases, root)
    return swaps


Bases = dict[tuple[str, str], Float[np.ndarray, "d_model _"]]
"""By target and kind of subspace, an orthonormal basis [d_model rank]."""


def probed_subspaces(
    setup: SwapSetup, targets: Sequence[str]
) -> list[tuple[Bases, Float[np.ndarray, "d_model d_model"]]]:
    """By stage, the subspaces of probes fitted on reference prompts, and a square root of the stream's covariance."""
    config, protocol, (token, k) = setup.checkpoint.config, setup.protocol, setup.position
    sampled = [
        evaluation_functions(config, name, n_prompts=protocol.n_fit, seed=protocol.seed, stream="reference")
        for name in setup.group
    ]
    streams = [read_stream(setup.model, drawn.prompts.first(k + 1), setup.stages, setup.positions) for drawn in sampled]
    features = np.stack(streams, axis=2)  # stage prompt class position d_model
    features = features.reshape(len(setup.stages), -1, *features.shape[3:])
    examples = [k] if token == "x" else range(1, k + 1)
    values = []
    for name in targets:
        if name == CLASS:
            values.append(np.repeat(one_hot(len(setup.group), protocol.n_fit)[:, None], len(examples), axis=1))
        else:
            values.append(np.stack([target_values(name, sampled[0], token, seen) for seen in examples], axis=1))
    subspaces = []
    for stage_features in features:
        root, bases = covariance_root(stage_features), {}
        for name, fit in zip(targets, fit_ridges(stage_features, values), strict=True):
            bases[name, "weights"] = span_of(fit.weights)
            bases[name, "pattern"] = span_of(root @ (root.T @ fit.weights))
        subspaces.append((bases, root))
    return subspaces


def span_of(columns: Float[np.ndarray, "d_model target"]) -> Float[np.ndarray, "d_model rank"]:
    """An orthonormal basis of the columns' span.

    >>> span_of(np.array([[2.0, 2.0], [0.0, 0.0]])).shape
    (2, 1)
    """
    left, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    return left[:, sizes > RANK_TOLERANCE * max(sizes.max(initial=0), np.finfo(float).tiny)]


def covariance_root(features: Float[np.ndarray, "prompt point d_model"]) -> Float[np.ndarray, "d_model d_model"]:
    """A square root of the covariance over prompts, centred at each point."""
    centred = (features - features.mean(0, dtype=np.float64)).reshape(-1, features.shape[2])
    eigenvalues, directions = np.linalg.eigh(centred.T @ centred / len(centred))
    return directions * np.sqrt(eigenvalues.clip(min=0))


def random_subspaces(
    rng: np.random.Generator, n: int, rank: int, root: Float[np.ndarray, "d_model d_model"]
) -> Float[np.ndarray, "variant d_model rank"]:
    """Orthonormal bases of the spans of `rank` draws from N(0, root root'), or of fewer if its rank is lower."""
    size = min(rank, span_of(root).shape[1])
    return np.linalg.qr(root @ rng.standard_normal((n, root.shape[1], size)))[0]


def outside(
    basis: Float[np.ndarray, "d_model rank"], root: Float[np.ndarray, "d_model d_model"]
) -> Float[np.ndarray, "d_model d_model"]:
    """A root of the covariance orthogonal to a subspace; exactly zero if it consists of rounding errors.

    >>> outside(np.eye(2)[:, :1], np.ones((2, 2))).tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """
    rest = root - basis @ (basis.T @ root)
    return rest if np.abs(rest).max() > RANK_TOLERANCE * np.abs(root).max() else np.zeros_like(root)


class Arrangement(NamedTuple):
    """An exchange with the predictions of both runs.

    Attributes:
        exchange: between two runs.
        base: the clean run's predictions.
        source: the corrupt run's predictions.
    """

    exchange: Exchange
    base: Float[np.ndarray, " prompt"]
    source: Float[np.ndarray, " prompt"]

    def first(self, n_prompts: int) -> "Arrangement":
        n_prompts = min(n_prompts, len(self.base))
        return Arrangement(self.exchange.rows(range(n_prompts)), self.base[:n_prompts], self.source[:n_prompts])

    def effect(self, basis: Float[np.ndarray, "d_model rank"], weights: Float[np.ndarray, "resample prompt"]) -> Effect:
        """The effect of swapping a subspace, with its interval over prompts."""
        (effect,) = effect_of(self.exchange.predict(basis[None]), self.base, self.source, weights)
        return effect

    def effects(self, bases: Float[np.ndarray, "variant d_model rank"]) -> Float[np.ndarray, " variant"]:
        """The effects of swapping subspaces, without intervals."""
        if not len(bases):
            return np.array([])
        weights = np.full((2, len(self.base)), 1 / len(self.base))
        effects = effect_of(self.exchange.predict(bases), self.base, self.source, weights)
        return np.array([effect.value for effect in effects])


def arrange(model: Transformer, exchange: Exchange) -> Arrangement:
    base, source = (predictions(model, prompts)[:, -1].double().numpy() for prompts in exchange.pairs)
    return Arrangement(exchange, base, source)


def swap_at(
    setup: SwapSetup,
    test_exchange: Exchange,
    selection_exchange: Exchange,
    bases: Bases,
    root: Float[np.ndarray, "d_model d_model"],
) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """The swap of every target at one stage, with the effects of its controls."""
    for basis in bases.values():
        check_swap(test_exchange.rows(range(min(CHECKED, len(test_exchange.clean)))), basis)
    test, selection = (arrange(setup.model, exchange) for exchange in (test_exchange, selection_exchange))
    labels = {"function_class": setup.function_class, **setup.position._asdict(), "stage": str(test_exchange.stage)}
    rng = np.random.default_rng(stream_seed("swap", setup.protocol.seed, *labels.values()))
    weights = bootstrap_weights(len(test.base), rng)
    full = test.effect(np.eye(len(root)), weights)
    compared, swaps = test.first(setup.n_compared), []
    test_controls = Controls(setup.n_controls, compared, rng, root)
    selection_controls = Controls(min(setup.n_controls, SELECTION_CONTROLS), selection, rng, root)
    for (target, subspace), basis in bases.items():
        effect, (compared_effect,) = test.effect(basis, weights), compared.effects(basis[None])
        even, matched = test_controls.effects(basis)
        selection_effect = float(selection.effects(basis[None])[0])
        row = {
            **labels,
            "target": target,
            "subspace": subspace,
            "rank": basis.shape[1],
            "effect": effect.value,
            "ci_low": effect.ci_low,
            "ci_high": effect.ci_high,
            "full": full.value,
            "full_low": full.ci_low,
            "full_high": full.ci_high,
            "random": mean_or_nan(even),
            "p_value": permutation_p(compared_effect, even),
            "matched": mean_or_nan(matched),
            "p_matched": permutation_p(compared_effect, matched),
            "evidence": evidence(selection_effect, selection_controls.effects(basis)),
            "n_controls": len(even),
        }
        kinds = np.repeat(CONTROLS, [len(even), len(matched)])
        controls = pd.DataFrame({"control": kinds, "effect": np.concatenate([even, matched])})
        swaps.append((row, controls.assign(**labels, target=target, subspace=subspace)))
    return swaps


def mean_or_nan(effects: Float[np.ndarray, " set"]) -> float:
    return float(effects.mean()) if len(effects) else float("nan")


def evidence(effect: float, controls: Sequence[Float[np.ndarray, " set"]]) -> float:
    """The number of standard deviations by which an effect exceeds the controls' mean, the lowest over their kinds.

    An effect above 1 counts as one that is below 1 by as much. Without two controls of a kind it is the effect itself.

    >>> round(evidence(1.2, [np.array([0.0, 0.2])]), 2), evidence(0.5, [])
    (7.0, 0.5)
    """
    folded = 1 - abs(1 - effect)
    several = [effects for effects in controls if len(effects) > 1]
    return float(min(((folded - effects.mean()) / (effects.std() + TIE) for effects in several), default=folded))


class Controls:
    """The effects of random subspaces of two kinds (`CONTROLS`); uniform ones are drawn once for every rank.

    Args:
        n: subspaces of each kind.
        runs: in which they are swapped.
        rng: draws them.
        root: of the stream's covariance.
    """

    def __init__(
        self, n: int, runs: Arrangement, rng: np.random.Generator, root: Float[np.ndarray, "d_model d_model"]
    ) -> None:
        self.n, self.runs, self.rng, self.root = n, runs, rng, root
        self.even_by_rank: dict[int, Float[np.ndarray, " set"]] = {}

    def effects(
        self, basis: Float[np.ndarray, "d_model rank"]
    ) -> tuple[Float[np.ndarray, " set"], Float[np.ndarray, " set"]]:
        """The effects of uniform subspaces of the basis's rank, and of those drawn as the stream varies outside it."""
        return self.even(basis.shape[1]), self.draw(basis.shape[1], outside(basis, self.root))

    def even(self, rank: int) -> Float[np.ndarray, " set"]:
        """The effects of uniform subspaces."""
        if rank not in self.even_by_rank:
            self.even_by_rank[rank] = self.draw(rank, np.eye(len(self.root)))
        return self.even_by_rank[rank]

    def draw(self, rank: int, root: Float[np.ndarray, "d_model d_model"]) -> Float[np.ndarray, " set"]:
        return self.runs.effects(random_subspaces(self.rng, self.n, rank, root))

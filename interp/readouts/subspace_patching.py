"""Is what a probe reads also what the model reads? The probed subspace is swapped between two runs.

1. Two subspaces belong to a probe. `weights` is the row space of its weights: what the probe sees. `pattern` is the
   span of the stream's covariance with what the probe reads: where the stream goes when that changes (Haufe et al.
   2014, NeuroImage 87). They differ: weights also cancel what else varies, in directions in which little does, and a
   swap in those barely moves the stream. At an x token it is probed and swapped at the query alone, where the
   prediction is read; at y tokens at every one before the query, with one probe for all of them.
2. A clean prompt's component in it is replaced by that of the same question under another function (or another class,
   or after other inputs, where the target is one of these), everything else stays, and the later layers run on.
3. The effect is that of a patch (`interp.patching.effects`): 0 = the prediction stays, 1 = it follows to what the other
   run predicts. Beside it stands `full`, the effect of swapping the whole stream at the same tokens, which is the most
   that could be had there.
4. The controls: random subspaces of the same dimension, drawn evenly (`p_value`), or as the stream itself varies but
   orthogonal to the probed one (`p_matched`): those carry much of what the two runs differ in, whatever it means, and
   nothing of what is tested.
5. The place (token type and stage) of a target is chosen on selection prompts, where its effect exceeds both kinds of
   controls most clearly, and tested once on the test prompts (`p_chosen`, the larger p). Beyond 1 an effect overshoots,
   and counts as evidence no more than one that falls short by as much.

Before any of this the swap proves that it acts (`check_swap`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor

from interp.display.result import Result
from interp.model.self_checks import CHECKED
from interp.patching.effects import effect_of
from interp.patching.prompt_pairs import PromptPairs, prompt_pairs
from interp.readouts.probes import DEFAULT, Place, Protocol
from interp.readouts.ridge import fit_ridges
from interp.readouts.stream import (
    Stage,
    Token,
    read_stream,
    stages,
    token_positions,
)
from interp.readouts.subspace_exchange import Exchange, check_swap, make_exchange
from interp.readouts.targets import CLASS, TARGETS, check_targets, one_hot, values
from interp.statistics.effects import TIE, permutation_p
from training.checkpoints.checkpoint import Checkpoint
from training.common.bootstrap import bootstrap_weights
from training.common.errors import UserError
from training.common.library_defaults import library_defaults
from training.common.progress import progress_bar
from training.config.config import stream_seed
from training.evaluation.evaluate import evaluation_functions, predictions
from training.model.transformer import Transformer
from training.tasks.function_classes import choose_classes

RANK_TOLERANCE = 1e-6
"""Directions that are this much smaller than the largest are rounding."""
SELECTION_CONTROLS = 40
"""Random subspaces of each kind with which the place is chosen: enough for their spread."""
NULLS = ("even", "matched")
SUBSPACES = ("weights", "pattern")


@dataclass(frozen=True, repr=False, eq=False)
class Swaps(Result):
    """The causal test of one model's probes.

    Attributes:
        checkpoint: the model's name.
        step: of its training.
        table: one row per function class, target, kind of `subspace` (`SUBSPACES`), token type and stage: its `rank`,
            the `effect` with a 95 % interval over prompts, `full` (the whole stream, with its interval), and by null
            its mean `random` and `matched`, `p_value` and `p_matched`, from `n_controls` subspaces each; `evidence`,
            by how many standard deviations of the controls the effect exceeds their mean on selection prompts;
            `p_chosen`, the larger p, at the place (stage and token type) with most of it, NaN elsewhere.
        null: the effect of every random subspace.
        protocol: of the probes.
        n_compared: prompts on which null and swap are compared.
    """

    checkpoint: str
    step: int
    table: pd.DataFrame
    null: pd.DataFrame
    protocol: Protocol
    n_compared: int

    @property
    def files(self) -> Mapping[str, pd.DataFrame]:
        return {"swaps": self.table, "swaps_null": self.null}


@library_defaults()
def swap(
    checkpoint: Checkpoint,
    classes: str | Sequence[str] | None = None,
    *,
    targets: Sequence[str] | None = None,
    protocol: Protocol = DEFAULT,
    n_controls: int = 100,
    n_compared: int = 256,
) -> Swaps:
    """Swap the probed subspaces after the largest of the protocol's numbers of examples.

    Args:
        checkpoint: a loaded run (`interp.load`).
        classes: function classes; None takes those of the run.
        targets: names in `interp.readouts.targets.TARGETS`; None takes all but `x` that exist for a class.
        protocol: of the probes; heads to remove are not looked at.
        n_controls: random subspaces per null.
        n_compared: of the test prompts, on which random subspaces are compared with the probed one.

    Raises:
        UserError: see `interp.readouts.probes.probe`; or `class` is asked for on a class that is not the run's.
        CheckError: the swap does not do what it should.

    >>> from interp import load
    >>> few = Protocol(tokens=("x",), n_prompts=64, n_fit=512)
    >>> rows = swap(load("zoo:mixed-0"), ["linear"], targets=["t"], protocol=few, n_controls=9).table
    >>> [*rows["stage"].unique()], bool(rows["effect"].iloc[-1] > 0.5)
    (['0.post', '1.post', '2.post'], True)
    """
    config = checkpoint.config
    names = choose_classes(classes, config.evaluated_classes)
    found = check_targets(targets, names, config.evaluated_classes, protocol.tokens)
    examples = max(place.examples for place in protocol.places(config.data.n_points))
    arms: list[tuple[str, str, Token, list[str]]] = [
        (name, group, token, wanted)
        for name in names
        for group, of_group in found.items()
        if name in group.split(",")
        for token in protocol.tokens
        if (token == "x" or config.model.n_layers > 1)
        and (wanted := [target for target in of_group if token in TARGETS[target].tokens])
    ]
    if not arms:
        raise UserError(
            "--swap: nothing to swap (y tokens need a second layer to be read, a class has to be the run's)"
        )
    rows: list[dict[str, Any]] = []
    nulls: list[pd.DataFrame] = []
    for name, group, token, wanted in progress_bar(arms, desc="swap", unit="arm"):
        place = Place(token, examples)
        swaps_of = Arm(checkpoint, name, group.split(","), place, protocol, n_controls, n_compared)
        for row, null in swap_targets(swaps_of, wanted):
            rows.append(row)
            nulls.append(null)
    table, null = with_choice(pd.DataFrame(rows)), pd.concat(nulls, ignore_index=True)
    for frame in (table, null):
        frame.insert(0, "checkpoint", checkpoint.name)
        frame.insert(1, "step", checkpoint.step)
    return Swaps(checkpoint.name, checkpoint.step, table, null, protocol, min(n_compared, protocol.n_prompts))


def with_choice(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `p_chosen`, at the place with most evidence of every target, class and kind of subspace."""
    families = [table[column] for column in ("function_class", "target", "subspace")]
    is_chosen = table["evidence"].groupby(families).rank(ascending=False, method="first") == 1
    larger = table[["p_value", "p_matched"]].max(axis=1, skipna=False)
    return table.assign(p_chosen=larger.where(is_chosen))


@dataclass(frozen=True)
class Arm:
    """The swaps on one function class at one type of token.

    Attributes:
        checkpoint: the run.
        name: function class of the clean prompts.
        group: the classes on whose prompts the probes are fitted.
        place: token type and examples before the query.
        protocol: of the probes.
        n_controls: random subspaces per null.
        n_compared: prompts.
    """

    checkpoint: Checkpoint
    name: str
    group: Sequence[str]
    place: Place
    protocol: Protocol
    n_controls: int
    n_compared: int

    @property
    def model(self) -> Transformer:
        return self.checkpoint.model

    @property
    def positions(self) -> Int[Tensor, " swapped"]:
        """The query, or every y token before it."""
        k = self.place.examples
        every = token_positions(self.checkpoint.config.layout, k + 1, self.place.token)
        return every[k:] if self.place.token == "x" else every[:k]

    @property
    def at(self) -> list[Stage]:
        """After every layer; at y tokens not after the last, which nobody reads."""
        every = stages(self.model.config.n_layers, mid=False)[1:]
        return every if self.place.token == "x" else every[:-1]


def swap_targets(arm: Arm, targets: Sequence[str]) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """A row per target and stage, with its null."""
    found = []
    for corruption in dict.fromkeys(TARGETS[name].corruption for name in targets):
        wanted = [name for name in targets if TARGETS[name].corruption == corruption]
        pairs = pairs_of(arm, corruption, arm.protocol.n_prompts, arm.protocol.seed)
        selection = pairs_of(arm, corruption, arm.n_compared, stream_seed("swap selection", arm.protocol.seed))
        probed = probed_subspaces(arm, wanted)
        for number, stage in enumerate(arm.at):
            exchange, on_selection = (make_exchange(arm.model, of, stage, arm.positions) for of in (pairs, selection))
            found += swap_at(arm, exchange, on_selection, probed.bases[number], probed.roots[number])
    return found


def pairs_of(arm: Arm, corruption: str, n_prompts: int, seed: int) -> PromptPairs:
    pairs = prompt_pairs(
        arm.checkpoint.config, arm.name, corruption, n_prompts=n_prompts, seed=seed, examples=arm.place.examples
    )
    return pairs.to(arm.model.device)


Bases = dict[tuple[str, str], Float[np.ndarray, "d_model _"]]


class Probed(NamedTuple):
    """What probes see, by stage.

    Attributes:
        bases: by target and kind of subspace an orthonormal basis [d_model rank].
        roots: a square root of the stream's covariance.
    """

    bases: list[Bases]
    roots: list[Float[np.ndarray, "d_model d_model"]]


def probed_subspaces(arm: Arm, targets: Sequence[str]) -> Probed:
    """Fit the probes whose subspaces are swapped, on reference prompts."""
    config, protocol, (token, k) = arm.checkpoint.config, arm.protocol, arm.place
    drawn = [
        evaluation_functions(config, name, n_prompts=protocol.n_fit, seed=protocol.seed, stream="reference")
        for name in arm.group
    ]
    streams = [read_stream(arm.model, one.prompts.first(k + 1), arm.at, arm.positions) for one in drawn]
    features = np.stack(streams, axis=2)  # stage prompt class position d_model
    features = features.reshape(len(arm.at), -1, *features.shape[3:])
    seen = [k] if token == "x" else range(1, k + 1)
    known = []
    for name in targets:
        if name == CLASS:
            known.append(np.repeat(one_hot(len(arm.group), protocol.n_fit)[:, None], len(seen), axis=1))
        else:
            known.append(np.stack([values(name, drawn[0], token, examples) for examples in seen], axis=1))
    roots = [covariance_root(of_stage) for of_stage in features]
    bases: list[Bases] = []
    for of_stage, root in zip(features, roots, strict=True):
        fits = zip(targets, fit_ridges(of_stage, known), strict=True)
        spans = {name: (fit.weights, root @ (root.T @ fit.weights)) for name, fit in fits}
        kinds = [(name, kind, span) for name, both in spans.items() for kind, span in zip(SUBSPACES, both, strict=True)]
        bases.append({(name, kind): span_of(span) for name, kind, span in kinds})
    return Probed(bases, roots)


def span_of(columns: Float[np.ndarray, "d_model target"]) -> Float[np.ndarray, "d_model rank"]:
    """An orthonormal basis of the span.

    >>> span_of(np.array([[2.0, 2.0], [0.0, 0.0]])).shape
    (2, 1)
    """
    left, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    return left[:, sizes > RANK_TOLERANCE * max(sizes.max(initial=0), np.finfo(float).tiny)]


def covariance_root(features: Float[np.ndarray, "prompt point d_model"]) -> Float[np.ndarray, "d_model d_model"]:
    centred = (features - features.mean(0, dtype=np.float64)).reshape(-1, features.shape[2])
    eigenvalues, directions = np.linalg.eigh(centred.T @ centred / len(centred))
    return directions * np.sqrt(eigenvalues.clip(min=0))


def random_subspaces(
    rng: np.random.Generator, n: int, rank: int, root: Float[np.ndarray, "d_model d_model"]
) -> Float[np.ndarray, "variant d_model rank"]:
    """Orthonormal bases of the spans of `rank` draws of N(0, root root'), or of fewer where that varies in fewer."""
    size = min(rank, span_of(root).shape[1])
    return np.linalg.qr(root @ rng.standard_normal((n, root.shape[1], size)))[0]


def outside(
    basis: Float[np.ndarray, "d_model rank"], root: Float[np.ndarray, "d_model d_model"]
) -> Float[np.ndarray, "d_model d_model"]:
    """A root of the covariance of what is orthogonal to a subspace; exactly zero where that is rounding.

    >>> outside(np.eye(2)[:, :1], np.ones((2, 2))).tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """
    rest = root - basis @ (basis.T @ root)
    return rest if np.abs(rest).max() > RANK_TOLERANCE * np.abs(root).max() else np.zeros_like(root)


class Arrangement(NamedTuple):
    """The runs of one arm at one stage, and what a swap makes of their predictions.

    Attributes:
        exchange: both runs.
        base: the predictions of the clean one.
        source: of the other one.
    """

    exchange: Exchange
    base: Float[np.ndarray, " prompt"]
    source: Float[np.ndarray, " prompt"]

    def first(self, n_prompts: int) -> "Arrangement":
        n_prompts = min(n_prompts, len(self.base))
        return Arrangement(self.exchange.rows(range(n_prompts)), self.base[:n_prompts], self.source[:n_prompts])

    def effects(self, bases: Float[np.ndarray, "variant d_model rank"]) -> Float[np.ndarray, " variant"]:
        """Without intervals."""
        if not len(bases):
            return np.array([])
        weights = np.full((2, len(self.base)), 1 / len(self.base))
        found = effect_of(self.exchange.predict(bases), self.base, self.source, weights)
        return np.array([effect.value for effect in found])


def arrange(model: Transformer, exchange: Exchange) -> Arrangement:
    base, source = (predictions(model, prompts)[:, -1].double().numpy() for prompts in exchange.pairs)
    return Arrangement(exchange, base, source)


def swap_at(
    arm: Arm,
    exchange: Exchange,
    on_selection: Exchange,
    bases: Bases,
    root: Float[np.ndarray, "d_model d_model"],
) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    """The swap of every target at one stage."""
    for basis in bases.values():
        check_swap(exchange.rows(range(min(CHECKED, len(exchange.clean)))), basis)
    test, selection = (arrange(arm.model, runs) for runs in (exchange, on_selection))
    about = {"function_class": arm.name, "token": arm.place.token, "examples": arm.place.examples}
    about["stage"] = str(exchange.stage)
    rng = np.random.default_rng(stream_seed("swap", arm.protocol.seed, *about.values()))
    weights = bootstrap_weights(len(test.base), rng)
    everything = np.eye(len(root))[None]
    (full,) = effect_of(exchange.predict(everything), test.base, test.source, weights)
    compared, found = test.first(arm.n_compared), []
    even_of = EvenControls(arm.n_controls, compared, rng)
    even_of_selection = EvenControls(min(arm.n_controls, SELECTION_CONTROLS), selection, rng)
    for (name, subspace), basis in bases.items():
        rank = basis.shape[1]
        (effect,) = effect_of(exchange.predict(basis[None]), test.base, test.source, weights)
        (own,) = compared.effects(basis[None])
        even, matched = even_of(rank), matched_controls(arm.n_controls, compared, rng, basis, root)
        chosen_by = even_of_selection(rank), matched_controls(even_of_selection.n, selection, rng, basis, root)
        row = {
            **about,
            "target": name,
            "subspace": subspace,
            "rank": rank,
            "effect": effect.value,
            "ci_low": effect.ci_low,
            "ci_high": effect.ci_high,
            "full": full.value,
            "full_low": full.ci_low,
            "full_high": full.ci_high,
            "random": mean_or_nan(even),
            "p_value": permutation_p(own, even),
            "matched": mean_or_nan(matched),
            "p_matched": permutation_p(own, matched),
            "evidence": evidence(float(selection.effects(basis[None])[0]), chosen_by),
            "n_controls": len(even),
        }
        controls = zip(NULLS, (even, matched), strict=True)
        null = pd.DataFrame([{"null": kind, "effect": value} for kind, values in controls for value in values])
        found.append((row, null.assign(**about, target=name, subspace=subspace)))
    return found


def mean_or_nan(values_: Float[np.ndarray, " set"]) -> float:
    return float(values_.mean()) if len(values_) else float("nan")


def evidence(effect: float, controls: Sequence[Float[np.ndarray, " set"]]) -> float:
    """By how many standard deviations an effect exceeds the controls' mean, the fewest over the kinds of controls.

    An effect beyond 1 counts as one as far below it. Without two controls of a kind it stands for itself.

    >>> round(evidence(1.2, [np.array([0.0, 0.2])]), 2), evidence(0.5, [])
    (7.0, 0.5)
    """
    reached = 1 - abs(1 - effect)
    enough = [values_ for values_ in controls if len(values_) > 1]
    return float(min(((reached - values_.mean()) / (values_.std() + TIE) for values_ in enough), default=reached))


class EvenControls:
    """The effects of subspaces that are drawn evenly, once a rank."""

    def __init__(self, n: int, runs: Arrangement, rng: np.random.Generator) -> None:
        self.n, self.runs, self.rng = n, runs, rng
        self.by_rank: dict[int, Float[np.ndarray, " set"]] = {}

    def __call__(self, rank: int) -> Float[np.ndarray, " set"]:
        if rank not in self.by_rank:
            size = self.runs.exchange.clean.shape[2]
            self.by_rank[rank] = self.runs.effects(random_subspaces(self.rng, self.n, rank, np.eye(size)))
        return self.by_rank[rank]


def matched_controls(
    n: int,
    runs: Arrangement,
    rng: np.random.Generator,
    basis: Float[np.ndarray, "d_model rank"],
    root: Float[np.ndarray, "d_model d_model"],
) -> Float[np.ndarray, " set"]:
    """The effects of subspaces of the basis's rank that are drawn as the stream varies, orthogonal to it."""
    return runs.effects(random_subspaces(rng, n, basis.shape[1], outside(basis, root)))

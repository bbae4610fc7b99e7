"""Runs every set of components under every mode on the prompts of one class, and keeps the error of each prompt.

1. Reference prompts give the constants (`interp.ablation.reference_activations`), partner prompts, one for each under
   test, what is resampled.
2. Test prompts go through in chunks; each chunk is traced once and shared by all sets and modes.
3. Sets with the same first layer are stacked into one pass, as many as the memory limit allows.
4. With a store (`interp.ablation.store`) every finished piece is kept, so that an interrupted sweep goes on where it
   stopped.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm import tqdm

from interp.ablation.errors import ClassErrors, SetErrors, joined
from interp.ablation.modes import Mode
from interp.ablation.optimal import FITTED, fit_constants
from interp.ablation.reference_activations import (
    REFERENCE_PROMPTS,
    Moments,
    activations,
    normal_like,
    partner_prompts,
    reference_prompts,
    reference_values,
    substitutes,
)
from interp.ablation.store import Store, context, is_covered
from interp.model.engine import (
    Removal,
    Site,
    Substitutes,
    Trace,
    direct_without,
    predict_without,
    predictions_of,
    removal,
    trace,
)
from interp.model.heads import MLP, Head, HeadSet, head_set, show
from interp.model.parallel import side_by_side
from interp.model.self_checks import CHECKED, check_removal, spot_check
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import CheckError
from training.common.progress import progress_bar
from training.config.config import ModelConfig, RunConfig
from training.evaluation.evaluate import evaluation_prompts, no_context_error
from training.model.transformer import EVERY
from training.tasks.function_classes import function_class
from training.tasks.inputs import input_distribution

CHUNK = 128  # prompts
PASS = 8 * 2**20  # bytes of the widest activation of a pass: larger ones fall out of the caches, smaller ones pay calls
MEMORY = 2**30


@dataclass(frozen=True)
class Protocol:
    """How errors are measured.

    Attributes:
        n_prompts: per class.
        n_null_prompts: on how many of them, the first ones, sets are measured of which only the total effect is needed;
            None is all.
        seed: of the prompts.
        site: of heads, see `interp.model.engine.SITES`.
        tokens: where components are removed; None is everywhere.
        ranges: of pairs, over which errors are averaged.
        memory: bytes that activations may take, on all threads together.
        store: keeps finished pieces; None keeps nothing.
    """

    n_prompts: int
    seed: int
    ranges: tuple[slice, ...]
    site: Site = "z"
    tokens: Bool[Tensor, " pos"] | None = field(default=None, repr=False)
    memory: int = MEMORY
    store: Store | None = None
    n_null_prompts: int | None = None

    @property
    def n_compared(self) -> int:
        """How many prompts all sets have in common."""
        return min(self.n_prompts, self.n_null_prompts or self.n_prompts)

    @property
    def hull(self) -> slice:
        """The pairs that any range needs."""
        return slice(min(one.start for one in self.ranges), max(one.stop for one in self.ranges))


def class_errors(
    checkpoint: Checkpoint,
    name: str,
    tested: Sequence[HeadSet],
    nulls: Sequence[HeadSet],
    modes: Sequence[Mode],
    protocol: Protocol,
    bar: "tqdm[Any]",
) -> ClassErrors:
    """Errors of the intact model, the no-context optimum and every set under every mode, on the same prompts.

    Args:
        checkpoint: the model.
        name: function class.
        tested: sets for which everything is measured.
        nulls: sets of which only the total effect is needed, on the first `protocol.n_compared` prompts.
        modes: what removed components give.
        protocol: prompts, site, ranges, memory.
        bar: advances by one for every set and mode.

    A set that fails a self-check is left out, with the reason in `failed`.

    Raises:
        CheckError: a self-check failed for every tested set, or for a null set.
        UserError: a mode does not apply to this run.
    """
    mlps = any(component.number == MLP for one in (*tested, *nulls) for component in one)
    sweep = Sweep(checkpoint, name, modes, protocol, mlps=mlps)
    ((unvarying, failed),) = side_by_side(sweep.check, [tested])
    tested = [heads for heads in tested if heads not in failed]
    sweep.fit([*tested, *nulls])
    parts = side_by_side(lambda prompts: sweep.run(prompts, tested, nulls, bar), sweep.chunks())
    intact = [errors for errors, _ in parts]
    without: dict[str, dict[HeadSet, SetErrors]] = {mode.name: {} for mode in modes}
    for mode_name, one in parts[0][1]:
        without[mode_name][one] = joined([pieces[mode_name, one] for _, pieces in parts if (mode_name, one) in pieces])
    no_context = no_context_error(checkpoint.config, name, sweep.test).cpu().double().numpy() / sweep.unit
    difference, inexact = sweep.spot_check(without, tested)
    return ClassErrors(np.concatenate(intact), no_context, without, difference, unvarying, failed | inexact)


def measure(
    checkpoint: Checkpoint,
    classes: Sequence[str],
    tested: Sequence[HeadSet],
    nulls: Sequence[HeadSet],
    modes: Sequence[Mode],
    protocol: Protocol,
) -> dict[str, ClassErrors]:
    """By function class, the errors without every set under every mode; shows progress."""
    tested = list(dict.fromkeys(tested))
    nulls = [one for one in dict.fromkeys(nulls) if one not in set(tested)]
    total = len(classes) * len(modes) * (len(tested) + len(nulls))
    with progress_bar(total=total, desc="ablate", unit="set") as bar:
        return {name: class_errors(checkpoint, name, tested, nulls, modes, protocol, bar) for name in classes}


class SetCheckError(CheckError):
    """A self-check failed for every tested set, but not for the empty one."""


@dataclass(frozen=True)
class Chunk:
    """Some test prompts, run once.

    Attributes:
        prompts: which ones.
        ys: their answers.
        run: the intact model on them.
        given: by mode, what removed components give.
    """

    prompts: range
    ys: Float[Tensor, "batch point"]
    run: Trace
    given: Mapping[str, Substitutes]


class Sweep:
    """One class of one model under one protocol: prompts, references and the way to run a set on a chunk."""

    def __init__(
        self, checkpoint: Checkpoint, name: str, modes: Sequence[Mode], protocol: Protocol, *, mlps: bool = True
    ) -> None:
        """Prepare the prompts; with `mlps` MLPs can be removed, too."""
        config, n_prompts, seed = checkpoint.config, protocol.n_prompts, protocol.seed
        self.model, self.modes, self.protocol = checkpoint.model, modes, protocol
        self.unit = config.second_moment(name)
        self.test = evaluation_prompts(config, name, n_prompts=n_prompts, seed=seed).to(self.model.device)
        self.reference = reference_prompts(config, name, seed)
        self.partners = {
            mode.partner: partner_prompts(config, name, mode.partner, n_prompts, seed).to(self.model.device)
            for mode in modes
            if mode.partner is not None and mode.partner != "noise"
        }
        self.size, self.stack = pass_sizes(config.model, self.test.tokens.shape[1], len(self.partners), protocol)
        self.mlps = mlps
        known, n_wanted = reference_values(checkpoint, name, seed, protocol.site).moments, config.model.n_layers
        n_wanted *= 1 + mlps
        self.known = Moments(known.mean[:n_wanted], known.std[:n_wanted])
        self.fitted: dict[HeadSet, Substitutes] = {}
        tokens = None if protocol.tokens is None else protocol.tokens.tolist()  # a long tensor is not shown in full
        about = (name, n_prompts, REFERENCE_PROMPTS, seed, protocol.site, protocol.ranges, tokens)
        self.store = protocol.store if all(map(is_covered, made_by(config, name, modes))) else None
        self.context = context(checkpoint, *about) if self.store else ""

    def activations(self, tokens: Float[Tensor, "batch pos dim"]) -> list[Float[Tensor, "batch needed ..."]]:
        return activations(self.model, tokens, self.protocol.site, mlps=self.mlps)

    def run(
        self, prompts: range, tested: Sequence[HeadSet], nulls: Sequence[HeadSet], bar: "tqdm[Any]"
    ) -> tuple[Float[np.ndarray, "batch point"], dict[tuple[str, HeadSet], SetErrors]]:
        """The intact errors of a chunk, and the errors by mode and set."""
        chunk = self.chunk(prompts)
        pieces, n_compared = {}, self.protocol.n_compared
        if prompts.start >= n_compared:
            nulls = ()
        for mode in self.modes:
            for sets, full, n_prompts in ((tested, True, self.protocol.n_prompts), (nulls, False, n_compared)):
                for group in stackable(sets, self.stack):
                    for one, errors in zip(group, self.errors(chunk, mode, group, full), strict=True):
                        pieces[mode.name, one] = errors
                    bar.update(len(group) * len(prompts) / n_prompts)
        with torch.no_grad():
            intact = predictions_of(self.model, chunk.run)[None]
        return self.error(intact, chunk, EVERY)[0], pieces

    def chunks(self) -> Iterator[range]:
        """Parts of the prompts; those that all sets have in common come first, in chunks of their own."""
        for first, stop in pairwise((0, self.protocol.n_compared, self.protocol.n_prompts)):
            for start in range(first, stop, self.size):
                yield range(start, min(start + self.size, stop))

    def chunk(self, prompts: range) -> Chunk:
        rows = slice(prompts.start, prompts.stop)
        given = {mode.name: self.substitutes(mode, prompts) for mode in self.modes}
        return Chunk(prompts, self.test.ys[rows], trace(self.model, self.test.tokens[rows]), given)

    def substitutes(self, mode: Mode, prompts: range) -> Substitutes:
        partner, rows = None, slice(prompts.start, prompts.stop)
        if mode.partner == "noise":
            partner = normal_like(self.known.mean, prompts, self.protocol.seed)
        elif mode.partner is not None:
            partner = self.activations(self.partners[mode.partner].tokens[rows])
        return substitutes(self.model, mode, self.known, partner)

    def errors(self, chunk: Chunk, mode: Mode, group: Sequence[HeadSet], full: bool) -> list[SetErrors]:
        """The errors of each set of a group on a chunk, from the store where it has them."""
        store, about = self.store, f"{self.context}|{chunk.prompts}|{mode.name}|{full}"
        known = store.read(about, group) if store else {}
        missing = [one for one in group if one not in known]
        if missing:
            found = dict(zip(missing, self.measure(chunk, mode, missing, full), strict=True))
            if store:
                store.write(about, found)
            known |= found
        return [known[one] for one in group]

    def measure(self, chunk: Chunk, mode: Mode, group: Sequence[HeadSet], full: bool) -> list[SetErrors]:
        removed, given = self.removal(group), chunk.given[mode.name]
        if mode.fitted:
            given = self.constants(group)
        hull = self.protocol.hull
        if not full:
            totals = self.over_ranges(self.error(self.predict(chunk, removed, given, hull), chunk, hull), hull)
            return [SetErrors(total) for total in totals]
        total = self.error(self.predict(chunk, removed, given, EVERY), chunk, EVERY)
        with torch.no_grad():
            direct = direct_without(self.model, chunk.run, removed, given, points=hull)
        frozen = self.predict(chunk, removed, given, hull, freeze_ln=True)
        return [
            SetErrors(*parts, curve=curve)
            for *parts, curve in zip(
                self.over_ranges(total, EVERY),
                self.over_ranges(self.error(direct, chunk, hull), hull),
                self.over_ranges(self.error(frozen, chunk, hull), hull),
                total.sum(1) / self.protocol.n_prompts,
                strict=True,
            )
        ]

    def removal(self, group: Sequence[HeadSet]) -> Removal:
        return removal(self.model, group, self.protocol.site, self.protocol.tokens)

    @torch.no_grad()
    def predict(
        self, chunk: Chunk, removed: Removal, given: Substitutes, points: slice, *, freeze_ln: bool = False
    ) -> Float[Tensor, "variant batch point"]:
        return predict_without(self.model, chunk.run, removed, given, points=points, freeze_ln=freeze_ln)

    def error(
        self, predicted: Float[Tensor, "variant batch point"], chunk: Chunk, points: slice
    ) -> Float[np.ndarray, "variant batch point"]:
        return (predicted - chunk.ys[:, points]).square().double().cpu().numpy() / self.unit

    def over_ranges(
        self, errors: Float[np.ndarray, "variant batch point"], points: slice
    ) -> Float[np.ndarray, "variant batch range"]:
        start = points.start or 0
        return np.stack(
            [errors[:, :, one.start - start : one.stop - start].mean(2) for one in self.protocol.ranges], axis=2
        )

    def fit(self, sets: Sequence[HeadSet]) -> None:
        """The fitted constants of these sets, on reference prompts."""
        if not any(mode.fitted for mode in self.modes):
            return
        few = self.reference.head(FITTED).to(self.model.device)
        size = max(1, self.stack // 4)  # gradients keep every activation of the pass
        for part in progress_bar([*stackable(sets, size)], desc="fit constants", unit="pass", leave=False):
            site, tokens = self.protocol.site, self.protocol.tokens
            fitted = fit_constants(self.model, few, part, self.known, site=site, tokens=tokens)
            for place, one in enumerate(part):
                self.fitted[one] = Substitutes(*([own(given, place) for given in kind] for kind in fitted))

    def constants(self, group: Sequence[HeadSet]) -> Substitutes:
        """What was fitted to these sets, one variant each."""
        chosen = [self.fitted[one] for one in group]
        heads, mlps = ([list(layer) for layer in zip(*kind, strict=True)] for kind in zip(*chosen, strict=True))
        return Substitutes([torch.cat(layer) for layer in heads], [torch.cat(layer) for layer in mlps])

    def check(self, tested: Sequence[HeadSet]) -> tuple[dict[str, frozenset[Head]], dict[HeadSet, str]]:
        """Prove on a few prompts that removing what is tested acts, and acts only where it should.

        Returns:
            By mode, the components that it does not change (`interp.model.self_checks.check_removal`); the sets for
            which a check fails, with the reason.

        Raises:
            CheckError: a check fails whatever is removed, or only for all sets together.
            SetCheckError: a check fails for every set.
        """
        few = self.chunk(range(min(CHECKED, self.protocol.n_prompts)))
        tokens = self.test.tokens[: len(few.prompts)]

        def check(components: HeadSet) -> dict[str, frozenset[Head]]:
            return check_removal(self.model, tokens, components, few.given, self.protocol.site, self.protocol.tokens)

        try:
            return check(head_set(component for one in tested for component in one)), {}
        except CheckError:
            if failure_of(check, ()):
                raise
            failed = {heads: str(reason) for heads in tested if (reason := failure_of(check, heads))}
            passed = [heads for heads in tested if heads not in failed]
            if not failed:
                raise
            if not passed:
                raise SetCheckError(next(iter(failed.values()))) from None
            return check(head_set(component for heads in passed for component in heads)), failed

    def spot_check(
        self, without: Mapping[str, Mapping[HeadSet, SetErrors]], tested: Sequence[HeadSet]
    ) -> tuple[float, dict[HeadSet, str]]:
        """The sets that cost most, once more in float64 through the plain forward pass.

        Returns:
            The largest relative difference; the tested sets that differ by more than rounding, with the reason.

        Raises:
            CheckError: a null set differs by more than rounding.
            SetCheckError: every tested set does.
        """
        ranked = sorted(
            ((errors.total.mean(), mode, one) for mode, by_set in without.items() for one, errors in by_set.items()),
            key=lambda entry: -entry[0],
        )
        few = self.chunk(range(min(CHECKED, self.protocol.n_prompts)))
        tokens = self.test.tokens[: len(few.prompts)]
        modes = {mode.name: mode for mode in self.modes}

        def difference(entry: tuple[float, str, HeadSet]) -> float | CheckError:
            _, mode, one = entry
            given = self.constants([one]) if modes[mode].fitted else few.given[mode]
            what = f"{mode} ablation of {show(one)}"
            try:
                return spot_check(self.model, tokens, one, given, self.protocol.site, self.protocol.tokens, what)
            except CheckError as failure:
                return failure

        differences = side_by_side(difference, ranked[:3])
        failed: dict[HeadSet, str] = {}
        for (_, _, heads), outcome in zip(ranked, differences, strict=False):
            if isinstance(outcome, CheckError):
                failed.setdefault(heads, str(outcome))
                if heads not in tested:
                    raise outcome
                if len(failed) == len(tested):
                    raise SetCheckError(str(outcome))
        return max((outcome for outcome in differences if isinstance(outcome, float)), default=0.0), failed


def failure_of(check: Callable[[HeadSet], object], heads: HeadSet) -> CheckError | None:
    """Why a check refuses a set; None where it does not."""
    try:
        check(heads)
    except CheckError as failure:
        return failure
    return None


def own(given: Float[Tensor, "#variant ..."], place: int) -> Float[Tensor, "1 ..."]:
    """One variant's part of what several give."""
    return given[place : place + 1] if len(given) > 1 else given


def stackable(sets: Sequence[HeadSet], most: int) -> Iterator[list[HeadSet]]:
    """Sets that share their first layer and their size, so that they can be run in one pass."""
    groups: dict[tuple[int, int], list[HeadSet]] = {}
    for one in sets:
        first = min((component.layer for component in one), default=-1)
        groups.setdefault((first, sum(component.layer == first for component in one)), []).append(one)
    for group in groups.values():
        for start in range(0, len(group), most):
            yield group[start : start + most]


def made_by(config: RunConfig, name: str, modes: Sequence[Mode]) -> list[object]:
    """The classes and functions behind the prompts of a class and what is put in a removed component's place."""
    classes = {name, *config.evaluated_classes}  # `resample:class` takes its partners from another one
    drawn = [*map(function_class, classes), input_distribution(config.data.inputs[0])]
    return [*map(type, drawn), *(mode.replacement for mode in modes)]


def pass_sizes(config: ModelConfig, n_tokens: int, n_partners: int, protocol: Protocol) -> tuple[int, int]:
    """(prompts in a chunk, sets in a pass) that keep activations within the memory limit, and every core busy.

    A chunk keeps two activations of width d_model per layer for its trace and four for each partner; a pass needs about
    twenty of them (q, k, v, z, two of the MLP's width and the stream with its copies). As many chunks run side by side
    as there are threads (`interp.model.parallel`).
    """
    n_workers = torch.get_num_threads()
    memory, width = protocol.memory // n_workers, 4 * n_tokens * config.d_model
    kept, needed = width * config.n_layers * (4 + 4 * n_partners), 20 * width
    rows = max(1, PASS // (4 * width))  # the MLP is four times as wide
    prompts = evened(protocol.n_compared, max(1, min(CHUNK, rows // 2, memory // (kept + needed))), n_workers)
    return prompts, max(1, min(rows // prompts, (memory - prompts * kept) // (prompts * needed)))


def evened(n_prompts: int, most: int, n_workers: int) -> int:
    """The size of chunks, at most `most`, that leaves no worker with much less to do than another.

    >>> evened(1024, 128, 2), evened(16, 5, 2), evened(10, 128, 4)
    (128, 4, 3)
    """
    rounds = math.ceil(n_prompts / (n_workers * most))
    return math.ceil(n_prompts / (n_workers * rounds))

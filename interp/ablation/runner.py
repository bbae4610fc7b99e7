"""Removes every head set under every mode on the prompts of a function class, and keeps the error of each prompt.

1. Reference prompts give the constants, partner prompts the resampled values (`interp.ablation.reference_activations`).
2. Test prompts are processed in chunks; each chunk is traced once, and all sets and modes share the trace.
3. Sets with the same first layer are stacked into one pass, as many as the memory limit allows.
4. With a store (`interp.ablation.store`) every finished piece is kept, so that an interrupted ablation resumes.
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

from interp.ablation.errors import ClassErrors, SetErrors, join_chunks
from interp.ablation.modes import Mode
from interp.ablation.optimal import FITTED, fit_constants
from interp.ablation.reference_activations import (
    REFERENCE_PROMPTS,
    Moments,
    activations,
    partner_prompts,
    reference_prompts,
    reference_values,
    replacement_values,
    standard_normal_like,
)
from interp.ablation.store import Store, is_covered, shared_key
from interp.model.engine import (
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
from interp.model.parallel import map_parts
from interp.model.self_checks import CHECKED, check_removal, spot_check
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import CheckError
from training.common.progress import progress_bar
from training.config.config import ModelConfig, RunConfig
from training.evaluation.evaluate import evaluation_prompts, no_context_error
from training.evaluation.own_run import OwnRun
from training.model.transformer import EVERY
from training.options import DEFAULT_MEMORY
from training.tasks.function_classes import function_class as find_class
from training.tasks.inputs import input_distribution

CHUNK = 128  # prompts
PASS = 8 * 2**20  # bytes of a pass's widest activation: larger ones leave the caches, smaller ones cost calls


@dataclass(frozen=True)
class AblationProtocol:
    """How errors are measured.

    Attributes:
        n_prompts: per function class.
        seed: of the prompts.
        ranges: of pairs, over which errors are averaged.
        site: of heads, see `interp.model.engine.SITES`.
        tokens: at which components are removed; None is all.
        memory: bytes that activations may take, on all threads together.
        store: keeps finished pieces; None keeps nothing.
        n_null_prompts: on how many of the prompts, the first ones, control sets are measured; None is all.
        total_only: leave out what `SetErrors` holds beside `total`, which takes two thirds of the time.
    """

    n_prompts: int
    seed: int
    ranges: tuple[slice, ...]
    site: Site = "z"
    tokens: Bool[Tensor, " pos"] | None = field(default=None, repr=False)
    memory: int = DEFAULT_MEMORY
    store: Store | None = None
    n_null_prompts: int | None = None
    total_only: bool = False

    @property
    def n_shared_prompts(self) -> int:
        """On how many prompts all sets are measured."""
        return min(self.n_prompts, self.n_null_prompts or self.n_prompts)

    @property
    def span(self) -> slice:
        """The pairs from the first to the last that any range contains."""
        return slice(min(points.start for points in self.ranges), max(points.stop for points in self.ranges))


class SetCheckError(CheckError):
    """A self-check failed for every tested set or for a control set, but not for the empty one."""


def measure(
    checkpoint: Checkpoint,
    classes: Sequence[str],
    tested: Sequence[HeadSet],
    controls: Sequence[HeadSet],
    modes: Sequence[Mode],
    protocol: AblationProtocol,
) -> dict[str, ClassErrors]:
    """`class_errors` of every function class, each set once, with one progress bar."""
    tested = list(dict.fromkeys(tested))
    controls = [heads for heads in dict.fromkeys(controls) if heads not in set(tested)]
    total = len(classes) * len(modes) * (len(tested) + len(controls))
    with progress_bar(total=total, desc="ablate", unit="set") as bar:
        return {name: class_errors(checkpoint, name, tested, controls, modes, protocol, bar) for name in classes}


def class_errors(
    checkpoint: Checkpoint,
    function_class: str,
    tested: Sequence[HeadSet],
    controls: Sequence[HeadSet],
    modes: Sequence[Mode],
    protocol: AblationProtocol,
    bar: "tqdm[Any]",
) -> ClassErrors:
    """Errors of the intact model, of the no-context optimum and of every set under every mode, on the same prompts.

    A set that fails a self-check is left out, with the reason in `failed`.

    Args:
        checkpoint: the model.
        function_class: of the prompts.
        tested: sets for which everything is measured.
        controls: sets of which only the total effect is needed, on the first `protocol.n_shared_prompts` prompts.
        modes: of the ablations.
        protocol: prompts, site, ranges, memory.
        bar: advances by one for every set and mode.

    Raises:
        CheckError: a self-check failed for every tested set, or for a control set.
        UserError: a mode does not apply to this run.
    """
    mlps = any(component.number == MLP for heads in (*tested, *controls) for component in heads)
    runner = AblationRunner(checkpoint, function_class, modes, protocol, mlps=mlps)
    ((unvarying, failed),) = map_parts(runner.check, [tested])
    tested = [heads for heads in tested if heads not in failed]
    runner.fit([*tested, *controls])
    parts = map_parts(lambda prompts: runner.run(prompts, tested, controls, bar), runner.chunks())
    intact = np.concatenate([errors for errors, _ in parts])
    ablated: dict[str, dict[HeadSet, SetErrors]] = {mode.name: {} for mode in modes}
    for key in parts[0][1]:
        mode_name, heads = key
        ablated[mode_name][heads] = join_chunks([pieces[key] for _, pieces in parts if key in pieces])
    no_context = no_context_error(checkpoint.config, function_class, runner.test).cpu().double().numpy() / runner.unit
    difference, inexact = runner.spot_check(ablated, tested)
    return ClassErrors(intact, no_context, ablated, difference, unvarying, failed | inexact)


@dataclass(frozen=True)
class Chunk:
    """Some test prompts, run once.

    Attributes:
        prompts: their indices.
        ys: their answers.
        trace: of the intact model on them.
        replacements: by mode, the replacement values of all components.
    """

    prompts: range
    ys: Float[Tensor, "batch point"]
    trace: Trace
    replacements: Mapping[str, Substitutes]


class AblationRunner:
    """Ablations of one model on one function class under one protocol, a chunk of prompts at a time."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        function_class: str,
        modes: Sequence[Mode],
        protocol: AblationProtocol,
        *,
        mlps: bool = True,
    ) -> None:
        """Prepare the prompts; with `mlps` MLPs can be removed, too."""
        config, n_prompts, seed = checkpoint.config, protocol.n_prompts, protocol.seed
        self.model, self.modes, self.protocol, self.mlps = checkpoint.model, modes, protocol, mlps
        self.unit = config.second_moment(function_class)
        self.test = evaluation_prompts(config, function_class, n_prompts=n_prompts, seed=seed).to(self.model.device)
        self.reference = reference_prompts(config, function_class, seed)
        self.partners = {
            mode.partner: partner_prompts(config, function_class, mode.partner, n_prompts, seed).to(self.model.device)
            for mode in modes
            if mode.partner is not None and mode.partner != "noise"
        }
        self.chunk_size, self.pass_size = pass_sizes(
            config.model, self.test.tokens.shape[1], len(self.partners), protocol
        )
        moments = reference_values(checkpoint, function_class, seed, protocol.site).moments
        n_values = config.model.n_layers * (1 + mlps)
        self.moments = Moments(moments.mean[:n_values], moments.std[:n_values])
        self.fitted: dict[HeadSet, Substitutes] = {}
        tokens = None if protocol.tokens is None else protocol.tokens.tolist()  # repr of a long tensor is abbreviated
        settings = (function_class, n_prompts, REFERENCE_PROMPTS, seed, protocol.site, protocol.ranges, tokens)
        self.store = protocol.store if is_reproducible(config, function_class, modes) else None
        self.store_key = shared_key(checkpoint, *settings) if self.store else ""

    def run(
        self, prompts: range, tested: Sequence[HeadSet], controls: Sequence[HeadSet], bar: "tqdm[Any]"
    ) -> tuple[Float[np.ndarray, "batch point"], dict[tuple[str, HeadSet], SetErrors]]:
        """The intact errors on a chunk, and the errors by mode and set."""
        chunk = self.trace_chunk(prompts)
        pieces, n_shared = {}, self.protocol.n_shared_prompts
        if prompts.start >= n_shared:
            controls = ()
        for mode in self.modes:
            for sets, full, n_prompts in (
                (tested, not self.protocol.total_only, self.protocol.n_prompts),
                (controls, False, n_shared),
            ):
                for group in group_by_first_layer(sets, self.pass_size):
                    for heads, errors in zip(group, self.group_errors(chunk, mode, group, full), strict=True):
                        pieces[mode.name, heads] = errors
                    bar.update(len(group) * len(prompts) / n_prompts)
        with torch.no_grad():
            intact = predictions_of(self.model, chunk.trace)[None]
        return self.squared_errors(intact, chunk, EVERY)[0], pieces

    def chunks(self) -> Iterator[range]:
        """Parts of the prompts; those on which all sets are measured come first, in chunks of their own."""
        for start, stop in pairwise((0, self.protocol.n_shared_prompts, self.protocol.n_prompts)):
            for first in range(start, stop, self.chunk_size):
                yield range(first, min(first + self.chunk_size, stop))

    def trace_chunk(self, prompts: range) -> Chunk:
        rows = slice(prompts.start, prompts.stop)
        replacements = {mode.name: self.replacements(mode, prompts) for mode in self.modes}
        return Chunk(prompts, self.test.ys[rows], trace(self.model, self.test.tokens[rows]), replacements)

    def replacements(self, mode: Mode, prompts: range) -> Substitutes:
        """The replacement values of all components on these prompts."""
        partner = None
        if mode.partner == "noise":
            partner = standard_normal_like(self.moments.mean, prompts, self.protocol.seed)
        elif mode.partner is not None:
            tokens = self.partners[mode.partner].tokens[prompts.start : prompts.stop]
            partner = activations(self.model, tokens, self.protocol.site, mlps=self.mlps)
        return replacement_values(self.model, mode, self.moments, partner)

    def group_errors(self, chunk: Chunk, mode: Mode, group: Sequence[HeadSet], full: bool) -> list[SetErrors]:
        """The errors of each set of a group on a chunk, from the store where it has them."""
        if self.store is None:
            return self.measure_group(chunk, mode, group, full)
        key = f"{self.store_key}|{chunk.prompts}|{mode.name}|{full}"
        errors = self.store.read(key, group)
        missing = [heads for heads in group if heads not in errors]
        if missing:
            measured = dict(zip(missing, self.measure_group(chunk, mode, missing, full), strict=True))
            self.store.write(key, measured)
            errors |= measured
        return [errors[heads] for heads in group]

    @torch.no_grad()
    def measure_group(self, chunk: Chunk, mode: Mode, group: Sequence[HeadSet], full: bool) -> list[SetErrors]:
        """The errors of each set of a group on a chunk; only the total effect unless `full`."""
        model, span = self.model, self.protocol.span
        removed = removal(model, group, self.protocol.site, self.protocol.tokens)
        values = self.join_fitted(group) if mode.fitted else chunk.replacements[mode.name]
        points = EVERY if full else span
        predicted = predict_without(model, chunk.trace, removed, values, points=points)
        total = self.squared_errors(predicted, chunk, points)
        totals = self.mean_over_ranges(total, points)
        if not full:
            return [SetErrors(errors) for errors in totals]
        change = predicted - predictions_of(model, chunk.trace)
        moved = self.mean_over_ranges(change.square().double().cpu().numpy() / self.unit, points)
        direct = direct_without(model, chunk.trace, removed, values, points=span)
        frozen = predict_without(model, chunk.trace, removed, values, points=span, freeze_ln=True)
        return [
            SetErrors(*errors)
            for errors in zip(
                totals,
                self.mean_over_ranges(self.squared_errors(direct, chunk, span), span),
                self.mean_over_ranges(self.squared_errors(frozen, chunk, span), span),
                total.sum(1) / self.protocol.n_prompts,
                moved,
                strict=True,
            )
        ]

    def squared_errors(
        self, predicted: Float[Tensor, "variant batch point"], chunk: Chunk, points: slice
    ) -> Float[np.ndarray, "variant batch point"]:
        return (predicted - chunk.ys[:, points]).square().double().cpu().numpy() / self.unit

    def mean_over_ranges(
        self, errors: Float[np.ndarray, "variant batch point"], points: slice
    ) -> Float[np.ndarray, "variant batch range"]:
        start = points.start or 0
        return np.stack([errors[:, :, r.start - start : r.stop - start].mean(2) for r in self.protocol.ranges], axis=2)

    def fit(self, sets: Sequence[HeadSet]) -> None:
        """Fit the constants of these sets on reference prompts, if a mode needs them."""
        if not any(mode.fitted for mode in self.modes):
            return
        prompts = self.reference.head(FITTED).to(self.model.device)
        size = max(1, self.pass_size // 4)  # gradients keep every activation of the pass
        for group in progress_bar([*group_by_first_layer(sets, size)], desc="fit constants", unit="pass", leave=False):
            site, tokens = self.protocol.site, self.protocol.tokens
            fitted = fit_constants(self.model, prompts, group, self.moments, site=site, tokens=tokens)
            for variant, heads in enumerate(group):
                self.fitted[heads] = Substitutes(
                    *([variant_slice(layer, variant) for layer in layers] for layers in fitted)
                )

    def join_fitted(self, group: Sequence[HeadSet]) -> Substitutes:
        """The constants fitted to these sets, one variant each."""
        by_set = [self.fitted[heads] for heads in group]
        heads, mlps = ([torch.cat(layer) for layer in zip(*kind, strict=True)] for kind in zip(*by_set, strict=True))
        return Substitutes(heads, mlps)

    def check(self, tested: Sequence[HeadSet]) -> tuple[dict[str, frozenset[Head]], dict[HeadSet, str]]:
        """Prove on a few prompts that removing the tested sets acts, and acts only where it should.

        Returns:
            By mode, the components that it does not change (`interp.model.self_checks.check_removal`); the sets for
            which a check fails, with the reason.

        Raises:
            CheckError: a check fails whatever is removed, or only for all sets together.
            SetCheckError: a check fails for every set.
        """
        chunk, tokens = self.checked_prompts()

        def check(components: HeadSet) -> dict[str, frozenset[Head]]:
            site, at = self.protocol.site, self.protocol.tokens
            return check_removal(self.model, tokens, components, chunk.replacements, site, at)

        try:
            return check(head_set(component for heads in tested for component in heads)), {}
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

    def checked_prompts(self) -> tuple[Chunk, Float[Tensor, "batch pos dim"]]:
        """The first `CHECKED` prompts, and their tokens."""
        chunk = self.trace_chunk(range(min(CHECKED, self.protocol.n_prompts)))
        return chunk, self.test.tokens[: len(chunk.prompts)]

    def spot_check(
        self, ablated: Mapping[str, Mapping[HeadSet, SetErrors]], tested: Sequence[HeadSet]
    ) -> tuple[float, dict[HeadSet, str]]:
        """Repeat the ablations that cost most in float64, through the plain forward pass.

        Returns:
            The largest relative difference; the tested sets that differ by more than rounding, with the reason.

        Raises:
            SetCheckError: every tested set differs by more than rounding, or a control set does, without which the null
                would be too small: it is among those that cost most.
        """
        ranked = sorted(
            ((mode, heads) for mode, by_set in ablated.items() for heads in by_set),
            key=lambda ablation: -ablated[ablation[0]][ablation[1]].total.mean(),
        )[:3]
        chunk, tokens = self.checked_prompts()
        modes = {mode.name: mode for mode in self.modes}

        def difference(ablation: tuple[str, HeadSet]) -> float | CheckError:
            mode, heads = ablation
            values = self.join_fitted([heads]) if modes[mode].fitted else chunk.replacements[mode]
            label = f"{mode} ablation of {show(heads)}"
            try:
                return spot_check(self.model, tokens, heads, values, self.protocol.site, self.protocol.tokens, label)
            except CheckError as failure:
                return failure

        differences = map_parts(difference, ranked)
        failed: dict[HeadSet, str] = {}
        for (_, heads), outcome in zip(ranked, differences, strict=True):
            if isinstance(outcome, CheckError):
                failed.setdefault(heads, str(outcome))
                if heads not in tested or len(failed) == len(tested):
                    raise SetCheckError(str(outcome))
        return max((outcome for outcome in differences if isinstance(outcome, float)), default=0.0), failed


def failure_of(check: Callable[[HeadSet], object], heads: HeadSet) -> CheckError | None:
    """The error that a check raises for a set; None if it passes."""
    try:
        check(heads)
    except CheckError as failure:
        return failure
    return None


def variant_slice(values: Float[Tensor, "#variant ..."], variant: int) -> Float[Tensor, "1 ..."]:
    return values[variant : variant + 1] if len(values) > 1 else values


def group_by_first_layer(sets: Sequence[HeadSet], most: int) -> Iterator[list[HeadSet]]:
    """At most `most` sets at a time that share their first layer and their size there: they can be run in one pass."""
    groups: dict[tuple[int, int], list[HeadSet]] = {}
    for heads in sets:
        first = min((component.layer for component in heads), default=-1)
        groups.setdefault((first, sum(component.layer == first for component in heads)), []).append(heads)
    for group in groups.values():
        for start in range(0, len(group), most):
            yield group[start : start + most]


def is_reproducible(config: RunConfig, function_class: str, modes: Sequence[Mode]) -> bool:
    """Whether all code behind prompts and replacement values is in these packages, so that a store may keep errors.

    Prompts of a user's own are no code: nothing is kept of them.
    """
    if isinstance(config, OwnRun):
        return False
    classes = {function_class, *config.evaluated_classes}  # `resample:class` takes its partners from another one
    sources = [*map(find_class, classes), input_distribution(config.data.inputs[0])]
    return all(map(is_covered, [*map(type, sources), *(mode.replacement for mode in modes)]))


def pass_sizes(config: ModelConfig, n_tokens: int, n_partners: int, protocol: AblationProtocol) -> tuple[int, int]:
    """(prompts in a chunk, sets in a pass) that keep activations within the memory limit, and every core busy.

    A chunk keeps two activations of width d_model per layer for its trace and four for each partner; a pass needs about
    twenty of them (q, k, v, z, two of the MLP's width and the stream with its copies). As many chunks run side by side
    as there are threads (`interp.model.parallel`).
    """
    n_workers = torch.get_num_threads()
    memory, width = protocol.memory // n_workers, 4 * n_tokens * config.d_model
    kept, needed = width * config.n_layers * (4 + 4 * n_partners), 20 * width
    rows = max(1, PASS // (4 * width))  # the MLP is four times as wide
    most = max(1, min(CHUNK, rows // 2, memory // (kept + needed)))
    prompts = balanced_chunk_size(protocol.n_shared_prompts, most, n_workers)
    return prompts, max(1, min(rows // prompts, (memory - prompts * kept) // (prompts * needed)))


def balanced_chunk_size(n_prompts: int, most: int, n_workers: int) -> int:
    """The size of chunks, at most `most`, that gives all workers about equally many prompts.

    >>> balanced_chunk_size(1024, 128, 2), balanced_chunk_size(16, 5, 2), balanced_chunk_size(10, 128, 4)
    (128, 4, 3)
    """
    rounds = math.ceil(n_prompts / (n_workers * most))
    return math.ceil(n_prompts / (n_workers * rounds))

"""Squared errors of intact and ablated models on the same prompts, and the effects that follow from them.

Nothing here knows the model: whatever fills `ClassErrors` is judged in the same way.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from interp.model.heads import Head, HeadSet, show
from interp.model.positions import show_points
from interp.statistics.effects import TIE, UNDEFINED, Effect, effect_resamples, paired_effects
from training.common.bootstrap import bootstrap_weights
from training.config.config import stream_seed

NOTE = "the output of "
FULL = ("direct", "frozen", "moved")
"""What is measured for sets under test only."""


@dataclass(frozen=True)
class SetErrors:
    """Squared errors over E[y²] with one head set removed under one mode.

    Attributes:
        total: averaged over each range of pairs; later components react to the removal.
        direct: the same, if only what the set itself writes into the final residual stream changes; None for control
            sets.
        frozen: as `total`, with every later LayerNorm's scale as in the intact run; None for control sets.
        curve: by number of examples, averaged over prompts; None for control sets.
        moved: squared differences of the predictions from the intact model's over E[y²], averaged as `total` is; None
            for control sets.
    """

    total: Float[np.ndarray, "prompt range"]
    direct: Float[np.ndarray, "prompt range"] | None = None
    frozen: Float[np.ndarray, "prompt range"] | None = None
    curve: Float[np.ndarray, " point"] | None = None
    moved: Float[np.ndarray, "prompt range"] | None = None


@dataclass(frozen=True)
class ClassErrors:
    """Squared errors over E[y²] on the prompts of one function class.

    Attributes:
        intact: of the intact model.
        no_context: of the no-context optimum.
        ablated: by mode and removed head set.
        spot_check: largest relative difference between predictions in float32 and in float64, among the sets that cost
            most.
        unvarying: by mode, the components whose output already equals the mode's replacement value.
        failed: the sets for which a self-check failed, with the reason; their errors must not be used.
    """

    intact: Float[np.ndarray, "prompt point"]
    no_context: Float[np.ndarray, "prompt point"]
    ablated: Mapping[str, Mapping[HeadSet, SetErrors]]
    spot_check: float
    unvarying: Mapping[str, frozenset[Head]] = field(default_factory=dict)
    failed: Mapping[HeadSet, str] = field(default_factory=dict)


def merge_notes(notes: Iterable[str]) -> list[str]:
    """Notes (`ErrorSlice.note`) that give the same reason for different heads, in one note for each reason.

    >>> merge_notes([f"the output of {head} does not vary, so nothing changes" for head in ("0.1", "0.2")])
    ['the output of 0.1, 0.2 does not vary, so nothing changes']
    """
    heads_by_reason: dict[str, dict[str, None]] = {}
    for note in filter(None, notes):
        heads, _, reason = note.removeprefix(NOTE).partition(" ")
        heads_by_reason.setdefault(reason, {})[heads] = None
    return [f"{NOTE}{', '.join(heads)} {reason}" for reason, heads in heads_by_reason.items()]


def failed_sets(errors: Mapping[str, ClassErrors]) -> dict[HeadSet, str]:
    """The sets for which a self-check failed on any class, with the first reason."""
    failed: dict[HeadSet, str] = {}
    for class_errors in errors.values():
        failed = {**class_errors.failed, **failed}
    return failed


def join_chunks(parts: Sequence[SetErrors]) -> SetErrors:
    """The errors of one set on all prompts from those on each chunk of them."""
    total = np.concatenate([part.total for part in parts])
    if parts[0].direct is None:
        return SetErrors(total)
    direct, frozen, moved = (np.concatenate([getattr(part, kind) for part in parts]) for kind in FULL)
    curve = np.stack([part.curve for part in parts if part.curve is not None]).sum(0)
    return SetErrors(total, direct, frozen, curve, moved)


@dataclass(frozen=True)
class ErrorSlice:
    """The errors on one function class, under one mode, averaged over one range of pairs.

    Attributes:
        errors: of the function class.
        function_class: its name.
        mode: of the ablations.
        range_index: of the range among the measured ones.
        points: the range of pairs.
        weights: bootstrap resamples of prompts, the same for all slices of a class.
    """

    errors: ClassErrors
    function_class: str
    mode: str
    range_index: int
    points: slice
    weights: Float[np.ndarray, "resample prompt"]

    @property
    def labels(self) -> dict[str, str]:
        return {"function_class": self.function_class, "mode": self.mode, "points": show_points(self.points)}

    @property
    def intact(self) -> Float[np.ndarray, " prompt"]:
        return self.errors.intact[:, self.points].mean(1)

    @property
    def no_context(self) -> Float[np.ndarray, " prompt"]:
        return self.errors.no_context[:, self.points].mean(1)

    def ablated(self, removed: HeadSet, kind: str = "total") -> Float[np.ndarray, " prompt"]:
        return getattr(self.errors.ablated[self.mode][removed], kind)[:, self.range_index]

    def note(self, removed: HeadSet, effect: Effect) -> str:
        """Which components of a set the mode leaves unchanged, if any."""
        unvarying = tuple(head for head in removed if head in self.errors.unvarying.get(self.mode, ()))
        if not unvarying or (len(unvarying) == len(removed) and abs(effect.value) > TIE):
            return ""
        reason = {"zero": "is zero", "uniform": "is that of uniform attention"}.get(self.mode, "does not vary")
        return f"{NOTE}{show(unvarying)} {reason}, so {self.mode} ablation leaves it unchanged"

    def effects(self, sets: Iterable[HeadSet], kind: str = "total") -> list[Effect]:
        """The effect of removing each set, with its interval; undefined for a kind that was not measured.

        Of the kind `moved` it is the mean squared change of the predictions over the in-context gain.
        """
        sets = list(sets)
        if any(getattr(self.errors.ablated[self.mode][removed], kind) is None for removed in sets):
            return [UNDEFINED for _ in sets]
        ablated = np.stack([self.ablated(removed, kind) for removed in sets])
        if kind == "moved":
            ablated = self.intact + ablated
        return paired_effects(ablated, self.intact, self.no_context, self.weights)

    def resamples(self, sets: Iterable[HeadSet]) -> Float[np.ndarray, "resample set"] | None:
        """Bootstrap resamples of the effects; None where the intact model has no clear in-context gain."""
        ablated = np.stack([self.ablated(removed) for removed in sets])
        return effect_resamples(ablated, self.intact, self.no_context, self.weights)

    def mean_effects(self, sets: Sequence[HeadSet]) -> Float[np.ndarray, " set"]:
        """Effects without intervals: losses on the prompts that all these sets share, over the gain on all prompts."""
        n_shared = self.n_shared_prompts(sets)
        losses = [self.ablated(removed)[:n_shared].mean() - self.intact[:n_shared].mean() for removed in sets]
        return np.array(losses) / (self.no_context - self.intact).mean()

    def n_shared_prompts(self, sets: Iterable[HeadSet]) -> int:
        """On how many prompts, the first ones, all these sets were measured."""
        return min((len(self.ablated(removed)) for removed in sets), default=len(self.intact))

    def effects_on_shared_prompts(
        self, total: Effect, removed: HeadSet, controls: Sequence[HeadSet]
    ) -> tuple[Effect, Float[np.ndarray, " set"]]:
        """The effect of a set (`total` on all prompts) on the prompts of its control sets, and their effects."""
        if not total.defined:
            return UNDEFINED, np.full(len(controls), np.nan)
        effect, *control_effects = self.mean_effects([removed, *controls])
        n_times_fewer = len(self.intact) / self.n_shared_prompts([removed, *controls])
        standard_error = total.standard_error * math.sqrt(n_times_fewer)
        return Effect(float(effect), math.nan, math.nan, standard_error), np.array(control_effects)


def error_slices(errors: Mapping[str, ClassErrors], ranges: Sequence[slice], seed: int) -> Iterator[ErrorSlice]:
    """A slice for every function class, mode and range of pairs."""
    for function_class, class_errors in errors.items():
        rng = np.random.default_rng(stream_seed("bootstrap", seed, function_class))
        weights = bootstrap_weights(len(class_errors.intact), rng)
        for mode in class_errors.ablated:
            for range_index, points in enumerate(ranges):
                yield ErrorSlice(class_errors, function_class, mode, range_index, points, weights)

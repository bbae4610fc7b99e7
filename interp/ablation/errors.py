"""What a sweep measures, and the effects that follow from it."""

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


@dataclass(frozen=True)
class SetErrors:
    """Squared errors over E[y²] without one set under one mode.

    Attributes:
        total: averaged over each range of pairs; the other components react.
        direct: the same when only the set's own writing into the final residual stream changes; None for null sets.
        frozen: as `total`, with every later LayerNorm's scale as in the intact run; None for null sets.
        curve: of each number of examples, averaged over prompts; None for null sets.
    """

    total: Float[np.ndarray, "prompt range"]
    direct: Float[np.ndarray, "prompt range"] | None = None
    frozen: Float[np.ndarray, "prompt range"] | None = None
    curve: Float[np.ndarray, " point"] | None = None


@dataclass(frozen=True)
class ClassErrors:
    """Squared errors on one class, over E[y²].

    Attributes:
        intact: with all components.
        no_context: of the no-context optimum.
        without: by mode and set of removed components.
        spot_check: largest relative difference between the predictions in float32 and in float64 among the sets that
            cost most.
        unvarying: by mode, the components whose output is already what the mode puts in its place.
        failed: the sets for which a self-check failed, with the reason; their errors are not to be used.
    """

    intact: Float[np.ndarray, "prompt point"]
    no_context: Float[np.ndarray, "prompt point"]
    without: Mapping[str, Mapping[HeadSet, SetErrors]]
    spot_check: float
    unvarying: Mapping[str, frozenset[Head]] = field(default_factory=dict)
    failed: Mapping[HeadSet, str] = field(default_factory=dict)


def failed_sets(errors: Mapping[str, ClassErrors]) -> dict[HeadSet, str]:
    """The sets for which a self-check failed on any class, with the first reason."""
    failed: dict[HeadSet, str] = {}
    for of_class in errors.values():
        failed = {**of_class.failed, **failed}
    return failed


def joined(parts: Sequence[SetErrors]) -> SetErrors:
    """The chunks of one set put together."""
    total = np.concatenate([part.total for part in parts])
    if parts[0].direct is None:
        return SetErrors(total)
    direct, frozen = (np.concatenate([getattr(part, name) for part in parts]) for name in ("direct", "frozen"))
    return SetErrors(total, direct, frozen, np.stack([part.curve for part in parts if part.curve is not None]).sum(0))


@dataclass(frozen=True)
class Cell:
    """One function class under one mode over one range of pairs.

    Attributes:
        errors: of the class.
        function_class: its name.
        mode: what removed components gave.
        place: of the range among those measured.
        points: the range.
        weights: bootstrap resamples of prompts, the same for everything of the class.
    """

    errors: ClassErrors
    function_class: str
    mode: str
    place: int
    points: slice
    weights: Float[np.ndarray, "resample prompt"]

    @property
    def about(self) -> dict[str, str]:
        return {"function_class": self.function_class, "mode": self.mode, "points": show_points(self.points)}

    @property
    def intact(self) -> Float[np.ndarray, " prompt"]:
        return self.errors.intact[:, self.points].mean(1)

    @property
    def no_context(self) -> Float[np.ndarray, " prompt"]:
        return self.errors.no_context[:, self.points].mean(1)

    def without(self, removed: HeadSet, kind: str = "total") -> Float[np.ndarray, " prompt"]:
        return getattr(self.errors.without[self.mode][removed], kind)[:, self.place]

    def note(self, removed: HeadSet, effect: Effect) -> str:
        """Which components of a set the mode leaves as they are, if any."""
        unvarying = tuple(one for one in removed if one in self.errors.unvarying.get(self.mode, ()))
        if not unvarying or (len(unvarying) == len(removed) and abs(effect.value) > TIE):
            return ""
        reason = {"zero": "is zero", "uniform": "is that of uniform attention"}.get(self.mode, "does not vary")
        return f"the output of {show(unvarying)} {reason}, so {self.mode} ablation leaves it unchanged"

    def effects(self, removed: Iterable[HeadSet], kind: str = "total") -> list[Effect]:
        """With intervals."""
        ablated = np.stack([self.without(one, kind) for one in removed])
        return paired_effects(ablated, self.intact, self.no_context, self.weights)

    def resamples(self, removed: Iterable[HeadSet]) -> Float[np.ndarray, "resample set"] | None:
        """Of effects; None where the intact model has no clear in-context gain."""
        ablated = np.stack([self.without(one) for one in removed])
        return effect_resamples(ablated, self.intact, self.no_context, self.weights)

    def mean_effects(self, removed: Sequence[HeadSet]) -> Float[np.ndarray, " set"]:
        """Without intervals: the loss on the prompts that these sets have in common, over the gain on all prompts."""
        n_prompts = self.n_compared(removed)
        losses = [self.without(one)[:n_prompts].mean() - self.intact[:n_prompts].mean() for one in removed]
        return np.array(losses) / (self.no_context - self.intact).mean()

    def n_compared(self, removed: Iterable[HeadSet]) -> int:
        """How many prompts these sets have in common."""
        return min((len(self.without(one)) for one in removed), default=len(self.intact))

    def compared(
        self, total: Effect, removed: HeadSet, others: Sequence[HeadSet]
    ) -> tuple[Effect, Float[np.ndarray, " set"]]:
        """The effect of a set (`total` on all prompts) on those that others were measured on, and theirs."""
        if not total.defined:
            return UNDEFINED, np.full(len(others), np.nan)
        own, *effects = self.mean_effects([removed, *others])
        n_times_fewer = len(self.intact) / self.n_compared([removed, *others])
        standard_error = total.standard_error * math.sqrt(n_times_fewer)
        return Effect(float(own), math.nan, math.nan, standard_error), np.array(effects)


def cells(errors: Mapping[str, ClassErrors], ranges: Sequence[slice], seed: int) -> Iterator[Cell]:
    """Every class, mode and range."""
    for name, of_class in errors.items():
        rng = np.random.default_rng(stream_seed("bootstrap", seed, name))
        weights = bootstrap_weights(len(of_class.intact), rng)
        for mode in of_class.without:
            for place, points in enumerate(ranges):
                yield Cell(of_class, name, mode, place, points, weights)

"""Checkpoints side by side: the curriculum is the group, the independent seed is the unit.

Comparing curricula asks that all else be equal, so checkpoints whose models, data or recipes differ are refused. Those
that cannot be counted - trained less far than the others, or sharing a seed with one that counts - are left out and
named.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from interp.statistics.seeds import independent_seeds
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import UserError
from training.config.config import RunConfig
from training.config.parse import differences, to_dict

ORDER = ("mixed", "random", "sequential", "single")
FEW = 10
"""Seeds below which a verdict says that they are few."""


class Kind(NamedTuple):
    """What curricula are compared over.

    Attributes:
        curriculum_of: the group of a run.
        trains_on: the function classes, or input distributions, of a run, in order.
        looked_at: those on which it is looked at.
        free: keys of the configuration in which groups may differ.
        order: sorts the groups by name.
        free_within: keys in which the seeds of one group may differ.
    """

    curriculum_of: Callable[[Checkpoint], str]
    trains_on: Callable[[RunConfig], Sequence[str]]
    looked_at: Callable[[RunConfig], Sequence[str]]
    free: Sequence[str]
    order: Callable[[str], Any]
    free_within: Sequence[str] = ("curriculum", "seeds", "record")


def rank(curriculum: str) -> tuple[int, str]:
    """Sorts mixed, random, sequential, then what trains on one class, then anything else."""
    kind = curriculum.partition(":")[0]
    return (ORDER.index(kind) if kind in ORDER else len(ORDER), "" if kind in ORDER[:3] else curriculum)


def single(condition: str) -> str:
    """The curriculum that trains on this function class, or input distribution, alone."""
    return f"single:{condition}"


def over_classes(checkpoint: Checkpoint) -> str:
    """
    Raises:
        UserError: it is trained on several input distributions.
    """
    inputs = checkpoint.config.data.inputs
    if len(inputs) > 1:
        raise UserError(
            f"{checkpoint.name} is trained on {len(inputs)} input distributions: this study compares curricula over "
            "function classes"
        )
    return checkpoint.config.curriculum


def over_inputs(checkpoint: Checkpoint) -> str:
    """
    Raises:
        UserError: it is trained on several function classes.
    """
    config = checkpoint.config
    if len(config.trained_classes) > 1:
        raise UserError(
            f"{checkpoint.name} is trained on {len(config.trained_classes)} function classes: this study compares "
            "curricula over input distributions"
        )
    first, *others = config.data.inputs
    return config.schedule.inputs if others else single(first)


CLASSES = Kind(
    over_classes,
    lambda config: config.trained_classes,
    lambda config: config.evaluated_classes,
    ("curriculum", "seeds", "record", "schedule"),
    rank,
)
INPUTS = Kind(
    over_inputs,
    lambda config: config.data.inputs,
    lambda config: config.data.inputs,
    ("seeds", "record", "schedule", "data.inputs"),
    rank,
)


@dataclass(frozen=True)
class Groups:
    """What can be compared.

    Attributes:
        by_curriculum: one checkpoint for every independent seed, curricula in the paper's order.
        left_out: who does not count, and why.
        shared: checkpoints of different curricula that share a seed.
        kind: what the curricula are over.
    """

    by_curriculum: Mapping[str, Sequence[Checkpoint]]
    left_out: Sequence[str]
    shared: Sequence[str]
    kind: Kind

    @property
    def checkpoints(self) -> list[Checkpoint]:
        return [one for group in self.by_curriculum.values() for one in group]

    @property
    def curriculum_of(self) -> dict[str, str]:
        """By checkpoint's name."""
        return {one.name: curriculum for curriculum, group in self.by_curriculum.items() for one in group}

    @property
    def conditions(self) -> list[str]:
        """All function classes, or input distributions, that any of the runs is looked at on."""
        return list(dict.fromkeys(name for one in self.checkpoints for name in self.kind.looked_at(one.config)))

    @property
    def protocol(self) -> dict[str, Any]:
        """The part of a study's protocol that is the same for all."""
        names = [one.name for one in self.checkpoints]
        return {"checkpoints": names, "step": self.checkpoints[0].step, "left out": list(self.left_out) or "none"}

    def notes(self) -> list[str]:
        """What few or related seeds cannot show, and who was left out."""
        return [*self.few_seeds(), *self.exclusions()]

    def few_seeds(self) -> list[str]:
        """How many seeds there are, if they are few."""
        counts = {name: len(group) for name, group in self.by_curriculum.items()}
        if min(counts.values()) < FEW:
            said = ", ".join(f"{name} {n}" for name, n in counts.items())
            return [
                f"Independent seeds: {said}. One seed is no interval over seeds, and five that agree still leave a "
                "share of seeds of up to 52 % that do otherwise (exact 95 %)."
            ]
        return []

    def exclusions(self) -> list[str]:
        """Who is related, and who was left out."""
        notes = []
        if self.shared:
            notes.append(
                f"{', '.join(self.shared)} share a seed across curricula: what differs between them is paired, not "
                "independent, and intervals of differences are not valid."
            )
        if self.left_out:
            notes.append(f"Left out: {'; '.join(self.left_out)}.")
        return notes


def group(checkpoints: Sequence[Checkpoint], kind: Kind = CLASSES) -> Groups:
    """The checkpoints by curriculum.

    Raises:
        UserError: they differ in more than curriculum and seeds, or have another kind of curriculum.
    """
    curriculum_of = {one.name: kind.curriculum_of(one) for one in checkpoints}
    check_alike(checkpoints, curriculum_of, kind)
    last: dict[int, int] = {}  # step of those that are to be trained equally long
    for one in checkpoints:
        last[one.config.recipe.steps] = max(last.get(one.config.recipe.steps, 0), one.step)
    counted = [one for one in checkpoints if one.step == last[one.config.recipe.steps]]
    behind = [one for one in checkpoints if one.step < last[one.config.recipe.steps]]
    left_out = [f"{one.name} (step {one.step}, others {last[one.config.recipe.steps]})" for one in behind]
    kept: dict[str, list[Checkpoint]] = {}
    for curriculum in sorted({curriculum_of[one.name] for one in counted}, key=kind.order):
        same = [one for one in counted if curriculum_of[one.name] == curriculum]
        for first, *others in independent_seeds(same):
            kept.setdefault(curriculum, []).append(same[first])
            left_out += [f"{same[place].name} (shares a seed with {same[first].name})" for place in others]
    everyone = [one for same in kept.values() for one in same]
    related = [places for places in independent_seeds(everyone) if len(places) > 1]
    return Groups(kept, left_out, [everyone[place].name for places in related for place in places], kind)


def check_alike(checkpoints: Sequence[Checkpoint], curriculum_of: Mapping[str, str], kind: Kind) -> None:
    firsts: dict[str, Checkpoint] = {}
    for one in checkpoints:
        same = firsts.setdefault(curriculum_of[one.name], one)
        for other, free in ((checkpoints[0], kind.free), (same, kind.free_within)):
            differ = [key for key in differences(to_dict(other.config), to_dict(one.config)) if matters(key, free)]
            if differ:
                what = ", ".join(differ[:3])
                raise UserError(f"{other.name} and {one.name} differ in {what}: only curricula and seeds may differ")


def matters(key: str, free: Sequence[str]) -> bool:
    return not {key, key.partition(".")[0]} & {*free, "recipe.threads"}


Measured = TypeVar("Measured")


def with_all(
    measured: Sequence[Measured], curriculum_of: Callable[[Measured], str]
) -> Iterator[tuple[str, list[Measured]]]:
    """What was measured on models, by curriculum in the paper's order and then, if there are several, of all together.

    >>> [(name, len(group)) for name, group in with_all(["mixed-0", "mixed-1", "random-0"], lambda one: one[:-2])]
    [('mixed', 2), ('random', 1), ('all', 3)]
    """
    groups: dict[str, list[Measured]] = {}
    for one in measured:
        groups.setdefault(curriculum_of(one), []).append(one)
    yield from sorted(groups.items(), key=lambda item: rank(item[0]))
    if len(groups) > 1:
        yield "all", list(measured)

"""Checkpoints side by side: the curriculum is the group, the independent seed is the unit.

Comparing curricula asks that all else be equal, so checkpoints whose models, data or recipes differ are refused. Those
that cannot be counted - trained less far than the others, or sharing a seed with one that counts - are left out and
named.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from interp.seeds import independent_seeds
from training.checkpoint import Checkpoint
from training.errors import UserError
from training.settings import differences, to_dict

ORDER = ("mixed", "random", "sequential", "single")
MAY_DIFFER = ("curriculum", "seeds", "record", "schedule")
FEW = 10
"""Seeds below which a verdict says that they are few."""


@dataclass(frozen=True)
class Groups:
    """What can be compared.

    Attributes:
        by_curriculum: one checkpoint for every independent seed, curricula in the paper's order.
        left_out: who does not count, and why.
        shared: checkpoints of different curricula that share a seed.
    """

    by_curriculum: Mapping[str, Sequence[Checkpoint]]
    left_out: Sequence[str]
    shared: Sequence[str]

    @property
    def checkpoints(self) -> list[Checkpoint]:
        return [one for group in self.by_curriculum.values() for one in group]

    @property
    def curriculum_of(self) -> dict[str, str]:
        """By checkpoint's name."""
        return {one.name: curriculum for curriculum, group in self.by_curriculum.items() for one in group}

    @property
    def classes(self) -> list[str]:
        """All function classes that any of the runs is looked at on."""
        return list(dict.fromkeys(name for one in self.checkpoints for name in one.config.evaluated_classes))

    @property
    def protocol(self) -> dict[str, Any]:
        """The part of a study's protocol that is the same for all."""
        names = [one.name for one in self.checkpoints]
        return {"checkpoints": names, "step": self.checkpoints[0].step, "left out": list(self.left_out) or "none"}

    def notes(self) -> list[str]:
        """What few or related seeds cannot show, and who was left out."""
        notes = []
        counts = {name: len(group) for name, group in self.by_curriculum.items()}
        if min(counts.values()) < FEW:
            said = ", ".join(f"{name} {n}" for name, n in counts.items())
            notes.append(
                f"Independent seeds: {said}. One seed is no interval over seeds, and five that agree still leave a "
                "share of seeds of up to 52 % that do otherwise (exact 95 %)."
            )
        if self.shared:
            notes.append(
                f"{', '.join(self.shared)} share a seed across curricula: what differs between them is paired, not "
                "independent, and intervals of differences are not valid."
            )
        if self.left_out:
            notes.append(f"Left out: {'; '.join(self.left_out)}.")
        return notes


def group(checkpoints: Sequence[Checkpoint]) -> Groups:
    """The checkpoints by curriculum.

    Raises:
        UserError: they differ in more than curriculum and seeds, or are trained on several input distributions.
    """
    check_alike(checkpoints)
    last = max(one.step for one in checkpoints)
    left_out = [f"{one.name} (step {one.step}, others {last})" for one in checkpoints if one.step < last]
    kept: dict[str, list[Checkpoint]] = {}
    for curriculum in sorted({one.config.curriculum for one in checkpoints if one.step == last}, key=rank):
        same = [one for one in checkpoints if one.config.curriculum == curriculum and one.step == last]
        for first, *others in independent_seeds(same):
            kept.setdefault(curriculum, []).append(same[first])
            left_out += [f"{same[place].name} (shares a seed with {same[first].name})" for place in others]
    everyone = [one for same in kept.values() for one in same]
    related = [places for places in independent_seeds(everyone) if len(places) > 1]
    return Groups(kept, left_out, [everyone[place].name for places in related for place in places])


def rank(curriculum: str) -> tuple[int, str]:
    """Sorts mixed, random, sequential, then what trains on one class, then anything else."""
    kind = curriculum.partition(":")[0]
    return (ORDER.index(kind) if kind in ORDER else len(ORDER), "" if kind in ORDER[:3] else curriculum)


def check_alike(checkpoints: Sequence[Checkpoint]) -> None:
    firsts: dict[str, Checkpoint] = {}
    for one in checkpoints:
        if len(one.config.data.inputs) > 1:
            raise UserError(
                f"{one.name} is trained on {len(one.config.data.inputs)} input distributions: this study compares "
                "curricula over function classes"
            )
        same = firsts.setdefault(one.config.curriculum, one)
        for other, free in ((checkpoints[0], MAY_DIFFER), (same, MAY_DIFFER[:3])):
            differ = [key for key in differences(to_dict(other.config), to_dict(one.config)) if matters(key, free)]
            if differ:
                what = ", ".join(differ[:3])
                raise UserError(f"{other.name} and {one.name} differ in {what}: only curricula and seeds may differ")


def matters(key: str, free: Sequence[str]) -> bool:
    return key.partition(".")[0] not in free and key != "recipe.threads"


def single(function_class: str) -> str:
    """The curriculum that trains on this class alone."""
    return f"single:{function_class}"


Measured = TypeVar("Measured")


def with_all(
    measured: Sequence[Measured], curriculum_of: Callable[[Measured], str]
) -> Iterator[tuple[str, list[Measured]]]:
    """What was measured on models, by curriculum and then, if there are several, of all together.

    >>> [(name, len(group)) for name, group in with_all(["mixed-0", "mixed-1", "random-0"], lambda one: one[:-2])]
    [('mixed', 2), ('random', 1), ('all', 3)]
    """
    groups: dict[str, list[Measured]] = {}
    for one in measured:
        groups.setdefault(curriculum_of(one), []).append(one)
    yield from groups.items()
    if len(groups) > 1:
        yield "all", list(measured)

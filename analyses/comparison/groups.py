"""Groups of checkpoints for comparison: the curriculum is the group, the independent seed is the unit.

A comparison of curricula requires that all else be equal, so checkpoints whose models, data or recipes differ are
refused. Checkpoints that are trained less far than the others, or share a seed with one that counts, are left out and
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
"""Number of seeds below which a verdict says that they are few."""
NOTES = {
    "few seeds": "Independent seeds: {counts}. One seed allows no interval over seeds; if five of five agree, the "
    "exact 95 % interval still allows up to 52 % of seeds to differ.",
    "shared": "{names} share a seed across curricula: what differs between them is paired, not independent, and "
    "intervals of differences are not valid.",
    "left out": "Left out: {names}.",
}


class Kind(NamedTuple):
    """The kind of conditions over which curricula are compared.

    Attributes:
        curriculum_of: the group of a run.
        trains_on: the conditions (function classes, or input distributions) that a run trains on, in order.
        evaluated_on: the conditions on which a run is evaluated.
        free: keys of the configuration in which groups may differ.
        order: sort key of a group's name.
        free_within: keys in which the seeds of one group may differ.
        varied: what groups differ in, in words.
    """

    curriculum_of: Callable[[Checkpoint], str]
    trains_on: Callable[[RunConfig], Sequence[str]]
    evaluated_on: Callable[[RunConfig], Sequence[str]]
    free: Sequence[str]
    order: Callable[[str], Any]
    free_within: Sequence[str] = ("curriculum", "seeds", "record")
    varied: str = "curricula"


def rank(curriculum: str) -> tuple[int, str]:
    """Sort key of curricula: mixed, random, sequential, then those on one class, then all others."""
    kind = curriculum.partition(":")[0]
    return (ORDER.index(kind) if kind in ORDER else len(ORDER), "" if kind in ORDER[:3] else curriculum)


def single(condition: str) -> str:
    """The name of the curriculum that trains on this condition alone."""
    return f"single:{condition}"


def over_classes(checkpoint: Checkpoint) -> str:
    """The run's curriculum over function classes.

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
    """The run's curriculum over input distributions.

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
    """Checkpoints that can be compared.

    Attributes:
        by_curriculum: one checkpoint for every independent seed, curricula in the paper's order.
        left_out: names of checkpoints that are not counted, with the reason.
        shared: names of checkpoints of different curricula that share a seed.
        kind: of the curricula's conditions.
    """

    by_curriculum: Mapping[str, Sequence[Checkpoint]]
    left_out: Sequence[str]
    shared: Sequence[str]
    kind: Kind

    @property
    def checkpoints(self) -> list[Checkpoint]:
        return [checkpoint for runs in self.by_curriculum.values() for checkpoint in runs]

    @property
    def curriculum_of(self) -> dict[str, str]:
        """By checkpoint's name."""
        return {checkpoint.name: curriculum for curriculum, runs in self.by_curriculum.items() for checkpoint in runs}

    @property
    def conditions(self) -> list[str]:
        """All conditions on which any of the runs is evaluated."""
        configs = [checkpoint.config for checkpoint in self.checkpoints]
        return list(dict.fromkeys(name for config in configs for name in self.kind.evaluated_on(config)))

    @property
    def protocol(self) -> dict[str, Any]:
        """The part of a study's protocol that is the same for all."""
        names = [checkpoint.name for checkpoint in self.checkpoints]
        return {"checkpoints": names, "step": self.checkpoints[0].step, "left out": list(self.left_out) or "none"}

    def notes(self) -> list[str]:
        """Sentences on few or related seeds, and on checkpoints that were left out."""
        return [*self.few_seeds(), *self.exclusions()]

    def few_seeds(self) -> list[str]:
        """The numbers of seeds, if they are few."""
        sizes = {name: len(runs) for name, runs in self.by_curriculum.items()}
        if min(sizes.values()) >= FEW:
            return []
        return [NOTES["few seeds"].format(counts=", ".join(f"{name} {n}" for name, n in sizes.items()))]

    def exclusions(self) -> list[str]:
        """The checkpoints that share seeds, and those that were left out."""
        notes = []
        if self.shared:
            notes.append(NOTES["shared"].format(names=", ".join(self.shared)))
        if self.left_out:
            notes.append(NOTES["left out"].format(names="; ".join(self.left_out)))
        return notes


def group(checkpoints: Sequence[Checkpoint], kind: Kind = CLASSES) -> Groups:
    """The checkpoints by curriculum.

    Raises:
        UserError: they differ in more than curriculum and seeds, or have another kind of curriculum.
    """
    curriculum_of = {checkpoint.name: kind.curriculum_of(checkpoint) for checkpoint in checkpoints}
    check_alike(checkpoints, curriculum_of, kind)
    last: dict[int, int] = {}  # the last step, by the number of steps to be trained
    for checkpoint in checkpoints:
        planned = checkpoint.config.recipe.steps
        last[planned] = max(last.get(planned, 0), checkpoint.step)
    counted, left_out = [], []
    for checkpoint in checkpoints:
        if checkpoint.step == last[checkpoint.config.recipe.steps]:
            counted.append(checkpoint)
        else:
            others = last[checkpoint.config.recipe.steps]
            left_out.append(f"{checkpoint.name} (step {checkpoint.step}, others {others})")
    kept: dict[str, list[Checkpoint]] = {}
    for curriculum in sorted({curriculum_of[checkpoint.name] for checkpoint in counted}, key=kind.order):
        runs = [checkpoint for checkpoint in counted if curriculum_of[checkpoint.name] == curriculum]
        for first, *others in independent_seeds(runs):
            kept.setdefault(curriculum, []).append(runs[first])
            left_out += [f"{runs[index].name} (shares a seed with {runs[first].name})" for index in others]
    remaining = [checkpoint for runs in kept.values() for checkpoint in runs]
    shared = [remaining[i].name for related in independent_seeds(remaining) if len(related) > 1 for i in related]
    return Groups(kept, left_out, shared, kind)


def check_alike(checkpoints: Sequence[Checkpoint], curriculum_of: Mapping[str, str], kind: Kind) -> None:
    """Require that the runs differ in curriculum and seeds only.

    Raises:
        UserError: they differ in more.
    """
    firsts: dict[str, Checkpoint] = {}
    for checkpoint in checkpoints:
        first = firsts.setdefault(curriculum_of[checkpoint.name], checkpoint)
        for other, free in ((checkpoints[0], kind.free), (first, kind.free_within)):
            changed = differences(to_dict(other.config), to_dict(checkpoint.config))
            if keys := [key for key in changed if matters(key, free)]:
                raise UserError(
                    f"{other.name} and {checkpoint.name} differ in {', '.join(keys[:3])}: only {kind.varied} and seeds "
                    "may differ"
                )


def matters(key: str, free: Sequence[str]) -> bool:
    return not {key, key.partition(".")[0]} & {*free, "recipe.threads"}


Item = TypeVar("Item")


def with_all(items: Sequence[Item], curriculum_of: Callable[[Item], str]) -> Iterator[tuple[str, list[Item]]]:
    """Results of models by curriculum, in the paper's order, and then, if there are several curricula, of all models.

    >>> [(name, len(models)) for name, models in with_all(["mixed-0", "mixed-1", "random-0"], lambda name: name[:-2])]
    [('mixed', 2), ('random', 1), ('all', 3)]
    """
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(curriculum_of(item), []).append(item)
    yield from sorted(groups.items(), key=lambda group: rank(group[0]))
    if len(groups) > 1:
        yield "all", list(items)

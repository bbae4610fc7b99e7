"""Arms of transplanted runs: what each took from its source, in words, and which arms are compared."""

from collections import Counter
from collections.abc import Mapping, Sequence

from analyses.comparison.groups import CLASSES, Groups, group
from interp.ablation.size_classes import ATTENDS
from interp.model.heads import heads_above
from interp.scores.score import selection_scores
from training.checkpoints.checkpoint import Checkpoint, load
from training.checkpoints.source_weights import source_tensors
from training.common.errors import UserError
from training.config.transplant import InitConfig

NOTHING, EVERYTHING = "nothing", "everything"
RETROSPECTIVE, OTHERS = "the retrospective heads", "other heads of their layers"


def heads_of_sources(checkpoints: Sequence[Checkpoint], n_prompts: int, seed: int) -> dict[str, tuple[str, ...]]:
    """By source, its heads with a retrospective score above `ATTENDS` on selection prompts.

    Raises:
        UserError: a source is missing, or has other weights than those that a run began with.
    """
    heads: dict[str, tuple[str, ...]] = {}
    for checkpoint in checkpoints:
        if checkpoint.config.init.source:
            source_tensors(checkpoint.config)
    for name in dict.fromkeys(checkpoint.config.init.source for checkpoint in checkpoints):
        if name:
            chosen = heads_above(ATTENDS, selection_scores(load(name), n_prompts, seed))
            heads[name] = tuple(str(head) for head in chosen)
    return heads


def describe_arm(init: InitConfig, retrospective: Sequence[str]) -> str:
    """What a run took from its source, in words.

    >>> describe_arm(InitConfig("zoo:mixed-0", reset_heads=("0.1",)), ["0.1"])
    'everything but the retrospective heads'
    >>> describe_arm(InitConfig("zoo:mixed-0", keep_heads=("0.3",), only=("embed",)), ["0.1"])
    'other heads of their layers and embed'
    """
    if not init.source:
        return NOTHING
    kept = [describe_heads(init.keep_heads, retrospective)] if init.keep_heads else []
    kept += [",".join(init.only)] if init.only else []
    reset = f" but {describe_heads(init.reset_heads, retrospective)}" if init.reset_heads else ""
    return (" and ".join(kept) or EVERYTHING) + reset


def describe_heads(heads: Sequence[str], retrospective: Sequence[str]) -> str:
    layers, theirs = (Counter(head.partition(".")[0] for head in names) for names in (heads, retrospective))
    if set(heads) == set(retrospective):
        return RETROSPECTIVE
    return OTHERS if layers == theirs and not set(heads) & set(retrospective) else ",".join(heads)


def group_arms(checkpoints: Sequence[Checkpoint], heads: Mapping[str, Sequence[str]]) -> Groups:
    """The checkpoints by arm, in the order in which they were named, the untrained twins first.

    Raises:
        UserError: they differ in more than what they took and seeds, train on several classes, or took all something.
    """
    for checkpoint in checkpoints:
        if len(checkpoint.config.trained_classes) > 1:
            raise UserError(f"{checkpoint.name} trains on several function classes: this study asks about one plateau")
    arms = {
        checkpoint.name: describe_arm(checkpoint.config.init, heads.get(checkpoint.config.init.source, ()))
        for checkpoint in checkpoints
    }
    if NOTHING not in arms.values():
        raise UserError("no run begins with nothing from a source: name the untrained twins too, with which to compare")
    order = [NOTHING, *dict.fromkeys(arms.values())]
    kind = CLASSES._replace(
        curriculum_of=lambda checkpoint: arms[checkpoint.name],
        free=("init", "seeds", "record"),
        order=order.index,
        free_within=("init", "seeds", "record"),
        varied="what runs take from a source",
    )
    return group(checkpoints, kind)


def families_of_pairs(arms: Sequence[str]) -> list[list[tuple[str, str]]]:
    """Every arm with the untrained twins; and every arm of retrospective heads with that of as many others."""
    twins = [(arm, NOTHING) for arm in arms if arm != NOTHING]
    others = [(arm, arm.replace(RETROSPECTIVE, OTHERS)) for arm in arms if RETROSPECTIVE in arm]
    return [twins, [(arm, other) for arm, other in others if other in arms]]

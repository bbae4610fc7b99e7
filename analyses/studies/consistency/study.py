"""Are the same heads retrospective on every function class, and in every model?

1. Attention: retrospective scores by prompt and mean patterns of every model and of its untrained twin.
2. Within models, across classes: agreement by curriculum, against the twins, mixed against others.
3. Between models: heads by number and heads matched by attention; pairs that share a stream of random numbers are
   reported apart.
4. Over training: the maps of snapshots against the last one.
5. The verdict, by rule.
"""

from collections.abc import Sequence
from functools import partial

from analyses.findings import Findings
from analyses.studies.consistency import figures, verdict
from analyses.studies.consistency.measures.attention import Model, initial_model, read_attention
from analyses.studies.consistency.measures.between import between_table, count_coincidences, pairs_table
from analyses.studies.consistency.measures.snapshots import N_PROMPTS, snapshots_table
from analyses.studies.consistency.measures.within import (
    TOP,
    contrasts_table,
    curricula_table,
    found_table,
    within_table,
)
from analyses.studies.consistency.tables import overview_tables
from interp.ablation.size_classes import ATTENDS
from interp.statistics.seeds import independent_seeds
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import UserError
from training.common.progress import progress_bar

QUESTION = "Are the same heads retrospective on every function class, and in every model?"
N_CHOOSING = 256  # prompts that choose a matching: a mean pattern needs few


def study(checkpoints: Sequence[Checkpoint], *, n_prompts: int = 1024, seed: int = 0) -> Findings:
    """Compare maps of heads within and between models.

    Args:
        checkpoints: loaded runs; those of equal size and prompts are compared with one another.
        n_prompts: per class.
        seed: of the prompts, the resampling and the random matchings.

    Raises:
        UserError: a model has too few heads or pairs, or fewer than two classes are evaluated for all models.
    """
    classes = common_classes(checkpoints)
    check_sizes(checkpoints)
    models = open_models(checkpoints, classes, n_prompts, seed)
    within = within_table(models, classes, seed)
    curricula, contrasts = curricula_table(within), contrasts_table(within)
    pairs = pairs_table(models, seed)
    between = between_table(pairs)
    snapshots = snapshots_table(models, classes, n_prompts=n_prompts, seed=seed)
    head_sets = found_table(models, classes)
    sentences = [
        verdict.heads_sentence(models, head_sets),
        *verdict.within_sentences(curricula, contrasts, within),
        *verdict.number_sentences(models, count_coincidences(models, seed)),
        *verdict.function_sentences(models, pairs, between),
        *verdict.stream_sentences(models, pairs),
        *verdict.snapshot_sentences(snapshots),
    ]
    protocol = {
        "checkpoints": [checkpoint.name for checkpoint in checkpoints],
        "classes": classes,
        "prompts per class": n_prompts,
        "prompts that choose matchings": min(n_prompts, N_CHOOSING),
        "prompts per snapshot": min(n_prompts, N_PROMPTS),
        "seed": seed,
        "score": "retrospective",
        "retrospective above": ATTENDS,
        "highest heads compared": TOP,
    }
    data = {"within": within, "curricula": curricula, "contrasts": contrasts, "found": head_sets}
    data |= {"pairs": pairs, "between": between, "steps": snapshots}
    plots = {"within": partial(figures.plot_within, within)}
    if len(pairs):
        plots["between"] = partial(figures.plot_between, models, pairs)
    if len(snapshots):
        plots["steps"] = partial(figures.plot_steps, snapshots)
    return Findings(
        QUESTION,
        sentences,
        protocol,
        {name: table for name, table in data.items() if len(table)},
        overview_tables(models, within, curricula, contrasts, between),
        plots,
        details=verdict.curriculum_sentences(curricula),
    )


def common_classes(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """The classes on which all of these runs are evaluated.

    Raises:
        UserError: there are fewer than two.
    """
    classes = {checkpoint.name: checkpoint.config.evaluated_classes for checkpoint in checkpoints}
    first, *others = classes.values()
    common = [name for name in first if all(name in names for names in others)]
    if len(common) < 2:
        given = "; ".join(f"{checkpoint}: {', '.join(names)}" for checkpoint, names in classes.items())
        raise UserError(f"consistency needs at least two function classes that all checkpoints have (given: {given})")
    return common


def check_sizes(checkpoints: Sequence[Checkpoint]) -> None:
    """Refuse models that are too small to compare.

    Raises:
        UserError: there is one.
    """
    for checkpoint in checkpoints:
        model, n_points = checkpoint.config.model, checkpoint.config.data.n_points
        n_heads = model.n_layers * model.n_heads
        if n_heads <= TOP:
            raise UserError(f"--ckpt {checkpoint.name}: it has {n_heads} heads; consistency needs more than {TOP}")
        if n_points < 2:
            raise UserError(
                f"--ckpt {checkpoint.name}: its prompts have {n_points} pair; consistency needs two or more"
            )


def open_models(checkpoints: Sequence[Checkpoint], classes: Sequence[str], n_prompts: int, seed: int) -> list[Model]:
    """The attention of every model and of its twin on the same prompts."""
    seeds = {index: group for group, indices in enumerate(independent_seeds(checkpoints)) for index in indices}
    sizes = {"n_prompts": n_prompts, "n_choosing": min(n_prompts, N_CHOOSING), "seed": seed}
    models = []
    for index, checkpoint in enumerate(progress_bar(checkpoints, desc="attention", unit="model")):
        trained = read_attention(checkpoint.model, checkpoint.config, classes, **sizes)
        untrained = read_attention(initial_model(checkpoint), checkpoint.config, classes, **sizes)
        label = shorten_name(checkpoint.name, [other.name for other in checkpoints])
        models.append(Model(checkpoint, label, seeds[index], trained, untrained))
    return models


def shorten_name(name: str, names: Sequence[str]) -> str:
    """The last part of a checkpoint's name, if no other checkpoint has the same.

    >>> shorten_name("a/mixed-0", ["a/mixed-0", "b/mixed-0"]), shorten_name("b/mixed-1", ["a/mixed-0", "b/mixed-1"])
    ('a/mixed-0', 'mixed-1')
    """
    short, *parts = (path.rstrip("/").rsplit("/", 1)[-1] for path in (name, *names))
    return short if parts.count(short) == 1 else name

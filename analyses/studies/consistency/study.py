"""Are the same heads retrospective on every function class, and in every model?

1. Look: retrospective scores by prompt and mean patterns of every model and of its untrained twin (`looks`).
2. Within models, across classes: agreement by curriculum, against the twins, mixed against others
   (`within`).
3. Between models: heads by number and heads matched by attention (`between`, `matching`); pairs that share
   a stream of random numbers stand apart.
4. Over training: earlier maps against the last one (`steps`).
5. Say what follows, by rule (`verdict`).
"""

from collections.abc import Sequence
from functools import partial

from analyses.findings import Findings
from analyses.studies.consistency import figures as plots
from analyses.studies.consistency import tables as shown
from analyses.studies.consistency import verdict
from analyses.studies.consistency.between import between_table, coincidences, pairs_table
from analyses.studies.consistency.measures import initial_model, look
from analyses.studies.consistency.steps import N_PROMPTS, steps_table
from analyses.studies.consistency.steps import sentences as steps_in_words
from analyses.studies.consistency.within import TOP, Model, contrasts_table, curricula_table, found_table, within_table
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
        UserError: a model has too few heads or pairs, or there are no two classes that all models are looked at on.
    """
    classes = common_classes(checkpoints)
    check_sizes(checkpoints)
    models = open_models(checkpoints, classes, n_prompts, seed)
    within = within_table(models, classes, seed)
    curricula, contrasts = curricula_table(within), contrasts_table(within)
    pairs = pairs_table(models, seed)
    between = between_table(pairs)
    steps = steps_table(models, classes, n_prompts=n_prompts, seed=seed)
    found = found_table(models, classes)
    sentences = [
        *verdict.found_heads(models, found),
        *verdict.within(curricula, contrasts, within),
        *verdict.numbers(models, coincidences(models, seed)),
        *verdict.functions(models, pairs, between),
        *verdict.streams(models, pairs),
        *steps_in_words(steps),
    ]
    tables = {"within": within, "curricula": curricula, "contrasts": contrasts, "found": found}
    tables |= {"pairs": pairs, "between": between, "steps": steps}
    figures = {"within": partial(plots.plot_within, within)}
    if len(pairs):
        figures["between"] = partial(plots.plot_between, models, pairs)
    if len(steps):
        figures["steps"] = partial(plots.plot_steps, steps)
    protocol = {
        "checkpoints": [one.name for one in checkpoints],
        "classes": classes,
        "prompts per class": n_prompts,
        "prompts that choose matchings": min(n_prompts, N_CHOOSING),
        "prompts per snapshot": min(n_prompts, N_PROMPTS),
        "seed": seed,
        "score": "retrospective",
        "retrospective above": ATTENDS,
        "highest heads compared": TOP,
    }
    return Findings(
        QUESTION,
        sentences,
        protocol,
        {name: table for name, table in tables.items() if len(table)},
        shown.small_tables(models, within, curricula, contrasts, between),
        figures,
    )


def common_classes(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """The classes on which all of these runs are looked at.

    Raises:
        UserError: there are fewer than two.
    """
    of_each = [checkpoint.config.evaluated_classes for checkpoint in checkpoints]
    common = [name for name in of_each[0] if all(name in names for names in of_each)]
    if len(common) < 2:
        each = "; ".join(f"{one.name}: {', '.join(names)}" for one, names in zip(checkpoints, of_each, strict=True))
        raise UserError(f"consistency needs at least two function classes that all checkpoints have (given: {each})")
    return common


def check_sizes(checkpoints: Sequence[Checkpoint]) -> None:
    """Refuse models in which nothing can be compared.

    Raises:
        UserError: there is one.
    """
    for checkpoint in checkpoints:
        model, n_points = checkpoint.config.model, checkpoint.config.data.n_points
        if model.n_layers * model.n_heads <= TOP:
            n_heads = model.n_layers * model.n_heads
            raise UserError(f"--ckpt {checkpoint.name}: it has {n_heads} heads; consistency needs more than {TOP}")
        if n_points < 2:
            raise UserError(
                f"--ckpt {checkpoint.name}: its prompts have {n_points} pair; consistency needs two or more"
            )


def open_models(checkpoints: Sequence[Checkpoint], classes: Sequence[str], n_prompts: int, seed: int) -> list[Model]:
    """Every model and its twin, looked at on the same prompts."""
    seeds = {place: group for group, places in enumerate(independent_seeds(checkpoints)) for place in places}
    sizes = {"n_prompts": n_prompts, "n_choosing": min(n_prompts, N_CHOOSING), "seed": seed}
    models = []
    for place, checkpoint in enumerate(progress_bar(checkpoints, desc="look", unit="model")):
        trained = look(checkpoint.model, checkpoint.config, classes, **sizes)
        untrained = look(initial_model(checkpoint), checkpoint.config, classes, **sizes)
        models.append(Model(checkpoint, label(checkpoint, checkpoints), seeds[place], trained, untrained))
    return models


def label(checkpoint: Checkpoint, checkpoints: Sequence[Checkpoint]) -> str:
    """The last part of its name, if that is enough to tell it from the others."""
    short = checkpoint.name.rstrip("/").rsplit("/", 1)[-1]
    same = [one for one in checkpoints if one.name.rstrip("/").rsplit("/", 1)[-1] == short]
    return short if len(same) == 1 else checkpoint.name

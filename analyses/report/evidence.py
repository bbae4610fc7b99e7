"""Everything that a report measures, on each checkpoint and over all of them.

Heads are chosen on the selection stream of prompts; scores and effects are measured on the test stream.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Float

from analyses.comparison.groups import with_all
from analyses.report.emergence import emergence
from analyses.report.studies import StudyResult, run_studies, studies_of
from interp.ablation.ablate import Ablation, ablate, ablate_or_reasons
from interp.ablation.control_sets import Match
from interp.ablation.pooled import pooled
from interp.ablation.size_classes import ATTENDS
from interp.model.heads import HeadSet, all_heads, heads_above
from interp.patching.path_receivers import parse_receivers
from interp.patching.paths import path_effects
from interp.scores.score import HeadScores, score_all, selection_scores
from training.checkpoints.checkpoint import Checkpoint
from training.common.progress import progress_bar
from training.options import DEFAULT_CONTROLS, DEFAULT_PROMPTS

PATH_PROMPTS = 256
"""At most: a path's share is a ratio of large effects, and there are hundreds of paths."""
MATCHES: tuple[Match, ...] = ("layer", "size")
LEAD = "mean"
"""The replacement by which every head is compared with every other."""
RETROSPECTIVE = "retrospective"


@dataclass(frozen=True)
class Settings:
    """What the user chose.

    Attributes:
        n_prompts: per function class and stream.
        n_controls: control sets per matching.
        seed: of prompts, control sets and resampling.
        classes: to test on; None takes those of each run.
        paths: whether to trace who reads the found heads.
        studies: names in `analyses.studies.registry.STUDIES`; None: those that the models were made for.
    """

    n_prompts: int = DEFAULT_PROMPTS
    n_controls: int = DEFAULT_CONTROLS
    seed: int = 0
    classes: tuple[str, ...] | None = None
    paths: bool = True
    studies: tuple[str, ...] | None = None


@dataclass(frozen=True)
class ModelEvidence:
    """What was measured on one checkpoint.

    Attributes:
        checkpoint: the model.
        classes: those it was tested on.
        selection: retrospective scores by which heads were chosen.
        chosen_heads: those above `interp.ablation.size_classes.ATTENDS` there; empty if there are none.
        scores: by kind, on the test prompts.
        ablation: of the chosen set and of each of its heads, against control sets; None if no head was chosen, or if
            a self-check failed for the chosen set.
        singles: of every head alone, by mean ablation, without control sets.
        paths: rows of `interp.patching.paths.path_effects` from every chosen head; empty if they were not traced.
        emergence: rows of `analyses.report.emergence`; empty without snapshots.
        failures: which sets were left out because a self-check failed for them.
    """

    checkpoint: Checkpoint
    classes: tuple[str, ...]
    selection: Float[np.ndarray, "layer head"]
    chosen_heads: HeadSet
    scores: dict[str, HeadScores]
    ablation: Ablation | None
    singles: Ablation
    paths: pd.DataFrame = field(default_factory=pd.DataFrame)
    emergence: pd.DataFrame = field(default_factory=pd.DataFrame)
    failures: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.checkpoint.name

    @property
    def curriculum(self) -> str:
        return self.checkpoint.config.curriculum

    @property
    def trained(self) -> tuple[str, ...]:
        """The classes among those tested that the model was trained on."""
        return tuple(name for name in self.classes if name in self.checkpoint.config.trained_classes)

    @property
    def heads(self) -> HeadSet:
        return all_heads(*self.selection.shape)

    @property
    def retrospective(self) -> HeadScores:
        return self.scores[RETROSPECTIVE]


@dataclass(frozen=True)
class Evidence:
    """What was measured on all checkpoints.

    Attributes:
        models: in the order of the command line.
        pooled: by curriculum and then over all, the found heads' effect over independent seeds; empty for one model.
        settings: of the measurement.
        studies: of all models.
    """

    models: tuple[ModelEvidence, ...]
    pooled: pd.DataFrame
    settings: Settings
    studies: tuple[StudyResult, ...] = ()


def together_and_alone(heads: HeadSet) -> list[HeadSet]:
    """The heads as one set, then each alone."""
    return list(dict.fromkeys([heads, *((head,) for head in heads)])) if heads else []


def by_curriculum(models: Sequence[ModelEvidence]) -> dict[str, list[ModelEvidence]]:
    """The models of every curriculum, in their order."""
    groups: dict[str, list[ModelEvidence]] = {}
    for model in models:
        groups.setdefault(model.curriculum, []).append(model)
    return groups


def gather(checkpoints: Sequence[Checkpoint], settings: Settings) -> Evidence:
    """Measure everything; shows progress on stderr.

    Raises:
        CheckError: an intervention did not act.
        UserError: a class that a checkpoint cannot be tested on.
    """
    bar = progress_bar(checkpoints, desc="report", unit="model")
    models = tuple(measure(checkpoint, settings) for checkpoint in bar)
    names = settings.studies
    if names is None:
        names = tuple(studies_of([checkpoint.config for checkpoint in checkpoints]))
    studies = run_studies(names, checkpoints, n_prompts=settings.n_prompts, seed=settings.seed)
    return Evidence(models, pool(models), settings, tuple(studies))


def measure(checkpoint: Checkpoint, settings: Settings) -> ModelEvidence:
    """Everything about one checkpoint."""
    classes = settings.classes or checkpoint.config.evaluated_classes
    n_prompts, seed = settings.n_prompts, settings.seed
    selection = selection_scores(checkpoint, n_prompts, seed)
    heads = heads_above(ATTENDS, selection)
    scores = {result.kind.name: result for result in score_all(checkpoint, classes, n_prompts=n_prompts, seed=seed)}
    ablation, reasons = None, list[str]()
    if heads:
        ablation, reasons = ablate_or_reasons(
            checkpoint,
            together_and_alone(heads),
            classes,
            n_prompts=n_prompts,
            n_controls=settings.n_controls,
            matches=MATCHES,
            seed=seed,
            scores=selection,
        )
    alone: list[HeadSet] = [(head,) for head in all_heads(*selection.shape)]
    singles = ablate(
        checkpoint, alone, classes, modes=[LEAD], n_controls=0, n_prompts=n_prompts, seed=seed, total_only=True
    )
    return ModelEvidence(
        checkpoint,
        tuple(classes),
        selection,
        heads,
        scores,
        ablation,
        singles,
        trace_readers(checkpoint, heads, settings) if settings.paths else pd.DataFrame(),
        emergence(checkpoint, heads, classes, n_prompts=n_prompts, seed=seed),
        (*reasons, *singles.failures),
    )


def trace_readers(checkpoint: Checkpoint, heads: HeadSet, settings: Settings) -> pd.DataFrame:
    """Through which inputs of later components each head acts, on the classes of the training.

    Clean prompts against unrelated ones of the same class, which every class has.
    """
    trained = checkpoint.config.trained_classes
    classes = [name for name in settings.classes or trained if name in trained]
    model = checkpoint.config.model
    receivers = parse_receivers("each", model.n_layers, model.n_heads, has_mlps=model.mlp_width > 0)
    if not heads or not classes:
        return pd.DataFrame()
    n_prompts = min(settings.n_prompts, PATH_PROMPTS)
    senders: list[HeadSet] = [(head,) for head in heads]
    return path_effects(checkpoint, senders, receivers, classes, n_prompts=n_prompts, seed=settings.seed).table


def pool(models: Sequence[ModelEvidence]) -> pd.DataFrame:
    """Effects over independent seeds, by curriculum; models without chosen heads have nothing to remove."""
    with_heads = [model for model in models if model.ablation is not None]
    tables = []
    for name, group in with_all(with_heads, lambda model: model.curriculum) if len(models) > 1 else ():
        checkpoints = [model.checkpoint for model in group]
        ablations = [model.ablation for model in group if model.ablation is not None]
        table = pooled(checkpoints, ablations, [model.chosen_heads for model in group], "removing the found heads")
        table.insert(0, "curriculum", name)
        tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

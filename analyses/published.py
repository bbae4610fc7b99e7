"""Do the `paper` scores of a model look like the published heat maps?

1. Read the six published models' maps (one per function class, digitised) and score ours on the same three classes.
2. Describe each map by numbers that mean the same for any number of heads: its maximum, its median beside the level of
   uniform attention, the share of heads above half of the maximum, the number that are near it, and how alike a model's
   maps of two classes are.
3. Say by rule where the distributions agree. Models of different size have no heads in common to compare.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes

from interp.plots import GREY, NULL, row_of_axes, save_figure
from interp.score_kinds import SCORES
from interp.scores import score
from training.checkpoint import Checkpoint
from training.output import records, write_table

QUESTION = "Do the scores of these models look like the published heat maps?"
CLASSES = ("linear", "quadratic", "cubic")
HALF, NEAR = 0.25, 0.4  # of a maximum of 0.5; the paper's retrospective heads are those of 0.4 and more
CLOSE = 0.05  # medians within this of chance, a tenth of the scale, count as at chance
ALIKE = 0.8  # rank correlation of two maps
COLOURS = ("#1b6ca8", "#c8553d", "#3f7d58", "#7a5195", "#e0a458", "#00838f")

HeadMap = Float[np.ndarray, "layer head"]


@dataclass(frozen=True)
class ModelMaps:
    """One model's map for each class.

    Attributes:
        source: `published`, or our checkpoint's name.
        curriculum: of its training.
        chance: the score of uniform attention in its prompts.
        maps: by class.
    """

    source: str
    curriculum: str
    chance: float
    maps: Mapping[str, HeadMap]


@dataclass(frozen=True)
class PublishedStudy:
    """The comparison.

    Attributes:
        models: the published ones, then ours.
        table: one row per model and class (`statistics`).
        likeness: one row per model and pair of classes (`rank_correlations`).
        sentences: where they agree.
    """

    models: tuple[ModelMaps, ...]
    table: pd.DataFrame
    likeness: pd.DataFrame
    sentences: tuple[str, ...]


def published_maps() -> list[ModelMaps]:
    """The six function-class models of the paper, 12 layers of 8 heads each.

    >>> [model.curriculum for model in published_maps()][:2]
    ['single:linear', 'single:quadratic']
    """
    text = (resources.files("analyses") / "data" / "published_heatmaps.json").read_text()
    document = json.loads(text)
    chance = SCORES["paper"].chance(document["n_points"])
    return [
        ModelMaps("published", curriculum, chance, {name: np.array(by_class[name]) for name in CLASSES})
        for curriculum, by_class in document["maps"].items()
    ]


def study(checkpoints: Sequence[Checkpoint], *, n_prompts: int = 1024, seed: int = 0) -> PublishedStudy:
    """Score our models by the published definition and compare.

    Args:
        checkpoints: loaded runs of any size.
        n_prompts: per class; the published maps come from one prompt each.
        seed: of the prompts.
    """
    ours = []
    for checkpoint in checkpoints:
        scores = score(checkpoint, CLASSES, kind="paper", n_prompts=n_prompts, seed=seed)
        ours.append(ModelMaps(checkpoint.name, checkpoint.config.curriculum, scores.chance, scores.values))
    models = (*published_maps(), *ours)
    table = pd.DataFrame([row for model in models for row in statistics(model)])
    likeness = pd.DataFrame([row for model in models for row in rank_correlations(model)])
    sentences = tuple(sentence for model in ours for sentence in compare(model, table, likeness))
    return PublishedStudy(models, table, likeness, sentences)


def statistics(model: ModelMaps) -> list[dict[str, Any]]:
    """What can be compared between models of different size, a row per class."""
    return [
        {
            "model": model.source,
            "curriculum": model.curriculum,
            "function_class": name,
            "n_heads": values.size,
            "chance": model.chance,
            "maximum": float(values.max()),
            "median": float(np.median(values)),
            "share_above_half": float((values > HALF).mean()),
            "n_near_maximum": int((values >= NEAR).sum()),
        }
        for name, values in model.maps.items()
    ]


def rank_correlations(model: ModelMaps) -> list[dict[str, Any]]:
    """Spearman's correlation over heads between the maps of two classes, a row per pair of classes."""
    ranks = pd.DataFrame({name: values.ravel() for name, values in model.maps.items()}).rank()
    correlation = ranks.corr().to_dict()
    about = {"model": model.source, "curriculum": model.curriculum}
    return [about | {"classes": f"{a}-{b}", "spearman": correlation[a][b]} for a, b in combinations(model.maps, 2)]


def compare(ours: ModelMaps, table: pd.DataFrame, likeness: pd.DataFrame) -> list[str]:
    """Two sentences about one model: heads near the maximum, and the rest."""
    published = {row["curriculum"] for row in records(table) if row["model"] == "published"}
    who = f"{ours.source} ({ours.curriculum})"
    if ours.curriculum not in published:
        return [f"{who}: the paper shows no model of this curriculum; its row stands beside all of theirs."]
    mine, theirs = (rows_of(table, source, ours.curriculum) for source in (ours.source, "published"))
    alike = [rows_of(likeness, source, ours.curriculum) for source in (ours.source, "published")]
    findings = {
        "whether any head comes near the maximum": [
            [bool(row["n_near_maximum"]) for row in rows] for rows in (mine, theirs)
        ],
        f"a median within {CLOSE} of chance": [
            [abs(row["median"] - row["chance"]) < CLOSE for row in rows] for rows in (mine, theirs)
        ],
        f"the classes ranking heads alike (Spearman above {ALIKE})": [
            [row["spearman"] > ALIKE for row in rows] for rows in alike
        ],
    }
    same = [what for what, (a, b) in findings.items() if a == b]
    other = [what for what, (a, b) in findings.items() if a != b]
    return [
        f"{who} has {counts(mine)} heads of {mine[0]['n_heads']} at {NEAR} or more on {', '.join(CLASSES)}, the "
        f"published model {counts(theirs)} of {theirs[0]['n_heads']}: where sizes differ only distributions can be "
        "compared, never heads.",
        f"{ours.source} and the published model agree on {'; '.join(same) or 'none of the three tests'}"
        + (f", and not on {'; '.join(other)}." if other else "."),
    ]


def rows_of(table: pd.DataFrame, source: str, curriculum: str) -> list[dict[str, Any]]:
    return [row for row in records(table) if (row["model"], row["curriculum"]) == (source, curriculum)]


def counts(rows: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(str(row["n_near_maximum"]) for row in rows)


def plot_sorted(models: Sequence[ModelMaps]) -> list[Axes]:
    """Scores of each model's heads in descending order, over the share of heads; published models in grey."""
    axes = row_of_axes(len(CLASSES), width=3, height=2.8)
    own = [model for model in models if model.source != "published"]
    matched = {model.curriculum for model in own}
    for ax, name in zip(axes, CLASSES, strict=True):
        for model in models:
            published = model.source == "published"
            values = np.sort(model.maps[name].ravel())[::-1]
            place = (np.arange(len(values)) + 0.5) / len(values)
            if published:
                dark = model.curriculum in matched
                label = "published, same curriculum" if dark else "published, others"
                ax.plot(place, values, color=GREY if dark else NULL, lw=1.6 if dark else 0.9, label=label)
            else:
                colour = COLOURS[own.index(model) % len(COLOURS)]
                ax.plot(place, values, "o-", ms=3, lw=1.2, color=colour, label=model.source)
        ax.axhline(models[0].chance, color=GREY, ls=":", lw=0.8, label="uniform attention")
        ax.set(title=name, xlabel="share of heads", ylim=(0, 0.52))
    axes[0].set_ylabel("paper score")
    handles = dict(zip(*reversed(axes[0].get_legend_handles_labels()), strict=True))
    axes[-1].legend(list(handles.values()), list(handles), frameon=False, fontsize=7)
    return axes


def write(result: PublishedStudy, directory: Path) -> None:
    """Tables (CSV) and a figure (PNG)."""
    write_table(result.table, directory / "published.csv")
    write_table(result.likeness, directory / "published_likeness.csv")
    save_figure(plot_sorted(result.models), directory / "published.png")

"""Do the `paper` scores of a model look like the published heat maps?

1. Read the six published models' maps (one per function class, digitised) and score ours on the same three classes.
2. Describe each map by numbers that mean the same for any number of heads: its maximum, its median beside the level of
   uniform attention, the shares of heads above half of the maximum and near it, and how alike a model's maps of two
   classes are. Models of different size have no heads in common to compare.
3. Say by rule on which classes both have a head near the maximum. Where the threshold lies hardly matters to that:
   published maxima are 0.35 at most or 0.5, the shipped models' 0.13 at most or 0.49. And say how many published models
   of other curricula agree as well, for what all of them show is no likeness to one of them.

What is shown but not judged: medians, which lie near uniform attention in every model, so that agreeing on them is no
evidence; rank correlations over all heads, which are mostly the order of heads that attend to nothing in particular,
and are taken from one prompt there and from many here; and shares of heads, since heads that grew together are no
independent draws.
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

from interp.display.axes import GREY, NULL, row_of_axes, save_figure
from interp.scores.kinds import SCORES
from interp.scores.score import score
from training.checkpoints.checkpoint import Checkpoint
from training.common.output import write_table

QUESTION = "Do the scores of these models look like the published heat maps?"
CLASSES = ("linear", "quadratic", "cubic")
HALF, NEAR = 0.25, 0.4  # of a maximum of 0.5; the paper's retrospective heads are those of 0.4 and more
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
        likeness: one row per model and pair of classes (`likenesses`).
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
    likeness = pd.DataFrame([row for model in models for row in likenesses(model)])
    sentences = tuple(sentence for model in ours for sentence in compare(model, models))
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
            "share_near_maximum": float((values >= NEAR).mean()),
        }
        for name, values in model.maps.items()
    ]


def likenesses(model: ModelMaps) -> list[dict[str, Any]]:
    """How alike the maps of two classes are, a row per pair of classes.

    `overlap`: of the heads near the maximum on either class the share that is so on both; NaN where there are none.
    `spearman`: rank correlation over all heads.
    """
    ranks = pd.DataFrame({name: values.ravel() for name, values in model.maps.items()}).rank()
    correlation = ranks.corr().to_dict()
    about = {"model": model.source, "curriculum": model.curriculum}
    return [
        about | {"classes": f"{a}-{b}", "overlap": overlap(model.maps[a], model.maps[b]), "spearman": correlation[a][b]}
        for a, b in combinations(model.maps, 2)
    ]


def overlap(one: HeadMap, other: HeadMap) -> float:
    """
    >>> overlap(np.array([[0.5, 0.4, 0.1]]), np.array([[0.5, 0.1, 0.1]]))
    0.5
    """
    both, either = (one >= NEAR) & (other >= NEAR), (one >= NEAR) | (other >= NEAR)
    return float(both.sum() / either.sum()) if either.any() else float("nan")


def compare(ours: ModelMaps, models: Sequence[ModelMaps]) -> list[str]:
    """Three sentences about one of our models: its heads near the maximum, where the published one has any, and whom
    else that fits."""
    published = {model.curriculum: model for model in models if model.source == "published"}
    who = f"{ours.source} ({ours.curriculum})"
    if ours.curriculum not in published:
        return [f"{who}: the paper shows no model of this curriculum; its row stands beside all of theirs."]
    theirs = published.pop(ours.curriculum)
    with_any = classes_with_any(ours)
    others = sum(classes_with_any(model) == with_any for model in published.values())
    same = with_any == classes_with_any(theirs)
    maxima = ", ".join(f"{ours.maps[name].max():.2f}" for name in CLASSES)
    return [
        f"{who} has {counts(ours)} at {NEAR} or more on {', '.join(CLASSES)}, the published model {counts(theirs)}: "
        "where sizes differ only distributions can be compared, never heads.",
        f"{ours.source} has such a head on {listed(with_any)} (maxima {maxima}), the published model on "
        f"{listed(classes_with_any(theirs))}: they {'agree' if same else 'DISAGREE'}.",
        f"Of the {len(published)} published models of other curricula {others} agree with {ours.source} on this"
        f"{': it does not tell curricula apart' if others else ''}; one model against one is no evidence about a "
        "curriculum.",
    ]


def classes_with_any(model: ModelMaps) -> list[str]:
    """The classes on which some head comes near the maximum."""
    return [name for name in CLASSES if (model.maps[name] >= NEAR).any()]


def listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "no class"


def counts(model: ModelMaps) -> str:
    """Numbers and shares of heads near the maximum, class by class."""
    near = [model.maps[name] >= NEAR for name in CLASSES]
    numbers, shares = ", ".join(str(one.sum()) for one in near), ", ".join(f"{one.mean():.0%}" for one in near)
    return f"{numbers} heads of {near[0].size} ({shares})"


def plot_sorted(models: Sequence[ModelMaps]) -> list[Axes]:
    """Scores of each model's heads in descending order, over the share of heads; published models in grey."""
    axes = row_of_axes(len(CLASSES), width=3.0, height=2.8)
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

"""Do the `paper` scores of a model look like the published heat maps of arXiv 2404.03558?

1. Read the maps of the six published models (one per function class, digitised) and score ours on the same classes.
2. Describe each map by statistics that do not depend on the number of heads: its maximum; its median, with the score of
   uniform attention; the shares of heads above half of the maximum and near it; and the similarity of a model's maps of
   two classes. Models of different size have no heads in common to compare.
3. By rule: on which classes does the model, and the published model of its curriculum, have a head near the maximum?
   The threshold hardly matters: published maxima are at most 0.35 or at least 0.49. Published models of other
   curricula that agree as well are counted, because a property of all of them does not identify a curriculum.

Shown but not judged: medians, which lie near uniform attention in every model; rank correlations over all heads, which
mostly order heads without any preference, and come from one prompt there and many here; and shares of heads, since
heads of one model are not independent draws.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes

from analyses.findings import Findings
from interp.display.axes import GREY, NULL, grid_of_axes, row_of_axes
from interp.scores.figures import draw_heads
from interp.scores.kinds import SCORES
from interp.scores.score import score
from training.checkpoints.checkpoint import Checkpoint
from training.common.output import number, records

QUESTION = "Do the scores of these models look like the published heat maps?"
CLASSES = ("linear", "quadratic", "cubic")
HALF, NEAR = 0.25, 0.4  # of a maximum of 0.5; the paper's retrospective heads are those of 0.4 and more
COLOURS = ("#1b6ca8", "#c8553d", "#3f7d58", "#7a5195", "#e0a458", "#00838f")
SENTENCES = {
    "unknown": "{model} ({curriculum}): the paper has no model of this curriculum; its rows are listed with all of the "
    "paper's.",
    "counts": "{model} ({curriculum}) has {counts} at {near} or more on {classes}, the published model "
    "{published_counts}: models of different size can be compared by distributions, not head by head.",
    "agreement": "{model} has such a head on {own_classes} (maxima {maxima}), the published model on "
    "{published_classes}: they {verdict}.",
    "others": "Of the {n_others} published models of other curricula {n_agree} agree with {model} on this"
    "{caveat}; one model against one is no evidence about a curriculum.",
}

HeadMap = Float[np.ndarray, "layer head"]


class PublishedFindings(Findings):
    """The comparison: `data` has `results`, a row per model and class, and `likeness`, one per pair of classes."""

    @property
    def files(self) -> Mapping[str, pd.DataFrame]:
        return {"published": self.data["results"], "published_likeness": self.data["likeness"]}


@dataclass(frozen=True)
class ModelMaps:
    """One model's map for each class.

    Attributes:
        source: `published`, or the name of our checkpoint.
        curriculum: of its training.
        chance: the score of uniform attention in its prompts.
        maps: by class.
    """

    source: str
    curriculum: str
    chance: float
    maps: Mapping[str, HeadMap]


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


def study(checkpoints: Sequence[Checkpoint], *, n_prompts: int = 1024, seed: int = 0) -> PublishedFindings:
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
    results = pd.DataFrame([row for model in models for row in map_statistics(model)])
    likeness = pd.DataFrame([row for model in models for row in map_similarities(model)])
    return PublishedFindings(
        QUESTION,
        [sentence for model in ours for sentence in compare_with_published(model, models)],
        {"checkpoints": [checkpoint.name for checkpoint in checkpoints], "seed": seed, "prompts": n_prompts},
        {"likeness": likeness, "results": results},
        overview_tables(results, likeness),
        {"published": partial(plot_sorted, models), "maps": partial(plot_maps, models)},
    )


def map_statistics(model: ModelMaps) -> list[dict[str, Any]]:
    """What can be compared between models of different size, a row per class."""
    return [
        {
            "model": model.source,
            "curriculum": model.curriculum,
            "function_class": function_class,
            "n_heads": values.size,
            "chance": model.chance,
            "maximum": float(values.max()),
            "median": float(np.median(values)),
            "share_above_half": float((values > HALF).mean()),
            "n_near_maximum": int((values >= NEAR).sum()),
            "share_near_maximum": float((values >= NEAR).mean()),
        }
        for function_class, values in model.maps.items()
    ]


def map_similarities(model: ModelMaps) -> list[dict[str, Any]]:
    """The similarity of a model's maps of two classes, a row per pair of classes.

    `overlap`: of the heads near the maximum on either class the share that are near it on both; NaN where there are
    none. `spearman`: rank correlation over all heads.
    """
    ranks = pd.DataFrame({name: values.ravel() for name, values in model.maps.items()}).rank()
    correlation = ranks.corr().to_dict()
    return [
        {
            "model": model.source,
            "curriculum": model.curriculum,
            "classes": f"{first}-{second}",
            "overlap": overlap(model.maps[first], model.maps[second]),
            "spearman": correlation[first][second],
        }
        for first, second in combinations(model.maps, 2)
    ]


def overlap(first: HeadMap, second: HeadMap) -> float:
    """
    >>> overlap(np.array([[0.5, 0.4, 0.1]]), np.array([[0.5, 0.1, 0.1]]))
    0.5
    """
    both, either = (first >= NEAR) & (second >= NEAR), (first >= NEAR) | (second >= NEAR)
    return float(both.sum() / either.sum()) if either.any() else float("nan")


def compare_with_published(model: ModelMaps, models: Sequence[ModelMaps]) -> list[str]:
    """Sentences about the heads near the maximum of one of our models and of the published one of its curriculum."""
    published = {other.curriculum: other for other in models if other.source == "published"}
    names = {"model": model.source, "curriculum": model.curriculum}
    if model.curriculum not in published:
        return [SENTENCES["unknown"].format(**names)]
    original = published.pop(model.curriculum)
    classes, original_classes = classes_with_head(model), classes_with_head(original)
    n_agree = sum(classes_with_head(other) == classes for other in published.values())
    values = names | {
        "near": NEAR,
        "classes": ", ".join(CLASSES),
        "counts": count_heads(model),
        "published_counts": count_heads(original),
        "own_classes": ", ".join(classes) or "no class",
        "published_classes": ", ".join(original_classes) or "no class",
        "maxima": ", ".join(f"{model.maps[name].max():.2f}" for name in CLASSES),
        "verdict": "agree" if classes == original_classes else "DISAGREE",
        "n_others": len(published),
        "n_agree": n_agree,
        "caveat": ", so it does not distinguish curricula" if n_agree else "",
    }
    return [SENTENCES[name].format(**values) for name in ("counts", "agreement", "others")]


def classes_with_head(model: ModelMaps) -> list[str]:
    """The classes on which some head is near the maximum."""
    return [name for name in CLASSES if (model.maps[name] >= NEAR).any()]


def count_heads(model: ModelMaps) -> str:
    """Numbers and shares of heads near the maximum, class by class."""
    near = [model.maps[name] >= NEAR for name in CLASSES]
    numbers, shares = ", ".join(str(mask.sum()) for mask in near), ", ".join(f"{mask.mean():.0%}" for mask in near)
    return f"{numbers} heads of {near[0].size} ({shares})"


def overview_tables(results: pd.DataFrame, likeness: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """A row per model and class, and a row per model for the similarity of its maps."""
    rows = [
        {
            "model, class": f"{row['model']} {row['curriculum']}, {row['function_class']}",
            **{name: number(row[name]) for name in ("chance", "maximum", "median")},
            f"share > {HALF}": number(row["share_above_half"]),
            f">= {NEAR}": f"{row['n_near_maximum']} of {row['n_heads']}",
        }
        for row in records(results)
    ]
    cells: dict[str, dict[str, str]] = {}
    for row in records(likeness):
        name = f"{row['model']} {row['curriculum']}"
        text = f"{number(row['overlap'], 2)}, {number(row['spearman'], 2)}"
        cells.setdefault(name, {"model": name})[row["classes"]] = text
    return {
        "paper score (maximum 0.5) over heads; published maps: one prompt, digitised within 0.01": pd.DataFrame(rows),
        f"similarity of a model's maps of two classes: overlap of the heads >= {NEAR}, Spearman over all heads": (
            pd.DataFrame(list(cells.values()))
        ),
    }


def plot_sorted(models: Sequence[ModelMaps]) -> list[Axes]:
    """Scores of each model's heads in descending order, over the share of heads; published models in grey."""
    axes = row_of_axes(len(CLASSES), width=3.0, height=2.8)
    ours = [model for model in models if model.source != "published"]
    curricula = {model.curriculum for model in ours}
    for ax, function_class in zip(axes, CLASSES, strict=True):
        for model in models:
            values = np.sort(model.maps[function_class].ravel())[::-1]
            shares = (np.arange(len(values)) + 0.5) / len(values)
            if model.source == "published":
                same = model.curriculum in curricula
                label = "published, same curriculum" if same else "published, others"
                ax.plot(shares, values, color=GREY if same else NULL, lw=1.6 if same else 0.9, label=label)
            else:
                colour = COLOURS[ours.index(model) % len(COLOURS)]
                ax.plot(shares, values, "o-", ms=3, lw=1.2, color=colour, label=model.source)
        ax.axhline(models[0].chance, color=GREY, ls=":", lw=0.8, label="uniform attention")
        ax.set(title=function_class, xlabel="share of heads", ylim=(0, 0.52))
    axes[0].set_ylabel("paper score")
    handles = dict(zip(*reversed(axes[0].get_legend_handles_labels()), strict=True))
    axes[-1].legend(list(handles.values()), list(handles), frameon=False, fontsize=7)
    return axes


def plot_maps(models: Sequence[ModelMaps]) -> list[Axes]:
    """The score of every head, a row per model and a column per class: the published models first."""
    grid = grid_of_axes(len(models), len(CLASSES), width=1.9, height=1.9)
    for row, model in zip(grid, models, strict=True):
        for ax, function_class in zip(row, CLASSES, strict=True):
            draw_heads(ax, model.maps[function_class], SCORES["paper"].best, bar=ax is row[-1])
            ax.set_title(f"{model.source}, {model.curriculum}\n{function_class}", fontsize=7)
            ax.tick_params(labelsize=6)
        row[0].set_ylabel("layer", fontsize=7)
    return [ax for row in grid for ax in row]

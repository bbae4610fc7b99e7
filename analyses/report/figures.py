"""The figures of each section: heat maps with a value per cell, and figures of results as SVG images."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from analyses.findings import Findings
from analyses.report.agreement import between_classes, between_models, effects_of
from analyses.report.dose import dose_response
from analyses.report.emergence import BEST_OTHER
from analyses.report.evidence import LEAD, Evidence, ModelEvidence
from interp.ablation.size_classes import ATTENDS, HALF
from interp.display.axes import GREY, INTACT, MODES, NULL, image, legend_beside, row_of_axes
from interp.display.heat_maps import grid_map, head_map
from interp.model.heads import show
from training.common.output import number, records
from training.common.table_rows import distinct, where

Labels = Mapping[str, str]
MATRICES = {
    "score_spearman": ("Scores: rank correlation", True),
    "effect_spearman": ("Effects: rank correlation", True),
    "overlap": ("Heads above 0.5: overlap", False),
}
"""By column of the tables of agreement: the title, and whether values have a sign."""
MOST_LABELS = 12
"""Heads that are labelled by name in one panel."""


def overview_maps(models: Sequence[ModelEvidence], labels: Labels) -> list[str]:
    """One small map per model: mean score over its trained classes on the selection prompts."""
    return [
        head_map(model.selection, labels[model.name], "mean retrospective score", framed=model.chosen_heads, small=True)
        for model in models
    ]


def score_maps(model: ModelEvidence) -> list[str]:
    """The score of every head, one map per class."""
    return [
        head_map(values, function_class, "retrospective score", framed=model.chosen_heads)
        for function_class, values in model.retrospective.values.items()
    ]


def effect_maps(model: ModelEvidence) -> list[str]:
    """The effect of removing every head alone, one map per class."""
    quantity = f"effect of removing it alone ({LEAD})"
    return [
        head_map(effects_of(model, function_class), function_class, quantity, framed=model.chosen_heads, diverging=True)
        for function_class in model.classes
    ]


def class_matrices(model: ModelEvidence) -> list[str]:
    """Agreement between the classes of a model."""
    return agreement_matrices(between_classes(model), model.classes)


def model_matrices(models: Sequence[ModelEvidence], labels: Labels) -> list[str]:
    """Agreement between models."""
    return agreement_matrices(between_models(models), [labels[model.name] for model in models])


def agreement_matrices(table: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """A matrix per measure of agreement, every name against every other."""
    shape = len(names), len(names)
    return [
        grid_map(
            table[measure].to_numpy(dtype=float).reshape(shape),
            names,
            names,
            title,
            "value",
            diverging=has_sign,
            tilted=True,
        )
        for measure, (title, has_sign) in MATRICES.items()
    ]


def removal_figures(model: ModelEvidence) -> list[str]:
    """The effect of removing the found heads beside its control sets, and errors with and without these heads."""
    if model.ablation is None:
        return []
    heads = show(model.chosen_heads)
    effects = ", ".join(
        f"{row['function_class']} {row['mode']} {number(row['effect'], 2)}"
        for row in records(where(model.ablation.table, heads=heads))
    )
    return [
        image(model.ablation.plot(heads), f"share of the in-context gain lost by removing {heads}: {effects}", "svg"),
        image(model.ablation.plot_curves(heads), f"error by number of examples, with and without {heads}", "svg"),
    ]


def forest(evidence: Evidence, labels: Labels) -> list[str]:
    """The effect of removing the found heads in every model (mean ablation), a panel per class."""
    models = evidence.models
    classes = list(dict.fromkeys(name for model in models for name in model.classes))
    axes = row_of_axes(len(classes), width=2.9, height=1.1 + 0.22 * len(models))
    for ax, function_class in zip(axes, classes, strict=True):
        for line, model in enumerate(models):
            if function_class in model.classes:
                draw_removal(ax, model, function_class, line)
        for level in (0, 1):
            ax.axvline(level, color=GREY, lw=0.8, ls=":", zorder=0)
        ax.set(title=function_class, xlabel="share of the in-context gain lost", ylim=(len(models) - 0.5, -0.5))
        names = [labels[model.name] if ax is axes[0] else "" for model in models]
        ax.set_yticks(range(len(models)), names, fontsize=8, parse_math=False)  # `$` in a name is no formula
    legend_beside(axes)
    return [image(axes, f"effect of removing the found heads in {', '.join(labels.values())} ({LEAD} ablation)", "svg")]


def draw_removal(ax: Axes, model: ModelEvidence, function_class: str, line: int) -> None:
    """One model's line of a forest; intervals that reach beyond the effects of all sets are cut there."""
    if model.ablation is None:
        reason = "failed a self-check" if model.chosen_heads else "no head found"
        ax.text(0.03, line, reason, fontsize=7, color=GREY, va="center")
        return
    cell = {"heads": show(model.chosen_heads), "function_class": function_class, "mode": LEAD}
    (row,) = records(where(model.ablation.table, **cell))
    if math.isnan(row["effect"]):
        ax.text(0.03, line, "effect undefined", fontsize=7, color=GREY, va="center")
        return
    controls = where(model.ablation.null, **cell, match="layer")["effect"]
    ax.plot(controls, [line] * len(controls), ".", color=NULL, ms=5, label="layer-matched sets")
    ax.plot(row["direct_effect"], line, "x", color=MODES[LEAD], ms=5, label="direct effect alone")
    ax.plot(row["effect"], line, "D", color=MODES[LEAD], ms=5, label="found heads, 95 % interval")
    ax.plot([row["ci_low"], row["ci_high"]], [line, line], color=MODES[LEAD], lw=1.6, scalex=False)


def dose_figures(models: Sequence[ModelEvidence], labels: Labels) -> list[str]:
    """Effect of every single head against its score, a panel per class on one axis; found heads with intervals."""
    dose = dose_response(models).dropna(subset=["effect"])
    if dose.empty:
        return []
    names = distinct(dose, "function_class")
    axes = row_of_axes(len(names), width=3.2, height=3.2)
    low, high = min(0.0, dose["effect"].min()), max(1.0, dose["effect"].max())
    margin = 0.1 * (high - low)  # intervals that reach further are cut there
    for ax, function_class in zip(axes, names, strict=True):
        rows = where(dose, function_class=function_class)
        chosen, others = rows.loc[rows["found"]], rows.loc[~rows["found"]]
        ax.plot(others["score"], others["effect"], "o", ms=3.5, color=NULL, mec="#7d8791", mew=0.5, label="other heads")
        ax.plot(chosen["score"], chosen["effect"], "o", ms=5, color=INTACT, label="found heads, 95 % interval")
        ax.vlines(chosen["score"], chosen["ci_low"], chosen["ci_high"], color=INTACT, lw=1.6)
        for row in records(chosen) if len(chosen) <= MOST_LABELS else ():
            name = f"{labels[row['checkpoint']]} {row['head']}"
            position = (row["score"], row["effect"])
            style = {"fontsize": 6.5, "color": INTACT, "ha": "right", "parse_math": False}
            ax.annotate(name, position, (-5, 4), textcoords="offset points", **style)
        ax.axvline(ATTENDS, color=GREY, lw=0.8, ls=":", zorder=0)
        ax.axhline(HALF, color=GREY, lw=0.8, ls=":", zorder=0)
        ax.set(title=function_class, xlabel="retrospective score", xlim=(-0.02, 1), ylim=(low - margin, high + margin))
    axes[0].set_ylabel("share of the in-context gain lost")
    legend_beside(axes)
    return [image(axes, f"effect of removing each of {len(dose)} heads x classes against its score", "svg")]


def emergence_figures(model: ModelEvidence) -> list[str]:
    """Scores of the found heads and of the best other head, and the error, by training step; a panel per class."""
    table = model.emergence
    names = distinct(table, "function_class")
    axes = row_of_axes(len(names), width=2.9, height=2.7)
    heads = [head for head in distinct(table, "head") if head != BEST_OTHER]
    colours = {BEST_OTHER: NULL, **dict(zip(heads, sns.color_palette("crest", len(heads)), strict=True))}
    for ax, function_class in zip(axes, names, strict=True):
        rows = where(table, function_class=function_class)
        for head, curve in rows.groupby("head", sort=False):
            label = "highest score of the others" if head == BEST_OTHER else f"score of {head}"
            ax.plot(curve["step"] + 1, curve["score"], ".-", ms=4, lw=1.6, color=colours[str(head)], label=label)
        error = rows.drop_duplicates("step")
        ax.plot(error["step"] + 1, error["error"], ".--", ms=4, lw=1.4, color=MODES["zero"], label="error / no context")
        ax.axhline(ATTENDS, color=GREY, lw=0.8, ls=":", zorder=0)
        ax.set(title=function_class, xlabel="training step + 1", xscale="log", ylim=(0, 1.25))
    axes[0].set_ylabel("score; error")
    legend_beside(axes)
    return [image(axes, f"{', '.join(map(str, names))}: scores and error by training step", "svg")]


def study_figures(findings: Findings) -> list[str]:
    """All figures of a study."""
    return [image(findings.plot(name), f"{findings.question} {name}", "svg") for name in findings.figures]

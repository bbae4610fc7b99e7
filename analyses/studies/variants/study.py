"""What changes with size, prompt length, function class or instruction, and what stays? (paper.md, section 10.2)

1. Variants: runs of one configuration, called by what it changes in that of the first checkpoint, the reference.
2. In every model: the error in units of the no-context optimum; the heads above `ATTENDS` on selection prompts, how
   many there are and in which layers; what removing them costs (mean ablation, against layer-matched sets); how many
   heads matter alone (`analyses.studies.variants.measures`).
3. Each variant beside the reference, over independent seeds (Welch, Holm over variants); trends along a setting that
   varies alone (Spearman, permutation p, Holm over all trends).
"""

from collections.abc import Mapping, Sequence
from functools import partial
from textwrap import fill

import pandas as pd
from matplotlib.axes import Axes

from analyses.comparison.paired_errors import ClassErrors, errors_on
from analyses.findings import Findings
from analyses.studies.variants.comparison import compare, errors_by_class, trends
from analyses.studies.variants.grouping import REFERENCE, variants
from analyses.studies.variants.measures import MEASURES, Measured, measure, model_row
from analyses.studies.variants.verdict import cell, verdict
from interp.ablation.pooled import pooled
from interp.ablation.size_classes import ATTENDS
from interp.display.axes import INTACT, NULL, panels
from training.checkpoints.checkpoint import Checkpoint
from training.common.output import interval, records
from training.common.progress import progress_bar
from training.common.table_rows import distinct, where
from training.options import DEFAULT_CONTROLS

QUESTION = "What changes with size, prompt length, function class or instruction, and what stays?"

N_COLUMNS = 4
SHORT = {
    "ratio": "error / no context",
    "n_found": f"heads > {ATTENDS}",
    "depth": "depth",
    "effect": "gain lost without",
    "n_matter": "heads that matter",
}


def study(checkpoints: Sequence[Checkpoint], *, n_prompts: int = 1024, seed: int = 0) -> Findings:
    """Run the study; the first checkpoint's variant is the reference.

    Args:
        checkpoints: loaded runs.
        n_prompts: per class and stream.
        seed: of prompts, null sets and resampling.
    """
    groups = variants(checkpoints)
    errors: dict[str, dict[str, ClassErrors]] = {}
    model_parts, class_parts, effect_parts = [], [], []
    bar = progress_bar(total=len(groups.checkpoints), desc="variants", unit="model")
    for variant, same in groups.by_curriculum.items():
        names = same[0].config.trained_classes
        errors[variant] = {name: errors_on(same, name, n_prompts=n_prompts, seed=seed) for name in names}
        measured = []
        for one in same:
            measured.append(measure(one, errors[variant], n_prompts, seed))
            bar.update()
        model_parts.append(pd.DataFrame([model_row(one) for one in measured]).assign(variant=variant))
        class_parts.append(pd.concat([one.classes for one in measured], ignore_index=True).assign(variant=variant))
        effect_parts.append(pooled_effects(measured).assign(variant=variant))
    bar.close()
    models, classes, effects = (pd.concat(p, ignore_index=True) for p in (model_parts, class_parts, effect_parts))
    compared, by_class, along = compare(models, groups), errors_by_class(groups, errors), trends(models, groups, seed)
    return Findings(
        QUESTION,
        verdict(models, compared, by_class, along, groups),
        {
            "reference": groups.by_curriculum[REFERENCE][0].name,
            "checkpoints": [one.name for one in groups.checkpoints],
            "left out": list(groups.left_out) or "none",
            "prompts": n_prompts,
            "seed": seed,
            "controls": DEFAULT_CONTROLS,
            "score above": ATTENDS,
        },
        {
            "models": models,
            "classes": classes,
            "effects": effects,
            "variants": compared,
            "errors": by_class,
            "trends": along,
        },
        shown(compared, by_class),
        {"variants": partial(plot_variants, models)},
    )


def pooled_effects(measured: Sequence[Measured]) -> pd.DataFrame:
    """What removing the found heads costs, over the independent seeds of one variant (`interp.pooled`)."""
    found = [(one.checkpoint, one.removed, one.found) for one in measured if one.removed is not None]
    if not found:
        return pd.DataFrame()
    models, ablations, sets = zip(*found, strict=True)
    return pooled(models, ablations, sets, "the set of retrospective heads")


def shown(compared: pd.DataFrame, errors: pd.DataFrame) -> Mapping[str, pd.DataFrame]:
    """Variants down: what was measured across, then errors by class."""
    rows = []
    for variant in distinct(compared, "variant"):
        here = {row["measure"]: row for row in records(where(compared, variant=variant))}
        seeds = str(here["n_found"]["n_seeds"])
        rows.append({"variant": variant, "seeds": seeds} | {words: cell(here[key]) for key, words in SHORT.items()})
    by_class = [
        {
            "variant": row["variant"],
            "class": row["function_class"],
            "error / no context": interval(row["ratio"], row["ratio_low"], row["ratio_high"]),
            "difference to the reference": interval(row["difference"], row["low"], row["high"]),
        }
        for row in records(errors)
    ]
    return {
        "mean over independent seeds [t-interval]": pd.DataFrame(rows),
        "error by class [interval over seeds and prompts]": pd.DataFrame(by_class),
    }


def plot_variants(models: pd.DataFrame) -> list[Axes]:
    """A panel per measure: a dot per model, a row per variant; the line is the mean of the reference."""
    names = distinct(models, "variant")
    axes = panels(len(MEASURES), N_COLUMNS, width=2.4, height=0.8 + 0.24 * len(names))
    for place, (ax, (measure_name, words)) in enumerate(zip(axes, MEASURES.items(), strict=True)):
        reference = where(models, variant=REFERENCE)[measure_name].dropna().to_numpy()
        if len(reference):
            ax.axvline(float(reference.mean()), color=NULL, lw=1, zorder=0)
        for row, name in enumerate(names):
            values = where(models, variant=name)[measure_name].dropna().to_numpy()
            ax.plot(values, [row] * len(values), "o", ms=4, alpha=0.6, mec="none", color=INTACT)
        labels = names if place % N_COLUMNS == 0 else []
        ax.set_yticks(range(len(names)), labels or [""] * len(names), fontsize=7)
        ax.set(ylim=(len(names) - 0.5, -0.5))
        ax.set_title(fill(words, 28), fontsize=8)
    return axes

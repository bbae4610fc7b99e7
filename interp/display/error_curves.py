"""The figure of `interp eval`: error by number of in-context examples."""

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from interp.display.axes import GREY, INTACT, legend_beside, name_model, row_of_axes
from training.common.output import records
from training.common.table_rows import where

BASELINE_STYLES = {"no_context": ("#666666", ":"), "least_squares": ("#c8553d", "--"), "ridge": ("#e0a458", "--")}
OTHER_BASELINES = ("#3f7d58", "#7a5195", "#8d6e63", "#00838f", "#ad1457")
LABELS = {"no_context": "no-context optimum", "ridge": "ridge, best penalty", "dmmse": "dMMSE"}


def plot_error_curves(curves: pd.DataFrame) -> list[Axes]:
    """Error by number of in-context examples, one panel per class, input distribution and source of functions.

    Every checkpoint's model has a line with its 95 % band; the reference predictors are those of the first checkpoint.
    """
    varying = [key for key in ("inputs", "functions") if len({*curves[key]}) > 1]
    keys = ["function_class", "inputs", "functions"]
    panels = records(curves.loc[:, keys].drop_duplicates())
    axes = row_of_axes(len(panels), width=2.9, height=2.7)
    for ax, panel in zip(axes, panels, strict=True):
        rows = where(curves, **panel)
        models = where(rows, predictor="model").groupby("checkpoint", sort=False)
        colours = sns.color_palette("crest", len(models)) if len(models) > 1 else [INTACT]
        for colour, (checkpoint, curve) in zip(colours, models, strict=True):
            label = str(checkpoint) if len(models) > 1 else "model"
            ax.plot(curve["examples"], curve["error"], color=colour, label=label, lw=2)
            ax.fill_between(curve["examples"], curve["ci_low"], curve["ci_high"], color=colour, alpha=0.2, lw=0)
        first = where(rows, checkpoint=rows["checkpoint"].iloc[0])
        draw_baselines(ax, first)
        ax.set(
            title=", ".join([panel["function_class"], *(panel[key] for key in varying)]),
            xlabel="in-context examples",
            ylim=(0, 1.6 * where(first, predictor="zero")["error"].mean()),
        )
    shift = curves["shift"].iloc[0]
    units = {"nmse": "MSE / E[y²]", "paper": "MSE / n_dims"}[curves["units"].iloc[0]]
    axes[0].set_ylabel(units if shift == "none" else f"{units}, {shift}")
    legend_beside(axes)
    if len(models := curves[["checkpoint", "step"]].drop_duplicates()) == 1:
        name_model(axes, *(f"{name}, step {step}" for name, step in models.itertuples(index=False)))
    return axes


def draw_baselines(ax: Axes, curves: pd.DataFrame) -> None:
    """The reference predictors of one panel as thin lines."""
    names = [name for name in curves["predictor"].unique() if name not in ("model", "zero")]
    others = dict(zip((name for name in names if name not in BASELINE_STYLES), OTHER_BASELINES, strict=False))
    for name in names:
        colour, style = BASELINE_STYLES.get(name, (others.get(name, GREY), "-."))
        curve, label = where(curves, predictor=name), LABELS.get(name, name.replace("_", " "))
        ax.plot(curve["examples"], curve["error"], style, color=colour, label=label, lw=1.2)

"""The figure of `interp history`: error by training step, with the no-context optimum and the line of convergence."""

from collections.abc import Mapping

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from interp.display.axes import GREY, INTACT, legend_beside, row_of_axes
from training.common.table_rows import where


def plot_learning_curves(histories: Mapping[str, pd.DataFrame], converged_below: float) -> list[Axes]:
    """Error over the last quarter of the points by step, one panel per class and input distribution.

    Args:
        histories: by the name of the checkpoint, `training.evaluation.convergence.recorded_errors`.
        converged_below: the share of the no-context optimum below which a run has converged.
    """
    arms = {
        arm: None
        for history in histories.values()
        for arm in zip(history["function_class"], history["inputs"], strict=True)
    }
    colours = sns.color_palette("crest", len(histories)) if len(histories) > 1 else [INTACT]
    axes = row_of_axes(len(arms), width=2.9, height=2.7)
    for ax, (function_class, inputs) in zip(axes, arms, strict=True):
        for colour, (name, history) in zip(colours, histories.items(), strict=True):
            rows = where(history, function_class=function_class, inputs=inputs)
            ax.plot(rows["step"], rows["nmse_tail"], color=colour, lw=1.5, label=name)
        first = where(next(iter(histories.values())), function_class=function_class, inputs=inputs)
        ax.plot(first["step"], first["no_context_tail"], ":", color=GREY, lw=1.2, label="no-context optimum")
        limit = converged_below * first["no_context_tail"]
        ax.plot(first["step"], limit, "--", color=GREY, lw=0.8, label=f"{converged_below:g} of it (converged)")
        ax.set(title=f"{function_class}, {inputs}", xlabel="step", ylim=(0, None))
    axes[0].set_ylabel("MSE / E[y²], last quarter")
    legend_beside(axes)
    return axes

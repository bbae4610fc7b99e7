"""The figure of the study of transplants."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from analyses.studies.plateaus.measures import LEFT
from training.common.table_rows import distinct, where


def plot_times(exits: pd.DataFrame, last: int) -> list[Axes]:
    """The step at which every run left its plateau, a row per arm; hollow at the last step if it had not."""
    rows = where(exits, threshold=LEFT)
    arms = distinct(rows, "curriculum")
    _, ax = plt.subplots(figsize=(6.5, 0.4 * len(arms) + 1), layout="constrained")
    for row, arm in enumerate(arms):
        steps = where(rows, curriculum=arm)["step"]
        left, n_censored = steps.dropna(), int(steps.isna().to_numpy().sum())
        ax.plot(left, [row] * len(left), "o", color="#1b6ca8", alpha=0.6)
        ax.plot([last] * n_censored, [row] * n_censored, "o", mfc="none", color="grey")
    ax.set_yticks(range(len(arms)), arms)
    ax.invert_yaxis()
    ax.set(xlabel=f"step at which the plateau was left (hollow: not by step {last})", xlim=(0, 1.03 * last))
    return [ax]

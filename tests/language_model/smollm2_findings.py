"""What the parts of `smollm2.py` say together: tables, how well scores rank effects, a figure and sentences."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from interp.any_model.verdict import loss_verdict
from interp.display.axes import GREY, MODES, NULL, Axes, grid_of_axes, save_figure
from interp.statistics.agreement import spearman
from training.common import output
from training.common.bootstrap import percentile_interval
from training.common.table_rows import distinct, where
from training.common.terminal import echo

LINE = 0.5
"""Scores below this are asked whether they still rank effects."""
N_DRAWS = 10_000
"""Permutations of scores within layers."""
N_RESAMPLES = 2_000
"""Of heads."""
RANKED = ("induction", "retrospective", "previous_token")
EFFECT = ["effect", "ci_low", "ci_high"]
COUNTS = {"n_controls": int, "n_disjoint": int, "exact": bool}
"""Columns that control sets do not have, so that they are read as floats."""


class Findings(NamedTuple):
    """Tables over all tasks; a table is empty where no task has its parts.

    Attributes:
        heads: one row per task and head: scores, and the effect of removing it alone.
        highest: one row per task, score and mode: the highest heads removed together.
        controls: the effects of their control sets.
        ranks: one row per task, score and range of scores: how well the score ranks effects.
        seconds: one row per part.
    """

    heads: pd.DataFrame
    highest: pd.DataFrame
    controls: pd.DataFrame
    ranks: pd.DataFrame
    seconds: pd.DataFrame


def collect(out: Path, tasks: tuple[str, ...]) -> Findings:
    """The tables of the parts that are there."""
    heads, highest, ranks, seconds = [], [], [], []
    for task in tasks:
        parts = {path.stem: read_part(path) for path in sorted((out / task).glob("*.csv"))}
        seconds += [{"task": task, "part": name, "seconds": part["seconds"].iloc[0]} for name, part in parts.items()]
        together = [part.assign(task=task, score=name.split("-")[1]) for name, part in parts.items() if "-" in name]
        highest += [part for part in together if "match" in part]
        alone = pd.concat([part for part in together if "match" not in part] or [pd.DataFrame({"heads": []})])
        if "scores" in parts and len(alone) == len(parts["scores"]):
            scores = parts["scores"].drop(columns="seconds").assign(task=task)
            heads.append(scores.merge(alone[["heads", *EFFECT]], on="heads"))
            ranks += [{"task": task} | row for row in rank_rows(heads[-1])]
    joined = pd.concat(highest, ignore_index=True)
    return Findings(
        pd.concat(heads, ignore_index=True) if heads else pd.DataFrame(),
        where(joined, match="tested").astype(COUNTS),
        where(joined, match="layer").reindex(columns=["task", "score", "mode", "effect"]),
        pd.DataFrame(ranks),
        pd.DataFrame(seconds),
    )


def read_part(path: Path) -> pd.DataFrame:
    """The table of a part; heads are names, no numbers."""
    return pd.read_csv(path, dtype={"heads": str, "note": str}).fillna({"note": ""})


def rank_rows(heads: pd.DataFrame) -> list[dict[str, Any]]:
    """Spearman's correlation of each score with the effect, over all heads and over those below the line."""
    rows = []
    for kind in [name for name in RANKED if name in heads]:
        for label, chosen in (("all", heads), (f"below {LINE}", heads.loc[heads[kind] < LINE])):
            scores, effects, layers = (chosen[column].to_numpy() for column in (kind, "effect", "layer"))
            rows.append({"score": kind, "heads": label} | rank_agreement(scores, effects, layers))
    return rows


def rank_agreement(scores: np.ndarray, effects: np.ndarray, layers: np.ndarray) -> dict[str, float]:
    """Spearman's correlation of a score and the effect.

    The interval is over heads. p is two-sided, against scores that are permuted within layers: scores and effects that
    differ between layers only are no evidence that the score ranks heads.
    """
    rng = np.random.default_rng(0)
    resampled = rng.integers(len(scores), size=(N_RESAMPLES, len(scores)))
    low, high = percentile_interval(spearman(scores[resampled], effects[resampled])[:, None])
    permuted = np.empty((N_DRAWS, len(scores)))
    for layer in np.unique(layers):
        of_layer = np.flatnonzero(layers == layer)
        permuted[:, of_layer] = rng.permuted(np.broadcast_to(scores[of_layer], (N_DRAWS, len(of_layer))), axis=1)
    value, null = spearman(scores, effects).item(), spearman(permuted, np.broadcast_to(effects, permuted.shape))
    n_extreme = int((np.abs(null - null.mean()) >= abs(value - null.mean())).sum())
    return {
        "n_heads": len(scores),
        "spearman": value,
        "ci_low": low.item(),
        "ci_high": high.item(),
        "between_layers": float(null.mean()),
        "p_value": (n_extreme + 1) / (N_DRAWS + 1),
    }


def draw(findings: Findings) -> list[Axes]:
    """Per task: the highest heads against control sets (grey), and the effect of every head alone by its score."""
    tasks = distinct(findings.highest, "task")
    grid = grid_of_axes(len(tasks), 2, width=4.0, height=3.0)
    for (left, right), task in zip(grid, tasks, strict=True):
        kind = distinct(where(findings.highest, task=task), "score")[0]
        draw_highest(left, findings, task, kind)
        if task in distinct(findings.heads, "task"):
            heads = where(findings.heads, task=task)
            right.plot(heads[kind], heads["effect"], ".", color=MODES["mean"], ms=4)
            right.axvline(LINE, color=GREY, lw=0.8, ls=":")
            right.set(title=f"{task}: {len(heads)} heads, each alone (mean)", xlabel=f"{kind} score")
        for ax in (left, right):
            ax.axhline(0, color=GREY, lw=0.8, ls=":", zorder=0)
    return [ax for row in grid for ax in row]


def draw_highest(ax: Axes, findings: Findings, task: str, kind: str) -> None:
    """The highest heads removed together, and their control sets, by mode."""
    rows = output.records(where(findings.highest, task=task, score=kind))
    rng = np.random.default_rng(0)  # sideways jitter only
    for x, row in enumerate(rows):
        null = where(findings.controls, task=task, score=kind, mode=row["mode"])["effect"]
        ax.plot(x + rng.uniform(-0.22, 0.22, len(null)), null, ".", color=NULL, ms=4)
        spread = [[row["effect"] - row["ci_low"]], [row["ci_high"] - row["effect"]]]
        ax.errorbar([x], [row["effect"]], yerr=spread, fmt="o", color=MODES[row["mode"]], capsize=3)
    ax.set(title=f"{task}: {rows[0]['heads']}", ylabel="share of the in-context gain lost")
    ax.set_xticks(range(len(rows)), [row["mode"] for row in rows])


def write_findings(findings: Findings, out: Path) -> None:
    """Write tables and the figure, and print the sentences."""
    for name, table in findings._asdict().items():
        output.write_table(table, out / f"smollm2_{name}.csv")
    save_figure(draw(findings), out / "smollm2.png")
    for task in distinct(findings.highest, "task"):
        for kind in distinct(where(findings.highest, task=task), "score"):
            rows = where(findings.highest, task=task, score=kind).assign(note="")
            echo(f"{task}, highest by {kind}: {' '.join(loss_verdict(rows))}")
    echo(findings.ranks.round(3).to_string(index=False))

"""Tables for readers: cells as text, each with the value by which its column is sorted."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from analyses.report.agreement import MEASURES, between_classes
from analyses.report.dose import dose_correlations, median_and_range
from analyses.report.emergence import onsets
from analyses.report.evidence import LEAD, Evidence, ModelEvidence
from analyses.report.tables import model_rows
from interp.model.heads import Head, show
from interp.patching.paths import ALL
from interp.statistics.effects import rank_by_evidence
from interp.statistics.p_values import draws_behind, p_number
from training.common.output import count, interval, number, records
from training.common.table_rows import where


class Cell(NamedTuple):
    """What is read, and what is sorted by; cells without a value sort last."""

    text: str
    value: float | str


@dataclass(frozen=True)
class Table:
    """A sortable table; the first column names the row.

    Attributes:
        caption: above it.
        columns: their titles.
        rows: of cells.
    """

    caption: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]

    def is_number(self, column: int) -> bool:
        return all(isinstance(row[column].value, float) for row in self.rows)


def words(content: str) -> Cell:
    return Cell(content or "none", content)


def value(x: float, digits: int = 3) -> Cell:
    return Cell(number(0.0 if abs(x) < 0.5 * 10**-digits else x, digits), float(x))  # no "-0.000"


def with_interval(x: float, low: float, high: float) -> Cell:
    return Cell(interval(x, low, high), float(x))


def steps(x: float) -> Cell:
    return Cell("never" if math.isnan(x) else count(x), float(x))


def p_cell(row: Mapping[str, Any], null: str = "") -> Cell:
    """p after Holm with the smallest p that the number of sets allows before it."""
    p, smallest = row[f"{null}p_holm"], row[f"{null}smallest_p"]
    if math.isnan(p):
        return Cell("–", math.nan)
    text = p_number(p, draws_behind(row, null), unadjusted=row[f"{null}p_value"])
    return Cell(f"{text} (least {smallest:.3g})", float(p))


def t_cell(low: float, high: float) -> Cell:
    """A t-interval, which a single seed has not."""
    return Cell("–" if math.isnan(low) else f"[{number(low)}, {number(high)}]", float(low))


def models_table(evidence: Evidence, labels: dict[str, str]) -> Table:
    """One row per model and class."""
    rows = []
    for model in evidence.models:
        for row in model_rows(model):
            scored = ", ".join(f"{head} ({model.selection[head]:.2f})" for head in model.found)
            share = row["nmse"] / row["nmse_no_context"]  # type: ignore[operator]  # both numbers
            rows.append(
                (
                    words(labels[model.name]),
                    words(model.curriculum),
                    Cell(
                        f"{row['function_class']}{'' if row['trained'] else ' (untrained)'}", str(row["function_class"])
                    ),
                    value(share, 2),
                    words(scored),
                    with_interval(*(float(row[key]) for key in ("effect", "ci_low", "ci_high"))),  # type: ignore[arg-type]
                    p_cell(row),
                )
            )
    columns = (
        "model",
        "curriculum",
        "class",
        "error / no context",
        "found heads (score)",
        f"effect ({LEAD})",
        "p, Holm",
    )
    return Table("Every model and function class", columns, rows)


def pooled_table(evidence: Evidence) -> Table:
    """One row per curriculum, class and mode."""
    rows = [
        (
            words(row["curriculum"]),
            words(row["function_class"]),
            words(row["mode"]),
            with_interval(row["effect"], row["ci_low"], row["ci_high"]),
            t_cell(row["t_low"], row["t_high"]),
            value(float(row["n_seeds"]), 0),
            p_cell(row),
        )
        for row in records(evidence.pooled)
    ]
    columns = (
        "curriculum",
        "class",
        "replacement",
        "effect",
        "t-interval over seeds",
        "independent seeds",
        "p after Holm (least raw p)",
    )
    return Table("Removing the found heads, over independent seeds", columns, rows)


def effects_table(model: ModelEvidence) -> Table:
    """Every set, class and mode of one model."""
    assert model.ablation is not None
    rows = [
        (
            words(row["heads"]),
            words(row["function_class"]),
            words(row["mode"]),
            with_interval(row["effect"], row["ci_low"], row["ci_high"]),
            value(row["direct_effect"]),
            value(row["frozen_effect"]),
            Cell(f"{row['n_controls']}{' (all)' if row['exact'] else ''}", float(row["n_controls"])),
            value(row["control_effect"]),
            value(row["control_max"]),
            p_cell(row),
            p_cell(row, "size_"),
        )
        for row in records(model.ablation.table)
    ]
    columns = (
        "heads",
        "class",
        "replacement",
        "effect",
        "direct effect",
        "frozen LN",
        "controls",
        "control mean",
        "control maximum",
    )
    return Table(
        "Removing the found heads, and each of them", (*columns, "p after Holm, same layers", "any layers"), rows
    )


def onset_table(models: Sequence[ModelEvidence], labels: dict[str, str]) -> Table:
    """When found heads began to attend and when the model learned."""
    rows = [
        (
            words(labels[one.name]),
            words(row["function_class"]),
            words(row["head"]),
            steps(row["attends_at"]),
            steps(row["learns_at"]),
        )
        for one in models
        if not one.emergence.empty
        for row in records(onsets(one.emergence))
    ]
    columns = (
        "model",
        "class",
        "head",
        "score stays above 0.5 from step",
        "error stays below half of no context from step",
    )
    return Table("When heads and learning begin, among the snapshots looked at", columns, rows)


def dose_table(models: Sequence[ModelEvidence], labels: dict[str, str]) -> Table:
    """Rank correlation of score and effect over the heads of every model."""
    rows = [
        (
            words(labels[row["checkpoint"]]),
            words(row["function_class"]),
            value(row["spearman"], 2),
            value(float(row["n_heads"]), 0),
        )
        for row in records(dose_correlations(models))
    ]
    return Table("Rank correlation of score and effect over heads", ("model", "class", "Spearman", "heads"), rows)


def summarised(values: Sequence[float]) -> Cell:
    """The median over models with their range."""
    middle, low, high = median_and_range(values)
    return Cell("–" if math.isnan(middle) else f"{middle:z.2f} (from {low:z.2f} to {high:z.2f})", middle)


def dose_summary(models: Sequence[ModelEvidence]) -> Table:
    """The rank correlations of score and effect, by class."""
    table = dose_correlations(models)
    rows = []
    for name in dict.fromkeys(table["function_class"]):
        rho = where(table, function_class=name)["spearman"].tolist()
        rows.append((words(name), summarised(rho), value(float(sum(not math.isnan(one) for one in rho)), 0)))
    return Table(
        "Rank correlation of score and effect over heads, median over models", ("class", "Spearman", "models"), rows
    )


def agreement_summary(models: Sequence[ModelEvidence]) -> Table:
    """How far the classes of a model agree, by pair of classes."""
    table = pd.concat([between_classes(one) for one in models])
    rows = [
        (words(f"{first}, {second}"), *(summarised(pair[key].tolist()) for key in MEASURES))
        for (first, second), pair in table.groupby(["first", "second"], sort=False)  # pyright: ignore
        if first < second
    ]
    columns = ("classes", "rank correlation of scores", "of effects of single heads", "overlap of heads above 0.5")
    return Table("Agreement between the classes of a model, median over models", columns, rows)


def head_table(model: ModelEvidence, head: Head) -> Table:
    """One found head: score and effect by class and mode."""
    assert model.ablation is not None
    alone = where(model.ablation.table, heads=show((head,)))
    modes = list(dict.fromkeys(alone["mode"]))
    rows = []
    for name in model.classes:
        scores = model.retrospective
        of_class = {row["mode"]: row for row in records(where(alone, function_class=name))}
        cells = [
            with_interval(of_class[mode]["effect"], of_class[mode]["ci_low"], of_class[mode]["ci_high"])
            for mode in modes
        ]
        own = with_interval(*(float(one[name][head]) for one in (scores.values, scores.ci_low, scores.ci_high)))
        rows.append((words(name), own, *cells))
    columns = ("class", "retrospective score", *(f"effect, {mode}" for mode in modes))
    return Table(f"Head {head} by function class", columns, rows)


def reads_table(model: ModelEvidence, head: Head) -> Table:
    """What a head reads: every kind of score, mean over classes, the furthest above chance first."""
    rows = []
    for kind, scores in model.scores.items():
        own, chance = float(scores.mean(model.classes)[head]), scores.chance
        above = (own - chance) / (scores.kind.best - chance)
        rows.append((words(kind.replace("_", " ")), value(own), value(chance), value(above, 2)))
    rows.sort(key=lambda row: -float(row[3].value))
    return Table(f"What {head} reads", ("score", "value", "chance", "of the way to the maximum"), rows)


def evidence_of(row: Mapping[str, Any]) -> tuple[bool, float]:
    return rank_by_evidence(row["effect"], row["ci_low"], row["ci_high"])


def readers_table(model: ModelEvidence, head: Head, most: int = 6) -> Table:
    """Who reads a head: the strongest paths on each class, as shares of its effect through all of them."""
    rows = []
    own = where(model.paths, sender=str(head))
    for name in dict.fromkeys(own["function_class"]):
        of_class = [row for row in records(where(own, function_class=name)) if row["receiver"] != ALL]
        for row in sorted(of_class, key=evidence_of)[:most]:
            share = with_interval(row["share"], row["share_low"], row["share_high"])
            rows.append(
                (
                    words(name),
                    words(row["receiver"]),
                    share,
                    with_interval(row["effect"], row["ci_low"], row["ci_high"]),
                )
            )
    title = f"Who reads {head}: the {most} strongest paths"
    return Table(title, ("class", "input", "share of the head's effect", "effect"), rows)

"""Tables of the page: cells as text, each with the value by which its column is sorted."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd

from analyses.findings import Findings
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
from training.common.table_rows import distinct, where

Row = Mapping[str, Any]


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


Column = Callable[[Row], Cell]


def make_table(caption: str, rows: Sequence[Row], columns: Mapping[str, Column]) -> Table:
    """A line per row, its cells by the title of their column."""
    return Table(caption, tuple(columns), [tuple(column(row) for column in columns.values()) for row in rows])


def text_cell(content: str) -> Cell:
    return Cell(content or "none", content)


def number_cell(x: float, digits: int = 3) -> Cell:
    return Cell(number(0.0 if abs(x) < 0.5 * 10**-digits else x, digits), float(x))  # no "-0.000"


def interval_cell(x: float, low: float, high: float) -> Cell:
    return Cell(interval(x, low, high), float(x))


def step_cell(x: float) -> Cell:
    return Cell("never" if math.isnan(x) else count(x), float(x))


def range_cell(values: Sequence[float]) -> Cell:
    """The median over models with their range."""
    middle, low, high = median_and_range(values)
    return Cell("–" if math.isnan(middle) else f"{middle:z.2f} (from {low:z.2f} to {high:z.2f})", middle)


def text_of(key: str) -> Column:
    return lambda row: text_cell(str(row[key]))


def number_of(key: str, digits: int = 3) -> Column:
    return lambda row: number_cell(float(row[key]), digits)


def step_of(key: str) -> Column:
    return lambda row: step_cell(row[key])


def interval_of(key: str, low: str = "ci_low", high: str = "ci_high") -> Column:
    return lambda row: interval_cell(*(float(row[name]) for name in (key, low, high)))


def p_of(prefix: str = "") -> Column:
    """p after Holm with the smallest p that the number of control sets allows before it."""

    def cell(row: Row) -> Cell:
        p, smallest = row[f"{prefix}p_holm"], row[f"{prefix}smallest_p"]
        if math.isnan(p):
            return Cell("–", math.nan)
        text = p_number(p, draws_behind(row, prefix), unadjusted=row[f"{prefix}p_value"])
        return Cell(f"{text} (least {smallest:.3g})", float(p))

    return cell


def seed_interval_cell(row: Row) -> Cell:
    """A t-interval, which a single seed has not."""
    low, high = row["t_low"], row["t_high"]
    return Cell("–" if math.isnan(low) else f"[{number(low)}, {number(high)}]", float(low))


def controls_cell(row: Row) -> Cell:
    return Cell(f"{row['n_controls']}{' (all)' if row['exact'] else ''}", float(row["n_controls"]))


def models_table(evidence: Evidence, labels: dict[str, str]) -> Table:
    """One row per model and class."""
    rows = []
    for model in evidence.models:
        scores = ", ".join(f"{head} ({model.selection[head]:.2f})" for head in model.chosen_heads)
        for row in model_rows(model):
            trained = "" if row["trained"] else " (untrained)"
            rows.append(row | {"model": labels[model.name], "scores": scores, "trained": trained})
    columns: dict[str, Column] = {
        "model": text_of("model"),
        "curriculum": text_of("curriculum"),
        "class": lambda row: Cell(row["function_class"] + row["trained"], row["function_class"]),
        "error / no context": lambda row: number_cell(row["nmse"] / row["nmse_no_context"], 2),
        "found heads (score)": text_of("scores"),
        f"effect ({LEAD})": interval_of("effect"),
        "p, Holm": p_of(),
    }
    return make_table("Every model and function class", rows, columns)


def pooled_table(evidence: Evidence) -> Table:
    """One row per curriculum, class and mode."""
    columns: dict[str, Column] = {
        "curriculum": text_of("curriculum"),
        "class": text_of("function_class"),
        "mode": text_of("mode"),
        "effect": interval_of("effect"),
        "t-interval over seeds": seed_interval_cell,
        "independent seeds": number_of("n_seeds", 0),
        "p after Holm (least raw p)": p_of(),
    }
    return make_table("Removing the found heads, over independent seeds", records(evidence.pooled), columns)


def effects_table(model: ModelEvidence) -> Table:
    """Every set, class and mode of one model."""
    assert model.ablation is not None
    columns: dict[str, Column] = {
        "heads": text_of("heads"),
        "class": text_of("function_class"),
        "mode": text_of("mode"),
        "effect": interval_of("effect"),
        "direct effect": number_of("direct_effect"),
        "frozen LN": number_of("frozen_effect"),
        "controls": controls_cell,
        "control mean": number_of("control_effect"),
        "control maximum": number_of("control_max"),
        "p after Holm, same layers": p_of(),
        "p after Holm, any layers": p_of("size_"),
    }
    return make_table("Removing the found heads, and each of them", records(model.ablation.table), columns)


def onset_table(models: Sequence[ModelEvidence], labels: dict[str, str]) -> Table:
    """When found heads began to attend and when the model learned."""
    rows = [
        {"model": labels[model.name], **row}
        for model in models
        if not model.emergence.empty
        for row in records(onsets(model.emergence))
    ]
    columns: dict[str, Column] = {
        "model": text_of("model"),
        "class": text_of("function_class"),
        "head": text_of("head"),
        "score stays above 0.5 from step": step_of("attends_at"),
        "error stays below half of no context from step": step_of("learns_at"),
    }
    return make_table("When heads and learning begin, among the measured snapshots", rows, columns)


def dose_table(models: Sequence[ModelEvidence], labels: dict[str, str]) -> Table:
    """Rank correlation of score and effect over the heads of every model."""
    columns: dict[str, Column] = {
        "model": lambda row: text_cell(labels[row["checkpoint"]]),
        "class": text_of("function_class"),
        "Spearman": number_of("spearman", 2),
        "heads": number_of("n_heads", 0),
    }
    return make_table("Rank correlation of score and effect over heads", records(dose_correlations(models)), columns)


def dose_summary(models: Sequence[ModelEvidence]) -> Table:
    """The rank correlations of score and effect, by class."""
    table = dose_correlations(models)
    rows = [
        {"function_class": name, "spearman": where(table, function_class=name)["spearman"].tolist()}
        for name in distinct(table, "function_class")
    ]
    columns: dict[str, Column] = {
        "class": text_of("function_class"),
        "Spearman": lambda row: range_cell(row["spearman"]),
        "models": lambda row: number_cell(float(sum(not math.isnan(rho) for rho in row["spearman"])), 0),
    }
    return make_table("Rank correlation of score and effect over heads, median over models", rows, columns)


def agreement_summary(models: Sequence[ModelEvidence]) -> Table:
    """How far the classes of a model agree, by pair of classes."""
    table = pd.concat([between_classes(model) for model in models])
    rows = [
        (text_cell(f"{first}, {second}"), *(range_cell(pair[measure].tolist()) for measure in MEASURES))
        for (first, second), pair in table.groupby(["first", "second"], sort=False)  # pyright: ignore
        if first < second
    ]
    columns = ("classes", "rank correlation of scores", "of effects of single heads", "overlap of heads above 0.5")
    return Table("Agreement between the classes of a model, median over models", columns, rows)


def head_table(model: ModelEvidence, head: Head) -> Table:
    """One found head: score and effect by class and mode."""
    assert model.ablation is not None
    alone = where(model.ablation.table, heads=show((head,)))
    scores = model.retrospective
    rows = [
        {"function_class": name, "score": scores.values[name][head]}
        | {"ci_low": scores.ci_low[name][head], "ci_high": scores.ci_high[name][head]}
        | {row["mode"]: row for row in records(where(alone, function_class=name))}
        for name in model.classes
    ]

    def effect_in(mode: str) -> Column:
        return lambda row: interval_of("effect")(row[mode])

    effects = {f"effect, {mode}": effect_in(mode) for mode in distinct(alone, "mode")}
    columns = {"class": text_of("function_class"), "retrospective score": interval_of("score"), **effects}
    return make_table(f"Head {head} by function class", rows, columns)


def reads_table(model: ModelEvidence, head: Head) -> Table:
    """What a head reads: every kind of score, mean over classes, the furthest above chance first."""
    rows = []
    for kind, scores in model.scores.items():
        value, chance = float(scores.mean(model.classes)[head]), scores.chance
        share = (value - chance) / (scores.kind.best - chance)
        rows.append({"score": kind.replace("_", " "), "value": value, "chance": chance, "share": share})
    columns: dict[str, Column] = {
        "score": text_of("score"),
        "value": number_of("value"),
        "chance": number_of("chance"),
        "of the way to the maximum": number_of("share", 2),
    }
    return make_table(f"What {head} reads", sorted(rows, key=lambda row: -row["share"]), columns)


def readers_table(model: ModelEvidence, head: Head, most: int = 6) -> Table:
    """Who reads a head: the strongest paths on each class, as shares of its effect through all of them."""
    paths = where(model.paths, sender=str(head))
    rows = []
    for name in distinct(paths, "function_class"):
        single = [row for row in records(where(paths, function_class=name)) if row["receiver"] != ALL]
        rows += sorted(single, key=lambda row: rank_by_evidence(row["effect"], row["ci_low"], row["ci_high"]))[:most]
    columns: dict[str, Column] = {
        "class": text_of("function_class"),
        "input": text_of("receiver"),
        "share of the head's effect": interval_of("share", "share_low", "share_high"),
        "effect": interval_of("effect"),
    }
    return make_table(f"Who reads {head}: the {most} strongest paths", rows, columns)


def overview_tables(findings: Findings) -> list[Table]:
    """The small tables of a study."""
    return [
        Table(table.title, tuple(table.header), [tuple(text_cell(str(cell)) for cell in row) for row in table.rows])
        for table in findings.tables()
    ]

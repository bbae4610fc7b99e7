"""What the tables say, by rule.

1. A measure separates if no model lies within the range of the other kind; it differs if p after Holm is at most
   `SIGNIFICANT`.
2. Failed models hold an ingredient if the t-interval of what probes find above their controls lies above `FAINT`, and
   lack it if it lies below; of one failed model nothing follows.
3. The two kinds part at the first stage whose errors differ by rule 1 and by `MARGIN` of the no-context optimum's: in
   front of the first attention, where x alone is known, there are differences of a hundredth.
4. The paper's model that did not converge has no head at `NEAR` or more of its score: ours agree if no failed one has.
"""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from analyses.studies.plateaus.study import LEFT, MARGIN
from analyses.studies.published import NEAR
from analyses.studies.success.comparison import EVERYONE, ON
from analyses.studies.success.measures import COPY, DEPTH, PUBLISHED
from interp.display.text import counted, listed
from interp.statistics.effects import SIGNIFICANT
from training.common.output import interval, number, records
from training.common.table_rows import distinct, where

FAINT = 0.1
"""R² above controls up to which nothing is held: untrained models reach 0.05 on average (x at y), at the best stage."""
INGREDIENTS = (COPY, "X'y at y", "X'y at x")
Row = dict[str, Any]


def sentences(models: pd.DataFrame, classes: pd.DataFrame, compared: pd.DataFrame) -> list[str]:
    """Who succeeded, what is confounded with it, what sets the two apart, what failed models hold, and the paper."""
    found = [outcome(models), *confounded(models)]
    for among in distinct(compared, "among"):
        rows = records(where(compared, among=among))
        if rows[0]["n_failed"] and rows[0]["n_successful"]:
            found += [*apart(among, rows), *parting(among, rows)]
        if rows[0]["n_failed"]:
            found += ingredients(among, rows)
    return [*found, beside_the_paper(models, classes)]


def outcomes(models: pd.DataFrame) -> dict[str, list[bool]]:
    """By curriculum, which of its models succeeded."""
    runs = models.drop_duplicates("checkpoint")
    return {name: where(runs, curriculum=name)["succeeded"].tolist() for name in distinct(runs, "curriculum")}


def outcome(models: pd.DataFrame) -> str:
    by_curriculum = outcomes(models)
    everyone = [one for group in by_curriculum.values() for one in group]
    rule = f"(error at most {LEFT:g} of the no-context optimum's on a class that they train on)"
    if all(everyone):
        return f"ALL {counted(len(everyone), 'model')} succeeded {rule}: there is no failed one to compare them with."
    if not any(everyone):
        return f"ALL {counted(len(everyone), 'model')} failed {rule}: there is no successful one to compare them with."
    failed = [f"{name} {g.count(False)} of {len(g)}" for name, g in by_curriculum.items() if not all(g)]
    return f"{sum(everyone)} of {len(everyone)} models succeeded {rule}; failed: {', '.join(failed)}."


def confounded(models: pd.DataFrame) -> list[str]:
    """A warning where failed and successful models come from different curricula."""
    groups = outcomes(models)
    both = [name for name, group in groups.items() if any(group) and not all(group)]
    doomed = [name for name, group in groups.items() if not any(group)]
    n_failed = sum(group.count(False) for group in groups.values())
    if len(groups) == 1 or not n_failed or len(doomed) == len(groups) or len(both) == len(groups):
        return []
    if not both:
        return [
            f"CONFOUNDED: no curriculum has both outcomes (all {n_failed} failed models are {listed(doomed)}), so that "
            "what sets the two kinds apart may be the curriculum or its classes; a comparison on one class, if there "
            "is one below, holds the class fixed."
        ]
    n_doomed = sum(len(groups[name]) for name in doomed)
    cells = [f"{name} ({groups[name].count(True)} succeeded, {groups[name].count(False)} failed)" for name in both]
    said = f"{n_doomed} of {n_failed} failed models are of {listed(doomed)}, where all failed; " if doomed else ""
    return [f"CONFOUNDED in part: {said}both outcomes occur in {listed(cells)} alone, compared below."]


def apart(among: str, rows: Sequence[Row]) -> list[str]:
    """Rule 1, over the measures."""
    measures = [row for row in rows if row["kind"] != DEPTH]
    kinds = ("that left its plateau", "that stayed") if among.startswith(ON) else ("successful", "failed")
    counts = f"{among}, {measures[0]['n_successful']} {kinds[0]} against {measures[0]['n_failed']} {kinds[1]}"
    if math.isnan(measures[0]["p_value"]):
        return [f"{counts}: models of both kinds share a seed and are no independent samples; no test."]
    separates = [row for row in measures if not row["n_overlap"]]
    differ = [row for row in measures if row["n_overlap"] and row["p_holm"] <= SIGNIFICANT]
    others = [row for row in measures if row["n_overlap"] and row["p_holm"] > SIGNIFICANT]
    parts = [f"without overlap: {'; '.join(map(difference, separates))}"] if separates else []
    parts += [f"different, with overlap: {'; '.join(map(difference, differ))}"] if differ else []
    parts += [f"no difference shown: {'; '.join(map(difference, others))}"] if others else []
    least = measures[0]["smallest_p"]
    limit = f" So few models allow no p below {least:.2g}." if least > SIGNIFICANT / len(measures) else ""
    return [f"{counts} - {' - '.join(parts)}.{limit}"]


def difference(row: Row) -> str:
    text = f"{row['measure']} {two(row['successful'])} against {two(row['failed'])}"
    spread = "" if math.isnan(row["ci_low"]) else f" [{two(row['ci_low'])}, {two(row['ci_high'])}]"
    text += f" (difference {two(row['difference'])}{spread}, p = {row['p_value']:.2g}, Holm {row['p_holm']:.2g}"
    n_models = row["n_successful"] + row["n_failed"]
    return text + (f", {row['n_overlap']} of {n_models} overlap)" if row["n_overlap"] else ")")


def two(value: float) -> str:
    """Two digits, and no minus in front of nothing.

    >>> two(-0.001), two(-0.25)
    ('0.00', '-0.25')
    """
    return f"{round(value, 2) + 0.0:.2f}"


def parting(among: str, rows: Sequence[Row]) -> list[str]:
    """Rule 3, over the stages before the last."""
    at = [row for row in rows if row["kind"] == DEPTH]
    if any(math.isnan(row["p_value"]) for row in at):
        return []
    first = next((row for row in at if row["p_holm"] <= SIGNIFICANT and abs(row["difference"]) >= MARGIN), None)
    if first is None:
        return [f"{among}: the tuned predictions of the two kinds part at no stage before the last."]
    n_before = at.index(first)
    before = f"; up to {at[n_before - 1]['measure']} no difference of {MARGIN:g} is shown" if n_before else ""
    return [
        f"{among}, tuned prediction by depth: the two kinds part at {first['measure']}, where the error is "
        f"{two(first['successful'])} of the no-context optimum's against {two(first['failed'])} "
        f"(p = {first['p_value']:.2g}, Holm {first['p_holm']:.2g}){before}."
    ]


def ingredients(among: str, rows: Sequence[Row]) -> list[str]:
    """Rule 2: do failed models hold what they do not use, or lack it?"""
    chosen = [row for row in rows if row["measure"] in INGREDIENTS]
    if not chosen:
        return []
    if rows[0]["n_failed"] < 2:
        said = ", ".join(f"{row['measure']} {two(row['failed'])}" for row in chosen)
        return [f"{among}, ingredients (R² above controls) of the one failed model: {said}. Nothing follows of others."]
    states = {row["measure"]: state(row) for row in chosen}
    said = ", ".join(
        f"{row['measure']} {two(row['failed'])} [{two(row['failed_low'])}, {two(row['failed_high'])}]: "
        f"{states[row['measure']]}"
        for row in chosen
    )
    return [f"{among}, ingredients of the failed (R² above controls, t-interval over seeds): {said}. {summed(states)}"]


def state(row: Row) -> str:
    """
    >>> [state({"failed_low": low, "failed_high": high}) for low, high in ((0.2, 0.4), (-0.01, 0.02), (0.0, 0.3))]
    ['held', 'lacking', 'undecided']
    """
    if row["failed_low"] > FAINT:
        return "held"
    return "lacking" if row["failed_high"] <= FAINT else "undecided"


def summed(states: dict[str, str]) -> str:
    held = [name for name, one in states.items() if one == "held"]
    if held:
        return (
            f"They hold {listed(held)} and make no use of it in their predictions (that it can be decoded does not say "
            "that it is there to be used: `interp probe --swap`)."
        )
    if set(states.values()) == {"lacking"}:
        return "They LACK the ingredients, as far as linear probes tell: it is not that they hold and do not use them."
    return f"Not decided: {listed([name for name, one in states.items() if one == 'undecided'])}."


def beside_the_paper(models: pd.DataFrame, classes: pd.DataFrame) -> str:
    """Rule 4, and which successful models have no such head either."""
    last = distinct(where(models, kind=DEPTH), "measure")[-1]
    errors = {row["checkpoint"]: row["value"] for row in records(where(models, measure=last))}
    scores = where(classes, measure=PUBLISHED)
    with_head = set(scores.loc[scores["value"] >= NEAR, "checkpoint"].tolist())
    runs = records(models.drop_duplicates("checkpoint"))
    failed = [row["checkpoint"] for row in runs if not row["succeeded"]]
    successful = [row["checkpoint"] for row in runs if row["succeeded"]]
    have = [name for name in failed if name in with_head]
    claim = f"Paper (9.2): its model that did not converge has no head at {NEAR:g} or more of its score"
    text = f"{claim}; of our {counted(len(failed), 'failed model')} {len(have)} "
    text += "have one on a class that they train on: "
    text += f"DIFFERENT ({', '.join(have)})." if have else "this agrees."
    if not failed:
        text = f"{claim}; none of ours failed, so that nothing can be said of that."
    without = [f"{name} (error {errors[name]:.2f} of no context)" for name in successful if name not in with_head]
    if successful:
        text += f" {len(successful) - len(without)} of {counted(len(successful), 'successful model')} have one"
        text += f"; {listed(without)} learned without." if without else "."
    return text


def shown(models: pd.DataFrame, compared: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """A table of measures for each comparison, controls beside them in the first, and the errors by depth."""
    tables = {}
    for among in distinct(compared, "among"):
        rows = [row for row in records(where(compared, among=among)) if row["kind"] != DEPTH]
        title = f"{among}: mean [t-interval over seeds]; attention: highest score; others: R² above controls"
        tables[title] = pd.DataFrame([cells(row, models, controls=among == EVERYONE) for row in rows])
    depth = where(models, kind=DEPTH)
    by_depth = [
        {"models": name} | {stage: number(mean_of(part, stage)) for stage in distinct(depth, "measure")}
        for name, kind in (("successful", True), ("failed", False))
        if len(part := where(depth, succeeded=kind))
    ]
    title = "error of the tuned implied prediction / no-context optimum (at the last stage the model's own)"
    return tables | {title: pd.DataFrame(by_depth)}


def cells(row: Row, models: pd.DataFrame, *, controls: bool) -> dict[str, str]:
    """One measure; with its controls where asked for: the chance of a score and the twins' mean."""
    found = {
        "measure": row["measure"],
        f"successful ({row['n_successful']})": interval(
            row["successful"], row["successful_low"], row["successful_high"]
        ),
        f"failed ({row['n_failed']})": interval(row["failed"], row["failed_low"], row["failed_high"]),
        "difference": interval(row["difference"], row["ci_low"], row["ci_high"]),
        "p": p_text(row["p_value"]),
        "p, Holm": p_text(row["p_holm"]),
        "overlap": number(float(row["n_overlap"]), 0),
    }
    if controls:
        of_measure = where(models, measure=row["measure"])
        found["chance"] = number(float(of_measure["chance"].to_numpy().mean()))
        found["untrained"] = number(float(of_measure["untrained"].to_numpy().mean()))
    return found


def p_text(p_value: float) -> str:
    return "-" if math.isnan(p_value) else f"{p_value:.2g}"


def mean_of(table: pd.DataFrame, measure: str) -> float:
    return float(where(table, measure=measure)["value"].to_numpy().mean())

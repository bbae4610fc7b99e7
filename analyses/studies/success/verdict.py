"""The verdict of the study of success: sentences that follow from its tables by rule.

1. A measure separates if no model lies within the range of the other kind; it differs if p after Holm is at most
   `SIGNIFICANT`.
2. Failed models hold an ingredient if the t-interval of its R² above controls lies above `FAINT`, and lack it if it
   lies below; nothing follows from one failed model.
3. The two kinds are shown to part from the first stage on whose errors differ by rule 1 and by at least `MARGIN` of
   the no-context optimum's: before the first attention layer, where x alone is known, there are differences of a
   hundredth. That they part no earlier is not shown.
4. The paper's model that did not converge has no head at `NEAR` or more of its score: ours agree if no failed one has.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analyses.studies.plateaus.measures import LEFT, MARGIN
from analyses.studies.published import NEAR
from analyses.studies.success.measures.by_class import COPY, DEPTH, PUBLISHED
from analyses.studies.success.measures.comparison import ON
from interp.display.text import counted, decimals, listed
from interp.statistics.effects import SIGNIFICANT
from training.common.output import records
from training.common.table_rows import distinct, where

FAINT = 0.1
"""R² above controls up to which an ingredient is not held: untrained models reach 0.05 on average (x at y), at the best
stage."""
INGREDIENTS = (COPY, "X'y at y", "X'y at x")
RULE = f"(error at most {LEFT:g} of the no-context optimum's on a class that they train on)"
SENTENCES = {
    "all": "ALL {models} succeeded {rule}: there is no failed one to compare them with.",
    "none": "ALL {models} failed {rule}: there is no successful one to compare them with.",
    "outcome": "{n_succeeded} of {n_models} models succeeded {rule}; failed: {failed}.",
    "confounded": "CONFOUNDED: no curriculum has both outcomes (all {n_failed} failed models are {failing}), so that "
    "what sets the two kinds apart may be the curriculum or its classes; a comparison on one class, if there is one "
    "below, holds the class fixed.",
    "in part": "CONFOUNDED in part: {failing}both outcomes occur in {both} alone, compared below.",
    "failing": "{n} of {n_failed} failed models are of {curricula}, where all failed; ",
    "related": "{comparison}: models of both kinds share a seed and are not independent samples; no test.",
    "comparison": "{comparison} - {parts}.{limit}",
    "limit": " With so few models p cannot be below {p:.2g}.",
    "no parting": "{among}: before the last stage no difference of at least {margin:g} between the tuned predictions "
    "of the two kinds is shown.",
    "parting": "{among}, tuned prediction by depth: the first stage with a difference of at least {margin:g} that is "
    "shown is {stage}, where the error is {successful} of the no-context optimum's against {failed} (p = {p_value:.2g},"
    " Holm {p_holm:.2g}).",
    "one failed": "{among}, ingredients (R² above controls) of the one failed model: {values}. Nothing follows about "
    "others.",
    "ingredients": "{among}, ingredients of the failed models (R² above controls, t-interval over seeds): {values}. "
    "{conclusion}",
    "held": "They hold {names} and do not use them in their predictions (a target that can be decoded need not be "
    "usable by the model: `interp probe --swap`).",
    "lacking": "They LACK the ingredients, as far as linear probes can show: they do not hold them without using them.",
    "undecided": "Not decided: {names}.",
    "paper": "Paper (published heat maps): its model that did not converge has no head at {near:g} or more of its "
    "score; {failed}{successful}",
    "no failed": "none of ours failed, so that nothing can be said about that.",
    "failed": "of our {models} {n_with} have one on a class that they train on: {agreement}.",
    "successful": " {n_with} of {models} have one{without}.",
    "without": "; {names} learned without",
}
Row = Mapping[str, Any]


def verdict(models: pd.DataFrame, classes: pd.DataFrame, compared: pd.DataFrame) -> list[str]:
    """Which models succeeded, confounds, what sets the two kinds apart, ingredients of failed models, and the paper."""
    sentences = [outcome_sentence(models), *confounding_sentences(models)]
    for among in distinct(compared, "among"):
        rows = records(where(compared, among=among))
        if rows[0]["n_failed"] and rows[0]["n_successful"]:
            sentences += [comparison_sentence(among, rows), *parting_sentences(among, rows)]
        if rows[0]["n_failed"]:
            sentences += ingredient_sentences(among, rows)
    return [*sentences, paper_sentence(models, classes)]


def outcomes_by_curriculum(models: pd.DataFrame) -> dict[str, list[bool]]:
    """By curriculum, which of its models succeeded."""
    runs = models.drop_duplicates("checkpoint")
    return {name: where(runs, curriculum=name)["succeeded"].tolist() for name in distinct(runs, "curriculum")}


def outcome_sentence(models: pd.DataFrame) -> str:
    outcomes = outcomes_by_curriculum(models)
    all_outcomes = [succeeded for group in outcomes.values() for succeeded in group]
    n_succeeded, n_models = sum(all_outcomes), len(all_outcomes)
    template = "all" if n_succeeded == n_models else "outcome" if n_succeeded else "none"
    failed = [f"{name} {group.count(False)} of {len(group)}" for name, group in outcomes.items() if not all(group)]
    return SENTENCES[template].format(
        rule=RULE,
        models=counted(n_models, "model"),
        n_models=n_models,
        n_succeeded=n_succeeded,
        failed=", ".join(failed),
    )


def confounding_sentences(models: pd.DataFrame) -> list[str]:
    """A warning where failed and successful models come from different curricula."""
    outcomes = outcomes_by_curriculum(models)
    both = [name for name, group in outcomes.items() if any(group) and not all(group)]
    failing = [name for name, group in outcomes.items() if not any(group)]
    n_failed = sum(group.count(False) for group in outcomes.values())
    if len(outcomes) == 1 or not n_failed or len(outcomes) in (len(failing), len(both)):
        return []
    if not both:
        return [SENTENCES["confounded"].format(n_failed=n_failed, failing=listed(failing))]
    n_failing = sum(len(outcomes[name]) for name in failing)
    counts = {"n": n_failing, "n_failed": n_failed, "curricula": listed(failing)}
    cells = [f"{n} ({outcomes[n].count(True)} succeeded, {outcomes[n].count(False)} failed)" for n in both]
    warning = SENTENCES["failing"].format(**counts) if failing else ""
    return [SENTENCES["in part"].format(failing=warning, both=listed(cells))]


def comparison_sentence(among: str, rows: Sequence[Row]) -> str:
    """Rule 1, over the measures."""
    measures = [row for row in rows if row["kind"] != DEPTH]
    first = measures[0]
    kinds = ("that left its plateau", "that stayed") if among.startswith(ON) else ("successful", "failed")
    comparison = f"{among}, {first['n_successful']} {kinds[0]} against {first['n_failed']} {kinds[1]}"
    if math.isnan(first["p_value"]):
        return SENTENCES["related"].format(comparison=comparison)
    texts: dict[str, list[str]] = {"without overlap": [], "different, with overlap": [], "no difference shown": []}
    for row in measures:
        differs = "different, with overlap" if row["p_holm"] <= SIGNIFICANT else "no difference shown"
        texts[differs if row["n_overlap"] else "without overlap"].append(format_difference(row))
    few = first["smallest_p"] > SIGNIFICANT / len(measures)
    return SENTENCES["comparison"].format(
        comparison=comparison,
        parts=" - ".join(f"{label}: {'; '.join(members)}" for label, members in texts.items() if members),
        limit=SENTENCES["limit"].format(p=first["smallest_p"]) if few else "",
    )


def format_difference(row: Row) -> str:
    """One measure of both kinds, with the difference, p and overlap."""
    text = f"{row['measure']} {decimals(row['successful'])} against {decimals(row['failed'])}"
    spread = "" if math.isnan(row["ci_low"]) else f" [{decimals(row['ci_low'])}, {decimals(row['ci_high'])}]"
    text += f" (difference {decimals(row['difference'])}{spread}, p = {row['p_value']:.2g}, Holm {row['p_holm']:.2g}"
    n_models = row["n_successful"] + row["n_failed"]
    return text + (f", {row['n_overlap']} of {n_models} overlap)" if row["n_overlap"] else ")")


def parting_sentences(among: str, rows: Sequence[Row]) -> list[str]:
    """Rule 3, over the stages before the last."""
    stages = [row for row in rows if row["kind"] == DEPTH]
    if any(math.isnan(row["p_value"]) for row in stages):
        return []
    differs = [row["p_holm"] <= SIGNIFICANT and abs(row["difference"]) >= MARGIN for row in stages]
    if not any(differs):
        return [SENTENCES["no parting"].format(among=among, margin=MARGIN)]
    row = stages[differs.index(True)]
    values = {"successful": decimals(row["successful"]), "failed": decimals(row["failed"])}
    tests = {"p_value": row["p_value"], "p_holm": row["p_holm"]}
    return [SENTENCES["parting"].format(among=among, margin=MARGIN, stage=row["measure"], **values, **tests)]


def ingredient_sentences(among: str, rows: Sequence[Row]) -> list[str]:
    """Rule 2: do failed models hold what they do not use, or lack it?"""
    ingredients = [row for row in rows if row["measure"] in INGREDIENTS]
    if not ingredients:
        return []
    if rows[0]["n_failed"] < 2:
        values = ", ".join(f"{row['measure']} {decimals(row['failed'])}" for row in ingredients)
        return [SENTENCES["one failed"].format(among=among, values=values)]
    states = {row["measure"]: ingredient_state(row) for row in ingredients}
    values = ", ".join(
        f"{row['measure']} {decimals(row['failed'])} [{decimals(row['failed_low'])}, {decimals(row['failed_high'])}]: "
        f"{states[row['measure']]}"
        for row in ingredients
    )
    return [SENTENCES["ingredients"].format(among=among, values=values, conclusion=conclude_ingredients(states))]


def ingredient_state(row: Row) -> str:
    """
    >>> limits = ((0.2, 0.4), (-0.01, 0.02), (0.0, 0.3))
    >>> [ingredient_state({"failed_low": low, "failed_high": high}) for low, high in limits]
    ['held', 'lacking', 'undecided']
    """
    if row["failed_low"] > FAINT:
        return "held"
    return "lacking" if row["failed_high"] <= FAINT else "undecided"


def conclude_ingredients(states: Mapping[str, str]) -> str:
    """Held if any is, lacking if all are, otherwise undecided."""
    for state in ("held", "undecided"):
        names = [name for name, measure_state in states.items() if measure_state == state]
        if names:
            return SENTENCES[state].format(names=listed(names))
    return SENTENCES["lacking"]


def paper_sentence(models: pd.DataFrame, classes: pd.DataFrame) -> str:
    """Rule 4, and which successful models have no such head either."""
    last = distinct(where(models, kind=DEPTH), "measure")[-1]
    errors = {row["checkpoint"]: row["value"] for row in records(where(models, measure=last))}
    scores = where(classes, measure=PUBLISHED)
    with_head = set(scores.loc[scores["value"] >= NEAR, "checkpoint"].tolist())
    runs = models.drop_duplicates("checkpoint")
    failed, successful = (where(runs, succeeded=kind)["checkpoint"].tolist() for kind in (False, True))
    failed_text, successful_text = SENTENCES["no failed"], ""
    if failed:
        have = [name for name in failed if name in with_head]
        failed_text = SENTENCES["failed"].format(
            models=counted(len(failed), "failed model"),
            n_with=len(have),
            agreement=f"DIFFERENT ({', '.join(have)})" if have else "this agrees",
        )
    if successful:
        without = [f"{name} (error {errors[name]:.2f} of no context)" for name in successful if name not in with_head]
        successful_text = SENTENCES["successful"].format(
            n_with=len(successful) - len(without),
            models=counted(len(successful), "successful model"),
            without=SENTENCES["without"].format(names=listed(without)) if without else "",
        )
    return SENTENCES["paper"].format(near=NEAR, failed=failed_text, successful=successful_text)

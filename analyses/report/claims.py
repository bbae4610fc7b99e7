"""The claims that a colleague would try to break, each judged by a rule from the tables.

A claim holds if its rule is met in every case that it speaks of, fails if in none, and holds in part otherwise; it is
`open` where the data cannot decide. The cases stand beside the verdict.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from analyses.report.agreement import between_classes
from analyses.report.caveats import FEW_SEEDS, first_row, rows_of_found_set
from analyses.report.dose import agreement_of_score_and_effect, dose_response, median_and_range
from analyses.report.evidence import LEAD, Evidence, ModelEvidence, by_curriculum
from interp.ablation.size_classes import ATTENDS, HALF, size_of
from interp.display.text import counted
from interp.model.heads import heads_above
from interp.statistics.effects import SIGNIFICANT
from interp.statistics.p_values import draws_behind, p_number
from interp.statistics.seeds import independent_seeds
from training.common.output import records
from training.evaluation.convergence import FRACTION

Verdict = Literal["holds", "in part", "fails", "open"]

STATEMENTS: dict[str, str] = {
    "located": f"Models that learned in context have a head that attends from y to its own x (score above {ATTENDS}).",
    "causal": f"Removing them takes most of the in-context gain ({LEAD} ablation).",
    "special": "It is these heads and not any of their layer: layer-matched sets cost less.",
    "robust": "The finding does not hang on how a head is replaced.",
    "consistent": "The same heads attend from y to its own x on every function class.",
    "complete": "The score tells which single heads matter: those that attend do, and no others.",
    "general": "There are enough independent seeds to speak of a curriculum.",
}
EVIDENCE: dict[str, str] = {
    "located": "such a head is in {n_met} of {learned} that learned a class{others}{missing}.",
    "located, others": ", and in {n_met} of {n} that learned none",
    "located, missing": " (without: {models})",
    "causal": "at least {half} of the gain is lost in {n_met} of {cases} (model x class){range}.",
    "causal, range": ", effects from {low:.2f} to {high:.2f}",
    "causal, single": ", its effect is {low:.2f}",
    "special": "{pooled}after Holm p is at most {level} in {n_met} of {tests}{range}{bound}.",
    "special, pooled": "pooled over seeds, ",
    "special, range": " ({low} to {high})",
    "special, bound": "; with so few control sets p cannot be smaller than {smallest_p:.3g}",
    "robust": "{modes} put the effect in the same class of size in {n_met} of {cases}.",
    "consistent": "the same heads are above {threshold} on every class in {n_met} of {cases}{correlation}.",
    "consistent, correlation": (
        "; over all heads, those near chance included, the rank correlation of scores between classes is {middle:.2f} "
        "(from {low:.2f} to {high:.2f})"
    ),
    "complete": (
        "{both} of {attend} that attend cost at least {half} alone, and {both} of {matter} that cost as much attend, "
        "among {all} heads x classes."
    ),
    "general": "{needed} are asked for; there are {seeds}.",
}
"""Sentences, and the clauses that they hold where there is something to say."""

NO_CASES: dict[str, str] = {
    "located": "no model learned a class in context; such a head is in {n_others} of {others_counted}.",
    "causal": "no set of such heads has a defined effect on a class of the training.",
    "special": "no set of such heads was compared with layer-matched sets.",
    "robust": "no set of such heads has a defined effect.",
    "consistent": "no model with several classes has such heads.",
    "complete": "no head attends, and none costs as much alone.",
    "general": "there are no models.",
}
"""What stands in place of the evidence where a rule had no case to judge."""


@dataclass(frozen=True)
class Claim:
    """One claim.

    Attributes:
        statement: in one sentence.
        verdict: by rule.
        evidence: the cases behind it.
    """

    statement: str
    verdict: Verdict
    evidence: str


class Judgement(NamedTuple):
    """What a rule decides: its verdict, and the values that the sentence of its evidence is filled with."""

    verdict: Verdict
    values: Mapping[str, Any]
    n_cases: int


def claims(evidence: Evidence) -> list[Claim]:
    """All claims, from where heads attend to what may be concluded."""
    judgements = {name: rule(evidence) for name, rule in RULES.items()}
    return [
        Claim(
            STATEMENTS[name],
            judgement.verdict,
            (EVIDENCE if judgement.n_cases else NO_CASES)[name].format(**judgement.values),
        )
        for name, judgement in judgements.items()
    ]


def verdict_of(n_met: int, n: int) -> Verdict:
    """
    >>> verdict_of(2, 2), verdict_of(1, 2), verdict_of(0, 2), verdict_of(0, 0)
    ('holds', 'in part', 'fails', 'open')
    """
    if not n:
        return "open"
    return "holds" if n_met == n else "in part" if n_met else "fails"


def clause(name: str, applies: object, **values: object) -> str:
    """A clause of `EVIDENCE`, empty where it does not apply."""
    return EVIDENCE[name].format(**values) if applies else ""


def located(evidence: Evidence) -> Judgement:
    """Whether learning in context and having a retrospective head go together."""
    learned = [model for model in evidence.models if learned_classes(model)]
    others = [model for model in evidence.models if model not in learned]
    missing = [model.name for model in learned if not model.chosen_heads]
    n_met = len(learned) - len(missing)
    n_others = sum(bool(model.chosen_heads) for model in others)
    values = {
        "n_met": n_met,
        "n_others": n_others,
        "others_counted": counted(len(others), "model"),
        "learned": counted(len(learned), "model"),
        "others": clause("located, others", others, n_met=n_others, n=len(others)),
        "missing": clause("located, missing", missing, models=", ".join(missing)),
    }
    return Judgement(verdict_of(n_met, len(learned)), values, len(learned))


def causal(evidence: Evidence) -> Judgement:
    """Whether removing the found heads takes most of the gain."""
    effects = [row["effect"] for row in lead_rows(evidence)]
    n_met = sum(effect >= HALF for effect in effects)
    ends = {"low": min(effects), "high": max(effects)} if effects else {}
    kind = "causal, single" if len(effects) == 1 else "causal, range"
    values = {"half": HALF, "n_met": n_met, "cases": counted(len(effects), "case")}
    return Judgement(verdict_of(n_met, len(effects)), values | {"range": clause(kind, effects, **ends)}, len(effects))


def special(evidence: Evidence) -> Judgement:
    """Whether other sets of heads would have done the same."""
    pooled = evidence.pooled
    if pooled.empty:
        rows = lead_rows(evidence)
        possible = [row for row in rows if row["smallest_p"] <= SIGNIFICANT and row["n_controls"]]
    else:
        last_group = pooled["curriculum"].iloc[-1]  # all models, or the only curriculum
        rows = [row for row in records(pooled) if row["mode"] == LEAD and row["curriculum"] == last_group]
        possible = [row for row in rows if row["smallest_p"] <= SIGNIFICANT]
    tests = [row for row in rows if not math.isnan(row["p_value"])]
    n_met = sum(row["p_holm"] <= SIGNIFICANT for row in tests)
    by_p = sorted(tests, key=lambda row: row["p_holm"])
    numbers = [p_number(row["p_holm"], draws_behind(row), unadjusted=row["p_value"]) for row in by_p]
    values = {
        "pooled": clause("special, pooled", not pooled.empty),
        "level": SIGNIFICANT,
        "n_met": n_met,
        "tests": counted(len(tests), "test"),
        "range": clause("special, range", tests, low="".join(numbers[:1]), high="".join(numbers[-1:])),
        "bound": clause(
            "special, bound",
            tests and not possible,
            smallest_p=min((row["smallest_p"] for row in tests), default=math.nan),
        ),
    }
    return Judgement(verdict_of(n_met, len(tests)) if possible else "open", values, len(tests))


def robust(evidence: Evidence) -> Judgement:
    """Whether the modes agree."""
    cases = [rows for model in evidence.models for rows in rows_of_found_set(model).values()]
    defined = [rows for rows in cases if not any(size_of(row) == "undefined" for row in rows)]
    n_met = sum(len({size_of(row) for row in rows}) == 1 for rows in defined)
    modes = ", ".join(dict.fromkeys(str(row["mode"]) for rows in defined for row in rows))
    values = {"modes": modes, "n_met": n_met, "cases": counted(len(defined), "case")}
    return Judgement(verdict_of(n_met, len(defined)), values, len(defined))


def consistent(evidence: Evidence) -> Judgement:
    """Whether the same heads attend on every class."""
    cases = [model for model in evidence.models if model.chosen_heads and len(model.classes) > 1]
    head_sets = [{heads_above(ATTENDS, model.retrospective.values[name]) for name in model.classes} for model in cases]
    n_met = sum(len(distinct_sets) == 1 for distinct_sets in head_sets)
    rho = [
        row["score_spearman"]
        for model in cases
        for row in records(between_classes(model))
        if row["first"] < row["second"]
    ]
    middle, low, high = median_and_range(rho)
    values = {
        "threshold": ATTENDS,
        "n_met": n_met,
        "cases": counted(len(cases), "model"),
        "correlation": clause("consistent, correlation", not math.isnan(middle), middle=middle, low=low, high=high),
    }
    return Judgement(verdict_of(n_met, len(cases)), values, len(cases))


def complete(evidence: Evidence) -> Judgement:
    """Whether attending and mattering coincide over all single heads."""
    counts = agreement_of_score_and_effect(dose_response(evidence.models))
    either = counts["attend"] + counts["matter"] - counts["both"]
    return Judgement(verdict_of(counts["both"], either), {"half": HALF, **counts}, either)


def general(evidence: Evidence) -> Judgement:
    """Whether there are enough seeds to speak of a curriculum."""
    groups = by_curriculum(evidence.models)
    n_seeds = {name: len(independent_seeds([model.checkpoint for model in models])) for name, models in groups.items()}
    seeds = ", ".join(f"{n} of {name}" for name, n in n_seeds.items())
    n_met = sum(n >= FEW_SEEDS for n in n_seeds.values())
    return Judgement(verdict_of(n_met, len(groups)), {"needed": FEW_SEEDS, "seeds": seeds}, len(groups))


RULES: dict[str, Callable[[Evidence], Judgement]] = {
    "located": located,
    "causal": causal,
    "special": special,
    "robust": robust,
    "consistent": consistent,
    "complete": complete,
    "general": general,
}


def learned_classes(model: ModelEvidence) -> list[str]:
    """The classes of the training on which the error is at most `FRACTION` of the no-context optimum."""
    rows = {name: first_row(model, name) for name in model.trained}
    return [name for name, row in rows.items() if row["nmse_before"] <= FRACTION * row["nmse_no_context"]]


def lead_rows(evidence: Evidence) -> list[dict[str, Any]]:
    """The found sets' rows under mean ablation on the trained classes where effects are defined."""
    return [
        row
        for model in evidence.models
        for name, rows in rows_of_found_set(model).items()
        for row in rows
        if row["mode"] == LEAD and name in model.trained and size_of(row) != "undefined"
    ]

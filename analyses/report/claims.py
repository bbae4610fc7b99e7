"""The claims that a colleague would try to break, each judged by a rule from the tables.

A claim holds if its rule is met in every case that it speaks of, fails if in none, and holds in part otherwise; it is
`open` where the data cannot decide. The cases stand beside the verdict.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from analyses.report.agreement import between_classes
from analyses.report.caveats import FEW_SEEDS, first_row, rows_of_found
from analyses.report.dose import agreement_of_score_and_effect, dose_response, median_and_range
from analyses.report.evidence import LEAD, Evidence, ModelEvidence
from interp.ablation.size_classes import ATTENDS, HALF, size_of
from interp.display.text import counted
from interp.model.heads import heads_above
from interp.statistics.effects import SIGNIFICANT
from interp.statistics.p_values import draws_behind, p_number
from interp.statistics.seeds import independent_seeds
from training.common.output import records
from training.evaluation.convergence import FRACTION

Verdict = Literal["holds", "in part", "fails", "open"]


@dataclass(frozen=True)
class Claim:
    """One claim.

    Attributes:
        statement: in one sentence.
        verdict: by rule.
        because: the cases behind it.
    """

    statement: str
    verdict: Verdict
    because: str


def claims(evidence: Evidence) -> list[Claim]:
    """All claims, from where heads look to what may be concluded."""
    return [rule(evidence) for rule in RULES]


def judged(n_met: int, n: int) -> Verdict:
    """
    >>> judged(2, 2), judged(1, 2), judged(0, 2), judged(0, 0)
    ('holds', 'in part', 'fails', 'open')
    """
    if not n:
        return "open"
    return "holds" if n_met == n else "in part" if n_met else "fails"


def located(evidence: Evidence) -> Claim:
    """Whether learning in context and having a retrospective head go together."""
    learned = [one for one in evidence.models if learned_classes(one)]
    having = [one for one in learned if one.found]
    rest = [one for one in evidence.models if one not in learned]
    because = f"such a head is in {len(having)} of {counted(len(learned), 'model')} that learned a class"
    if rest:
        because += f", and in {sum(bool(one.found) for one in rest)} of {len(rest)} that learned none"
    if missing := [one.name for one in learned if not one.found]:
        because += f" (without: {', '.join(missing)})"
    statement = f"Models that learned in context have a head that attends from y to its own x (score above {ATTENDS})."
    return Claim(statement, judged(len(having), len(learned)), because + ".")


def causal(evidence: Evidence) -> Claim:
    """Whether removing the found heads takes most of the gain."""
    rows = lead_rows(evidence)
    met = [row for row in rows if row["effect"] >= HALF]
    low, high = spread([row["effect"] for row in rows])
    because = f"at least {HALF} of the gain is lost in {len(met)} of {counted(len(rows), 'case')} (model x class)"
    because += f", effects from {low:.2f} to {high:.2f}." if rows else "."
    return Claim(
        f"Removing them takes most of the in-context gain ({LEAD} ablation).", judged(len(met), len(rows)), because
    )


def special(evidence: Evidence) -> Claim:
    """Whether other sets of heads would have done the same."""
    statement = "It is these heads and not any of their layer: layer-matched sets cost less."
    if not evidence.pooled.empty:
        rows = [
            row for row in records(evidence.pooled) if row["mode"] == LEAD and row["curriculum"] == last_group(evidence)
        ]
        tests, what = rows, "pooled over seeds, "
        possible = [row for row in rows if row["smallest_p"] <= SIGNIFICANT]
    else:
        tests, what = lead_rows(evidence), ""
        possible = [row for row in tests if row["smallest_p"] <= SIGNIFICANT and row["n_controls"]]
    tests = [row for row in tests if not math.isnan(row["p_value"])]
    met = [row for row in tests if row["p_holm"] <= SIGNIFICANT]
    because = f"{what}after Holm p is at most {SIGNIFICANT} in {len(met)} of {counted(len(tests), 'test')}"
    if tests:
        ends = (extreme(tests, key=lambda row: row["p_holm"]) for extreme in (min, max))
        low, high = (p_number(row["p_holm"], draws_behind(row), unadjusted=row["p_value"]) for row in ends)
        because += f" ({low} to {high})"
    if tests and not possible:
        because += f"; with so few control sets p cannot be smaller than {min(row['smallest_p'] for row in tests):.3g}"
    return Claim(statement, judged(len(met), len(tests)) if possible else "open", because + ".")


def robust(evidence: Evidence) -> Claim:
    """Whether the replacements agree."""
    cases = [rows for model in evidence.models for rows in rows_of_found(model).values()]
    cases = [rows for rows in cases if not any(size_of(row) == "undefined" for row in rows)]
    met = [rows for rows in cases if len({size_of(row) for row in rows}) == 1]
    modes = ", ".join(dict.fromkeys(str(row["mode"]) for rows in cases for row in rows)) or "no case"
    because = f"{modes} put the effect in the same class of size in {len(met)} of {counted(len(cases), 'case')}."
    return Claim("The finding does not hang on how a head is replaced.", judged(len(met), len(cases)), because)


def consistent(evidence: Evidence) -> Claim:
    """Whether the same heads attend on every class."""
    cases = [one for one in evidence.models if one.found and len(one.classes) > 1]
    met = [
        one for one in cases if len({heads_above(ATTENDS, one.retrospective.values[name]) for name in one.classes}) == 1
    ]
    because = f"the same heads are above {ATTENDS} on every class in {len(met)} of {counted(len(cases), 'model')}"
    rho = [
        row["score_spearman"] for one in cases for row in records(between_classes(one)) if row["first"] < row["second"]
    ]
    middle, low, high = median_and_range(rho)
    if not math.isnan(middle):
        because += f"; rank correlation of scores between classes {middle:.2f} (from {low:.2f} to {high:.2f})"
    return Claim("The same heads do it on every function class.", judged(len(met), len(cases)), because + ".")


def complete(evidence: Evidence) -> Claim:
    """Whether attending and mattering coincide over all single heads."""
    counts = agreement_of_score_and_effect(dose_response(evidence.models))
    either = counts["attend"] + counts["matter"] - counts["both"]
    because = f"{counts['both']} of {counts['attend']} that attend cost at least {HALF} alone, and "
    because += (
        f"{counts['both']} of {counts['matter']} that cost as much attend, among {counts['all']} heads x classes."
    )
    statement = "The score tells which single heads matter: those that attend do, and no others."
    return Claim(statement, judged(counts["both"], either), because)


def general(evidence: Evidence) -> Claim:
    """Whether there are enough seeds to speak of a curriculum."""
    groups: dict[str, list[ModelEvidence]] = {}
    for model in evidence.models:
        groups.setdefault(model.curriculum, []).append(model)
    n_seeds = {name: len(independent_seeds([one.checkpoint for one in group])) for name, group in groups.items()}
    met = [name for name, n in n_seeds.items() if n >= FEW_SEEDS]
    because = f"{FEW_SEEDS} are asked for; there are {', '.join(f'{n} of {name}' for name, n in n_seeds.items())}."
    return Claim("There are enough independent seeds to speak of a curriculum.", judged(len(met), len(groups)), because)


RULES: Sequence[Callable[[Evidence], Claim]] = (located, causal, special, robust, consistent, complete, general)


def learned_classes(model: ModelEvidence) -> list[str]:
    """The classes of the training on which the error is at most `FRACTION` of the no-context optimum."""
    rows = {name: first_row(model, name) for name in model.trained}
    return [name for name, row in rows.items() if row["nmse_before"] <= FRACTION * row["nmse_no_context"]]


def lead_rows(evidence: Evidence) -> list[dict[str, Any]]:
    """The found sets' rows under mean ablation on the trained classes where effects are defined."""
    rows = []
    for model in evidence.models:
        for name, of_class in rows_of_found(model).items():
            rows += [row for row in of_class if row["mode"] == LEAD and name in model.trained]
    return [row for row in rows if size_of(row) != "undefined"]


def last_group(evidence: Evidence) -> str:
    """All models, or the only curriculum."""
    return str(evidence.pooled["curriculum"].iloc[-1])


def spread(values: Sequence[float]) -> tuple[float, float]:
    return (min(values), max(values)) if values else (math.nan, math.nan)

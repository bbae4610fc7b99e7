"""What README and the page of results quote of the shipped models is what their studies find.

A quotation is a piece of text in which `#` stands for a number. The numbers are read off the page, and compared with
those of `interp study NAME --ckpt 'zoo:*-*' --json`, so that they stand in one place only. Claims on runs that are not
shipped (emergence, inputs, variants, larger models) cannot be made again here.
"""

import json
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from statistics import fmean
from typing import Any, NamedTuple

import pytest
from documents import ROOT, run

from interp.statistics.effects import rank_by_evidence

README, RESULTS = ROOT / "README.md", ROOT / "notebooks" / "concepts" / "results.md"
SLACK = 0.003
"""Beyond rounding: other processors."""
Document = dict[str, Any]
Row = dict[str, Any]


class Claim(NamedTuple):
    """A quotation, and the numbers in it as a study has them."""

    study: str
    quotation: str
    expected: Callable[[Document], Sequence[float]]


@cache
def study(name: str) -> Document:
    return json.loads(run(sys.executable, "-m", "interp", "study", name, "--ckpt", "zoo:*-*", "--json"))


def row(document: Document, table: str, **where: object) -> Row:
    """The only row of a table with these values."""
    (chosen,) = (each for each in document[table] if all(each[key] == value for key, value in where.items()))
    return chosen


def picked(row: Row, *columns: str) -> list[float]:
    return [row[column] for column in columns]


def numbers_in(text: str, quotation: str) -> list[str]:
    """The numbers of a page that stand where the quotation has `#`.

    Raises:
        AssertionError: the page does not say this, or says it more than once with different numbers.
    """
    words = r"\s+".join(re.escape(word).replace(r"\#", r"(-?\d+(?:\.\d+)?)") for word in quotation.split())
    matches = {match.groups() for match in re.finditer(words, text)}
    assert len(matches) == 1, f"{len(matches)} times: {quotation}"
    return list(matches.pop())


def agrees(shown: str, value: float) -> bool:
    """Whether a number is shown as it is, rounded to the digits that it has."""
    digits = len(shown.partition(".")[2])
    return abs(float(shown) - value) <= 0.5 * 10**-digits + (SLACK if digits else 0)


def converged(line: float) -> Callable[[Document], list[float]]:
    """Mixed against single seeds at or below a line, by class."""

    def counts(document: Document) -> list[float]:
        rows = [row(document, "tests", threshold=line, function_class=name) for name in CLASSES]
        columns = ("mixed_left", "mixed_seeds", "single_left", "single_seeds")
        return [count for each in rows for count in picked(each, *columns)]

    return counts


def depending_counts(document: Document) -> list[float]:
    """How many counts depend on the line, of how many."""
    counts: dict[tuple[str, str], set[int]] = {}
    for each in document["counts"]:
        counts.setdefault((each["curriculum"], each["function_class"]), set()).add(each["n_left"])
    return [sum(len(values) > 1 for values in counts.values()), len(counts)]


def needed(document: Document, measure: str) -> list[float]:
    """Mixed over single: median with its interval, linear, quadratic and cubic, the last an upper bound."""
    values: list[float] = []
    for name, line in (("linear", 0.1), ("quadratic", 0.25), ("cubic", 0.75)):
        each = row(document, "ratios", curriculum="mixed", function_class=name, measure=measure, threshold=line)
        values += picked(each, "at_most", "rank_low", "rank_high")
    return values


def at_equal_compute(document: Document, name: str) -> Row:
    return row(document, "matched", curriculum="mixed", function_class=name, compute_share=1.0)


def forgotten(document: Document) -> list[float]:
    values: list[float] = []
    for name in ("linear", "quadratic"):
        each = row(document, "forgetting_by_curriculum", curriculum="sequential", function_class=name)
        values += picked(each, "lost", "t_low", "t_high")
    return values


def removed(document: Document, curriculum: str, mode: str = "mean") -> list[Row]:
    keys = {"curriculum": curriculum, "mode": mode}
    return [row(document, "pooled", function_class=name, **keys) for name in CLASSES]


def mixed_costs(document: Document) -> list[float]:
    return [value for each in removed(document, "mixed") for value in picked(each, "effect", "t_low", "t_high")]


def pooled_over_all(document: Document) -> list[float]:
    """How many models are pooled on linear and on cubic, and the largest p after Holm over classes; no draw may have
    reached any effect, since the page calls it a bound."""
    rows = removed(document, "all")
    assert all(each["n_draws"] == 10_000 and each["p_value"] == each["smallest_p"] for each in rows)
    n_linear, n_quadratic, n_cubic = (each["n_seeds"] for each in rows)
    assert n_linear == n_quadratic
    return [n_linear, n_cubic, max(each["p_holm"] for each in rows)]


def kept_alone(document: Document) -> list[float]:
    """The share of the gain that is left of mixed models on linear with no other head, with its t-interval."""
    (kept,) = (
        each
        for each in document["kept"]
        if (each["curriculum"], each["mode"], each["function_class"]) == ("mixed", "mean", "linear")
    )
    return [1 - kept["effect"], 1 - kept["t_high"], 1 - kept["t_low"]]


def guides(document: Document) -> list[Row]:
    return [row(document, "guide", function_class=name, level=0.5) for name in CLASSES]


def rank_of_linear(document: Document) -> list[float]:
    return picked(guides(document)[0], "spearman", "t_low", "t_high")


def carried(document: Document) -> list[Row]:
    """What retrospective heads write, others, and the former untrained, over all models."""
    return [each for each in document["carried"] if each["curriculum"] == "all"]


def first_readers(document: Document) -> list[float]:
    """In how many models the share through the MLP of their layer has the best evidence, of how many, and in how many
    the share through the keys of later heads; a model's heads are averaged."""
    columns = ("share", "share_low", "share_high")
    shares: dict[str, dict[str, list[list[float]]]] = {}
    for each in document["readers"]:
        if each["share"] is not None and each["reader"] != "all":
            of_reader = shares.setdefault(each["checkpoint"], {}).setdefault(each["reader"], [])
            of_reader.append([each[column] for column in columns])
    first = []
    for model in shares.values():
        ranks = {reader: rank_by_evidence(*map(fmean, zip(*rows, strict=True))) for reader, rows in model.items()}
        first.append(min(ranks, key=lambda reader: ranks[reader]))
    return [first.count("own mlp"), len(first), first.count("keys")]


def same_heads(document: Document) -> list[float]:
    """Models with heads above one half that are the same on every class, those with any, and all."""
    sets: dict[str, set[str]] = {}
    for each in document["found"]:
        sets.setdefault(each["checkpoint"], set()).add(each["found"])
    having = [heads for heads in sets.values() if heads != {""}]
    return [sum(len(heads) == 1 for heads in having), len(having), len(sets)]


def more_and_less(document: Document) -> list[float]:
    """Of the comparisons of mixed with other curricula, in how many it is more alike between classes, and less."""
    statistics = ("spearman", "pearson", "top3")
    tested = [each for each in document["contrasts"] if each["state"] == "trained" and each["statistic"] in statistics]
    differ = [each for each in tested if each["p_holm"] < 0.05 and not each["ci_low"] <= 0 <= each["ci_high"]]
    signs = Counter(each["difference"] > 0 for each in differ)
    return [len(tested), signs[True], signs[False]]


def between(document: Document, measure: str) -> Row:
    return row(document, "between", curricula="above one half", within="layer", measure=measure)


def recurring_kinds(document: Document) -> list[float]:
    likeness = [between(document, measure)["value"] for measure in ("matched", "chance")]
    learned = picked(between(document, "learned"), "value", "ci_low", "ci_high")
    kinds = [
        between(document, "kinds")["value"],
        *picked(between(document, "beyond_kinds"), "value", "ci_low", "ci_high"),
    ]
    excess = [between(document, measure)["value"] for measure in ("rest_excess", "matched_excess")]
    return [*likeness, *learned, *kinds, *excess]


def coincidences(document: Document) -> list[float]:
    rows = [each for each in document["pairs"] if each["state"] == "trained" and each["within"] == "layer"]
    rows = [each for each in rows if not each["same_stream"] and each["n_found"] and each["n_found_other"]]
    counts = [each["n_coincide"] for each in rows]
    return [sum(counts), sum(count > 0 for count in counts), len(rows), math.fsum(each["expected"] for each in rows)]


def removed_together(document: Document) -> list[float]:
    """Cases in which heads cost more together than the sum of each alone, all cases, and the largest excess."""
    cases = document["together"]
    most = max(cases, key=lambda case: case["excess"])
    assert (most["checkpoint"], most["function_class"]) == ("zoo:sequential-3", "linear")
    more = sum(case["ci_low"] > 0.1 for case in cases)
    return [more, len(cases), most["effect"], most["sum_alone"]]


def each_cost(document: Document) -> list[float]:
    """The least and the largest effect of mean ablation in one model on one class."""
    rows = [each for each in document["models"] if each["design"] == "remove" and each["mode"] == "mean"]
    effects = [each["effect"] for each in rows if each["effect"] is not None]
    return [min(effects), max(effects)]


def ingredients(document: Document) -> list[float]:
    """Above controls, of failed and of successful models, and p after Holm on cubic."""
    names = ("x at y", "X'y at y", "t at x")
    everyone = [row(document, "compared", among="all models", measure=name) for name in names]
    return [value for each in everyone for value in picked(each, "failed", "successful")]


CLASSES = ("linear", "quadratic", "cubic")
COUNTS = "linear # of # against # of #, quadratic # of # against # of #, cubic # of # against # of #"
FREE = "linear # [#, #] to an error of 0.1, quadratic # [#, #] to 0.25, cubic at most # [#, #] to 0.75"
RANK = "score and effect have a rank correlation of # [#, #] on linear"
CLAIMS = {
    README: [
        Claim("plateaus", COUNTS, converged(0.5)),
        Claim(
            "plateaus",
            "cubic # of # against # of # (p = #)",
            lambda d: [*converged(0.9)(d)[8:], row(d, "tests", threshold=0.9, function_class="cubic")["p_holm"]],
        ),
        Claim("plateaus", "# of # counts depend on the line", depending_counts),
        Claim("efficiency", FREE, lambda d: needed(d, "prompts_seen")),
        Claim("curricula", "| # [#, #] of the gain on linear is lost again", lambda d: forgotten(d)[:3]),
        Claim("curricula", "on quadratic # [#, #], at least half in none", lambda d: forgotten(d)[3:]),
        Claim("consistency", "| # of # models have a head with a score above 0.5", lambda d: same_heads(d)[1:]),
        Claim(
            "cause", "| # [#, #] of the gain on linear, # [#, #] on quadratic, # [#, #] on cubic (mixed", mixed_costs
        ),
        Claim("cause", "over all # models (# on cubic) p <= # on every class", pooled_over_all),
        Claim(
            "trace",
            "R² of x # [#, #], the other heads #;",
            lambda d: [*picked(carried(d)[0], "r2", "t_low", "t_high"), carried(d)[1]["r2"]],
        ),
        Claim("trace", "MLP in # of # models, the keys of later heads in #", first_readers),
        Claim(
            "cause",
            "finds # of # on linear, # of # on quadratic, # of # on cubic",
            lambda d: [count for each in guides(d) for count in picked(each, "n_both", "n_matter")],
        ),
        Claim("cause", RANK, rank_of_linear),
    ],
    RESULTS: [
        Claim(
            "plateaus",
            "# of # against # of # on linear, # of # against # of # on quadratic and # of # against # of # on cubic",
            converged(0.5),
        ),
        Claim("plateaus", "# of # counts of curriculum and class depend on the line", depending_counts),
        Claim(
            "plateaus",
            "converges in # of # seeds (# of # there; p = #, not adjusted)",
            lambda d: picked(
                row(d, "paper", curriculum="single:quadratic"),
                *("n_left", "n_seeds", "published_left", "published_seeds", "p_value"),
            ),
        ),
        Claim("efficiency", FREE, lambda d: needed(d, "prompts_seen")),
        Claim("efficiency", "Operations: # [#, #], # [#, #], at most # [#, #]", lambda d: needed(d, "flops")),
        Claim(
            "efficiency",
            "worse on linear (# [#, #]), better on cubic (# [#, #]); on quadratic the difference is #,",
            lambda d: [
                *(
                    x
                    for name in ("linear", "cubic")
                    for x in picked(at_equal_compute(d, name), "difference", "low", "high")
                ),
                at_equal_compute(d, "quadratic")["difference"],
            ],
        ),
        Claim("curricula", "| yes: # [#, #] of the in-context gain on linear", lambda d: forgotten(d)[:3]),
        Claim("consistency", "on all classes in # of the # models that have any (of #)", same_heads),
        Claim(
            "consistency",
            "In # comparisons with other curricula mixed models are more alike between classes in # and less in #",
            more_and_less,
        ),
        Claim("cause", "# to # of the gain in each, on each class", each_cost),
        Claim("cause", "mixed # [#, #], # [#, #], # [#, #] on linear, quadratic, cubic", mixed_costs),
        Claim("cause", "over all # (# on cubic) p <= # on every class", pooled_over_all),
        Claim(
            "cause",
            "cubic of mixed # [#, #]",
            lambda d: picked(removed(d, "mixed", "zero")[2], "effect", "t_low", "t_high"),
        ),
        Claim(
            "trace",
            "with R² # [#, #] (other heads #, untrained #)",
            lambda d: [*picked(carried(d)[0], "r2", "t_low", "t_high"), *(each["r2"] for each in carried(d)[1:])],
        ),
        Claim("trace", "MLP of their layer in # of # models, the keys of later heads in #", first_readers),
        Claim(
            "cause",
            "Of #, # and # single heads that cost more than half",
            lambda d: [each["n_matter"] for each in guides(d)],
        ),
        Claim("cause", "a score above 0.5 finds #, # and #.", lambda d: [each["n_both"] for each in guides(d)]),
        Claim("cause", RANK, rank_of_linear),
        Claim("cause", "With no other head # [#, #] of the gain is left in mixed models on linear", kept_alone),
        Claim("cause", "in # of # cases, most in `sequential-3` (# against # on linear)", removed_together),
        Claim("consistency", "# heads in # of # pairs of independent models, # heads expected", coincidences),
        Claim(
            "consistency",
            "matched heads are # alike (cosine; at random #; more than in untrained twins by # [#, #]), and "
            "heads drawn from the same layers of other models # (difference # [#, #]); without the heads above 0.5 the "
            "excess over random matchings is #, with them #",
            recurring_kinds,
        ),
        Claim(
            "success",
            "(R² above controls #, in models that left the plateau #), X'y (#, #), w·x (#, #)",
            ingredients,
        ),
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "claim"),
    [(page, claim) for page, claims in CLAIMS.items() for claim in claims],
    ids=lambda value: value.quotation[:40] if isinstance(value, Claim) else value.stem,
)
def test_a_page_quotes_what_its_study_finds(page, claim):
    shown, expected = numbers_in(page.read_text(), claim.quotation), claim.expected(study(claim.study))
    assert len(shown) == len(expected)
    assert all(map(agrees, shown, expected)), f"the page says {shown}, `interp study {claim.study}` finds {expected}"


@pytest.mark.parametrize(
    ("page", "claim"),
    [(page, claim) for page, claims in CLAIMS.items() for claim in claims],
    ids=lambda value: value.quotation[:40] if isinstance(value, Claim) else value.stem,
)
def test_every_quotation_stands_in_its_page(page, claim):
    assert numbers_in(page.read_text(), claim.quotation)


def test_a_page_that_quotes_something_else_is_caught():
    text = "costs 0.98 [0.91, 1.04] in 5 of 5 seeds"
    assert numbers_in(text, "costs # [#, #] in # of # seeds") == ["0.98", "0.91", "1.04", "5", "5"]
    assert agrees("0.98", 0.984)
    assert not agrees("0.98", 0.99)
    assert not agrees("5", 4)
    with pytest.raises(AssertionError, match="0 times"):
        numbers_in(text, "costs # of # seeds")
    with pytest.raises(AssertionError, match="2 times"):
        numbers_in("1 of 5 here, 2 of 5 there", "# of 5")

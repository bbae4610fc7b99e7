"""Sentences of studies, each from a small table written by hand: what a reader gets to read, word for word."""

import importlib
import inspect
import math
import re
from typing import Any

import pandas as pd
import pytest

from analyses.studies.architectures import verdict as architectures
from analyses.studies.cause import verdict as cause
from analyses.studies.consistency import verdict as consistency
from analyses.studies.efficiency import verdict as efficiency
from analyses.studies.emergence import verdict as emergence
from analyses.studies.plateaus import verdict as plateaus
from analyses.studies.success import verdict as success
from analyses.studies.trace import verdict as trace
from analyses.studies.variants import verdict as variants

MODULES = [
    "architectures",
    "cause",
    "consistency",
    "efficiency",
    "emergence",
    "plateaus",
    "success",
    "trace",
    "variants",
]


@pytest.mark.parametrize("study", MODULES)
def test_every_template_has_a_rule_that_uses_it(study):
    module = importlib.import_module(f"analyses.studies.{study}.verdict")
    folder = importlib.import_module(f"analyses.studies.{study}.study")
    rules = inspect.getsource(module).partition("SENTENCES = {")[2].partition("\n}\n")[2] + inspect.getsource(folder)
    assert [name for name in module.SENTENCES if not re.search(rf'"{re.escape(name)}"', rules)] == []


HIDDEN = (
    " (in 1 of the other cases one of the heads alone already costs at least 0.5 of the gain, which can hide how "
    "the others act together)"
)


def test_what_removing_heads_together_costs():
    cases = [
        {
            "checkpoint": "a",
            "effect": 0.9,
            "sum_alone": 0.2,
            "highest_alone": 0.1,
            "excess": 0.7,
            "ci_low": 0.6,
            "ci_high": 0.8,
        },
        {
            "checkpoint": "b",
            "effect": 0.9,
            "sum_alone": 0.1,
            "highest_alone": 0.6,
            "excess": 0.8,
            "ci_low": 0.1,
            "ci_high": 1.5,
        },
    ]
    cases = [case | {"function_class": "linear"} for case in cases]
    assert cause.joint_sentences(pd.DataFrame(cases)) == [
        "Where a model has several such heads (a and b), removing them together costs more than the sum of their costs "
        "alone, by more than 0.1 of the gain (95 % interval over prompts), in 1 of 2 cases, most in a on linear (0.90 "
        "against 0.20, 0.70 [0.60, 0.80] more): either one of these heads can replace another, or their contributions "
        f"add up (errors are squared){HIDDEN}."
    ]
    assert cause.joint_sentences(pd.DataFrame(cases[1:])) == [
        "Where a model has several such heads (b), removing them together costs more than the sum of their costs "
        f"alone, by more than 0.1 of the gain (95 % interval over prompts), in 0 of 1 case{HIDDEN}."
    ]


def test_what_heads_do_alone_and_how_good_a_guide_the_score_is():
    kept = {"curriculum": "mixed", "mode": "mean", "n_seeds": 2}
    cells = [{"function_class": "linear", "effect": 1.03, "t_low": 0.93, "t_high": 1.13}]
    cells += [{"function_class": "cubic", "effect": 0.7, "t_low": math.nan, "t_high": math.nan}]
    assert cause.keep_sentences(pd.DataFrame([kept | cell for cell in cells])) == [
        "Without any other head, this share of the in-context gain is left (mean ablation): mixed -0.03 [-0.13, 0.07] "
        "on linear, 0.30 on cubic. In no case is half of it left: the heads are not enough by themselves."
    ]
    guide = {"function_class": "linear", "n_models": 3, "n_seeds": 3, "spearman": 0.1, "t_low": -0.2, "t_high": 0.4}
    levels = [guide | {"level": 0.1, "n_attend": 4, "n_both": 3, "n_matter": 9}]
    levels += [guide | {"level": 0.5, "n_attend": 4, "n_both": 2, "n_matter": 5}]
    assert cause.guide_sentences(pd.DataFrame(levels)) == [
        "On linear, the rank correlation of score and effect of single heads is 0.10 (t-interval over 3 seeds [-0.20, "
        "0.40]). Of the heads that score above 0.5, 3 of 4 cost more than 0.1 and 2 of 4 cost more than 0.5 of the "
        "gain when removed alone; of the heads that cost more than 0.1 the score finds 3 of 9, of those that cost more "
        "than 0.5 the score finds 2 of 5."
    ]


@pytest.mark.parametrize(
    ("effect", "p_holm", "smallest_p", "sentence"),
    [
        (0.9, 0.01, 0.001, " The paper's claim is shown on linear (1.06 there)."),
        (0.4, 0.01, 0.001, " The paper's claim is not shown on linear: less than 0.5 of the gain."),
        (0.9, 0.2, 0.001, " The paper's claim is not shown on linear: p after Holm is above 0.05."),
        (
            0.9,
            0.2,
            0.125,
            " The paper's claim is not shown on linear: p after Holm is above 0.05, and with so few control sets it "
            "cannot be smaller than 0.125.",
        ),
    ],
)
def test_agreement_with_the_paper_needs_size_and_chance(effect, p_holm, smallest_p, sentence):
    row = {"function_class": "linear", "mode": "mean", "n_seeds": 3, "effect": effect, "p_holm": p_holm}
    row["smallest_p"] = smallest_p
    assert cause.compare_with_paper(pd.DataFrame([row])) == sentence


OUTCOME = {"n_seeds": 3, "all_or_nothing": False, "t_low": 0.7, "t_high": 0.9, "n_half": 3}


@pytest.mark.parametrize(("r2", "verb"), [(0.8, "can"), (0.4, "can hardly")])
def test_what_heads_carry(r2, verb):
    values = {"retrospective heads": r2, "other heads": 0.1, "the same, untrained": 0.0}
    rows = [{"curriculum": "mixed", "heads": heads, "r2": value} | OUTCOME for heads, value in values.items()]
    assert trace.decoding_sentences(pd.DataFrame(rows)) == [
        f"mixed: x_i {verb} be read from the outputs of the retrospective heads at y_i (R² {r2:.2f} [0.70, 0.90], 3 "
        "seeds; the other heads 0.10, the same heads untrained 0.00)."
    ]


def test_outcomes_of_few_or_divided_seeds():
    assert trace.format_outcome({"share": 0.5, "n_seeds": 1}, "share") == "0.50, one seed"
    divided = {"share": 0.5, "n_seeds": 5, "all_or_nothing": True, "n_half": 2, "share_low": 0.05, "share_high": 0.85}
    assert trace.format_outcome(divided, "share") == (
        "0.50 (all or nothing: at least half in 2 of 5 seeds [0.05, 0.85], Clopper-Pearson)"
    )


@pytest.mark.parametrize(
    ("enters", "t_high", "end"),
    [
        (0, 0.8, "."),
        (0, 1.2, ": no order is shown."),
        (61, 0.8, "; the class enters at step 61, and a head that earlier classes grew has to be first."),
        (math.nan, 0.8, "; the class is never trained on."),
    ],
)
def test_which_came_first(enters, t_high, end):
    row = {"curriculum": "mixed", "function_class": "cubic", "enters": enters, "n_runs": 5, "n_both": 4, "n_seeds": 4}
    row |= {"head first": 3, "gain first": 0, "ratio": 0.5, "t_low": 0.3, "t_high": t_high}
    assert emergence.order_sentences(pd.DataFrame([row])) == [
        "mixed, cubic: in 4 of 5 runs with head and gain the head came first in 3 and the gain in 0, otherwise between "
        "the same snapshots; the head's score reached half of its final value at 0.50 of the steps at which the gain "
        f"did (t-interval over 4 seeds [0.30, {t_high:.2f}]){end}"
    ]
    assert emergence.order_sentences(pd.DataFrame([row | {"n_both": 0}])) == [
        "mixed, cubic: no run has both such heads and a gain of at least 0.2 at its end."
    ]


def ratio_rows(**values: float) -> list[dict[str, Any]]:
    row: dict[str, Any] = {"curriculum": "mixed", "n_reached": 5, "n_seeds": 5, "single_reached": 5, "single_seeds": 5}
    row |= {"threshold": 0.5, "at_least": 0.1, "at_most": 0.1, "value": 0.1, "rank_low": 0.08, "rank_high": 0.12}
    operations = row | {"measure": "flops", "value": 0.9, "rank_low": 0.7, "rank_high": 1.2}
    return [row | {"measure": "prompts_seen"} | values, operations]


@pytest.mark.parametrize(
    ("limits", "verdict"),
    [
        ((0.08, 0.12), "consistent with a ninth"),
        ((0.08, 1.2), "consistent with a ninth, and with no saving"),
        ((0.05, 0.1), "LESS than a ninth"),
        ((0.2, 0.4), "MORE than a ninth, and less than all"),
        ((0.2, 1.4), "MORE than a ninth, and no saving shown"),
    ],
)
def test_how_much_data_a_curriculum_needs(limits, verdict):
    rows = ratio_rows(rank_low=limits[0], rank_high=limits[1])
    assert efficiency.need_sentence(rows, curriculum="mixed", function_class="cubic") == (
        "cubic, to 0.5 of the no-context optimum (reached by 5 of 5 mixed, 5 of 5 single seeds): mixed needs 0.1 "
        f"[{limits[0]:.3g}, {limits[1]:.3g}] of the prompts of the class that training on it alone needs - {verdict} - "
        "and 0.9 [0.7, 1.2] of the operations - no difference in compute shown."
    )


def test_an_error_that_most_seeds_do_not_reach():
    rows = ratio_rows(n_reached=2)
    assert efficiency.need_sentence(rows, curriculum="mixed", function_class="cubic") == (
        "cubic, mixed: no error can be compared; even 0.5 of the no-context optimum is reached by 2 of 5 mixed, 5 of 5 "
        "single seeds."
    )


def test_runs_that_stayed_and_the_papers_counts():
    runs = [{"curriculum": "random", "function_class": "cubic", "ratio": ratio, "state": "at the no-context optimum"}
            for ratio in (0.98, 1.01)]  # fmt: skip
    assert plateaus.stayed_sentences(pd.DataFrame(runs)) == [
        "random on cubic, 2 runs that did not leave: 2 at the no-context optimum (error over that of the no-context "
        "optimum 0.980 to 1.010; at: the run's interval over prompts lies within 1 ± 0.1)."
    ]
    row = {"curriculum": "mixed", "function_class": "quadratic", "n_left": 5, "n_seeds": 5, "published_left": 3}
    row |= {"published_seeds": 5, "p_value": 0.44, "published_p": 1 / 6}
    assert plateaus.paper_sentences(pd.DataFrame([row])) == [
        "Seeds that left the plateau on quadratic, compared with the paper: mixed 3 of 5 there, 5 of 5 here, no "
        "difference shown (p = 0.44). The paper's own 3 of 5 against 0 of 5 has p = 0.17: with five seeds on each "
        "side only a difference of at least 4 seeds can be significant."
    ]


def test_ingredients_and_what_follows_from_them():
    row = {"n_failed": 3, "measure": "x at y", "failed": 0.5, "failed_low": 0.3, "failed_high": 0.7}
    assert success.ingredient_sentences("all models", [row]) == [
        "all models, ingredients of the failed models (R² above controls, t-interval over seeds): x at y 0.50 [0.30, "
        "0.70]: held. They hold x at y and do not use them in their predictions (a target that can be decoded need not "
        "be usable by the model: `interp probe --swap`)."
    ]
    lacking = row | {"failed": 0.0, "failed_low": -0.01, "failed_high": 0.02}
    (text,) = success.ingredient_sentences("all models", [lacking])
    assert text.endswith(
        "They LACK the ingredients, as far as linear probes can show: they do not hold them without using them."
    )
    (text,) = success.ingredient_sentences("mixed", [row | {"n_failed": 1}])
    assert text == (
        "mixed, ingredients (R² above controls) of the one failed model: x at y 0.50. Nothing follows about others."
    )


def test_models_with_and_without_heads_that_matter():
    row = {"variant": "reference", "learned": True, "n_found": 1.0, "highest": 0.9, "effect": 0.8}
    rows = [row | {"checkpoint": "a"}, row | {"checkpoint": "b", "effect": 0.1}]
    rows += [row | {"checkpoint": "c", "n_found": 0.0, "highest": 0.2}, row | {"checkpoint": "d", "learned": False}]
    assert variants.model_sentences(pd.DataFrame(rows)) == [
        "Of 3 models that left the plateau on a class, 2 have a head with a score above 0.5; none is in c (reference, "
        "highest 0.20).",
        "Removing these heads (mean ablation) costs at least 0.5 of the in-context gain in 1 of 2; not in b "
        "(reference, 0.10).",
        "Of 1 model that stayed on it, 1 have one.",
    ]


def matching_cells(**values: tuple[float, float]) -> dict[tuple[str, str], dict[str, float]]:
    """Cells of the table of pairs, values with the lower ends of their intervals."""
    names = ("matched", "by_index", "chance", "matched_excess", "untrained_excess", "learned", "kinds", "beyond_kinds")
    given = dict.fromkeys((*names, "rest_excess"), (0.2, 0.1)) | values
    return {
        (within, name): {"value": value, "ci_low": low, "ci_high": 0.3, "n_pairs": 6, "n_seeds": 4}
        for within in ("layer", "model")
        for name, (value, low) in given.items()
    }


@pytest.mark.parametrize(
    ("learned", "beyond", "conclusion"),
    [
        (math.nan, 0.1, "Fewer than three seeds allow no interval: nothing follows."),
        (-0.1, 0.1, "The interval includes 0: it is not shown that training makes them similar."),
        (0.1, math.nan, "So training gives independent models similar heads; without the heads above 0.5 the excess is "
                        "0.20. Too few other models are left to draw heads from, so matched heads of two models are "
                        "not compared with heads drawn from several."),
        (0.1, -0.1, "So training gives independent models similar heads; without the heads above 0.5 the excess is "
                    "0.20. Each model was also matched with composite models, whose heads are drawn at random from the "
                    "same layers of the other models: matched heads have a similarity of 0.20 there (real minus "
                    "composite 0.20 [-0.10, 0.30]). It is not shown that two real models have more heads in common "
                    "than a real and a composite one."),
        (0.1, 0.1, "So training gives independent models similar heads; without the heads above 0.5 the excess is "
                   "0.20. Each model was also matched with composite models, whose heads are drawn at random from the "
                   "same layers of the other models: matched heads have a similarity of 0.20 there (real minus "
                   "composite 0.20 [0.10, 0.30]). Two real models have MORE heads in common than a real and a "
                   "composite one."),
    ],
)  # fmt: skip
def test_whether_models_have_the_same_heads(learned, beyond, conclusion):
    cells = matching_cells(learned=(0.2, learned), beyond_kinds=(0.2, beyond))
    text = consistency.matching_sentence(cells, "independent models")
    assert text.endswith(conclusion)
    assert text.startswith(
        "By function, independent models (6 pairs of 4 seeds): heads matched within layers have a similarity of 0.20 "
        "(cosine, at pairs and prompts that were not used to match them), heads of the same number 0.20, heads matched "
        "at random 0.20; the excess of 0.20 is 0.20 in the untrained twins"
    )


def test_which_architectures_learn_and_have_heads():
    row = {"curriculum": "a", "n_left": 2, "n_seeds": 3, "low": 0.09, "high": 0.99}
    counts = [row | {"function_class": "linear", "threshold": line} for line in (0.9, 0.5)]
    counts += [row | {"function_class": "cubic", "threshold": line, "n_left": 0} for line in (0.9, 0.5)]
    assert architectures.learned_sentence("a", pd.DataFrame(counts)) == (
        "a: left the plateau (error at most 0.9 of the no-context optimum) on linear in 2 of 3 [0.09, 0.99] and cubic "
        "in 0 of 3 [0.09, 0.99]; converged (at most 0.5) on linear in 2 and cubic in 0."
    )
    heads = {"variant": "a", "n_seeds": 3, "n_learned": 2, "n_with": 1, "low": 0.01, "high": 0.99, "n_stayed_with": 0}
    heads |= {"highest_min": 0.2, "highest_max": 0.8, "chance": 0.12, "layers": "0,1"}
    assert architectures.head_sentence("a", pd.DataFrame([heads])) == (
        "a: of 2 seeds that left the plateau on a class, 1 have a head with a retrospective score above 0.5 [0.01, "
        "0.99], in layers 0 and 1; the highest scores are 0.20 to 0.80 (uniform attention: 0.12)."
    )
    assert architectures.head_sentence("a", pd.DataFrame([heads | {"n_learned": 0, "n_with": 0}])) == (
        "a: none of 3 seeds left the plateau on any class; 0 have a head with a retrospective score above 0.5."
    )


def test_differences_of_architectures_need_chance_to_be_excluded():
    row = {"variant": "a", "count": "linear", "n": 0, "n_seeds": 5, "reference_n": 5, "reference_seeds": 5}
    row |= {"p_value": 0.008, "p_holm": 0.04, "smallest_p": 0.008}
    with_heads = row | {"count": "heads"}
    assert architectures.count_sentences(pd.DataFrame([row, with_heads])) == [
        "Compared with the reference, a left the plateau on linear in 0 of 5 seeds against 5 of 5 (p after Holm 0.04) "
        "and a has retrospective heads in 0 of 5 seeds against 5 of 5 (p after Holm 0.04) (Fisher, Holm over "
        "architectures)."
    ]
    assert architectures.count_sentences(pd.DataFrame([row | {"p_holm": 0.2}])) == [
        "No count differs from the reference's beyond chance (Fisher, Holm over architectures); so few seeds allow no "
        "p below 0.008 before Holm."
    ]
    mean = {"variant": "a", "measure": "ratio", "difference": 0.3, "low": 0.2, "high": 0.4, "p_holm": 0.01}
    assert architectures.mean_sentences(pd.DataFrame([mean])) == [
        "a differs from the reference in error / no-context optimum (0.300 [0.200, 0.400]) (difference, Welch's "
        "interval, Holm over architectures)."
    ]
    assert architectures.mean_sentences(pd.DataFrame([mean | {"p_holm": 0.2}])) == [
        "No mean over seeds differs from the reference's beyond chance (Welch, Holm over architectures)."
    ]
    reference = mean | {"variant": "reference", "p_holm": math.nan}
    assert architectures.mean_sentences(pd.DataFrame([reference])) == []

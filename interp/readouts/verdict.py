"""Sentences that follow from readouts by fixed rules."""

import math
from typing import Any

import pandas as pd

from interp.display.result import displays
from interp.display.text import counted, listed
from interp.readouts.head_decoding import HeadDecoding
from interp.readouts.lens import Lens
from interp.readouts.probes import Probes
from interp.readouts.subspace_patching import Swaps, needed_controls
from interp.readouts.tables import select_rows, top_row
from interp.statistics.effects import SIGNIFICANT, widen_interval
from interp.statistics.p_values import is_bound, p_text
from training.common.output import interval, records
from training.common.table_rows import distinct, where

APPEARS, COMPLETE = 0.5, 0.9
"""Shares of the model's in-context gain from which on the answer counts as present, and as complete."""
ROUNDING = 1e-12
"""Of products of p-values with the number of tests."""
SENTENCES = {
    "no gain": "On {function_class} the model is not shown to beat the no-context optimum: no answer appears.",
    "no answer": "On {function_class} no stage has half of the model's gain over the no-context optimum.",
    "answer": "On {function_class} the tuned lens first reaches half of the model's gain over the no-context optimum "
    "at {first} ({gain:z.2f} of it; {gain_before:z.2f} at the stage before) and {ending}; in squared distance / E[y²] "
    "it is closest {nearest}.",
    "complete": "{level} of it at {stage}",
    "never complete": "{level} of it at no stage",
    "nearest": "after layer {layer} to {references} ({distance:.3f})",
    "y tokens": "At the y tokens of {function_class}, which hold y itself, the tuned lens is closest {nearest}.",
    "nearest at y": "after layer {layer} to {references} ({distance:.3f}) and {distance_to_y:.3f} from y",
    "probes": "Decodable on {function_class}: {targets}{chosen}.",
    "not decodable": "{target} not shown to exceed its controls anywhere",
    "decodable": "{target} exceeds its controls most at {stage}, {token} tokens, k = {examples} ({metric} {value}, "
    "{above} above them)",
    "chosen": " (of up to {n_positions} positions each; intervals hold for all {n_probes} probes at once)",
    "swaps": "Swapped on {function_class}: {targets}{shared}.",
    "shared": ". Targets that vary together share subspaces: which of them the model reads is not tested",
    "swap": "the subspace of {target} {judgement} ({effect} of the way at {stage}, {token} tokens, chosen on other "
    "prompts; whole stream {full:.2f}; random subspaces {random:.2f}, matched ones orthogonal to it {matched:.2f}; "
    "{p})",
    "untested": "the subspace of {target} was not tested ({effect} of the way at {stage}, {token} tokens, chosen on "
    "other prompts; there is nothing to compare it with)",
    "used": "is used",
    "too few controls": "moves the prediction more than every random subspace, but {n_controls} of these are too few "
    "for {n_tests} (--controls {needed} would do)",
    "not used": "is not distinguished from random subspaces",
    "one head": "On {function_class} head {head} has the highest retrospective score ({score:.2f}), and R² of x_i in "
    "its output is {r2}{best}.",
    "several heads": "On {function_class} heads {head} have the highest retrospective score ({score:.2f}), and R² of "
    "x_i in their outputs is {r2}{best}.",
    "best": "; the highest R² is that of head {best_head} ({best_r2:.2f})",
}
Fact = tuple[str, dict[str, Any]]
"""The name of a sentence and the values in it."""


def write_sentence(fact: Fact) -> str:
    name, values = fact
    return SENTENCES[name].format(**values)


def describe_reference(reference: str) -> str:
    """A reference predictor in words.

    >>> describe_reference("gradient_descent_1"), describe_reference("ridge")
    ('gradient descent with 1 step', 'ridge')
    """
    if reference.startswith("gradient_descent_"):
        return f"gradient descent with {counted(int(reference.rpartition('_')[2]), 'step')}"
    names = {"no_context": "the no-context optimum", "single_index": "the learner that knows the class"}
    names |= {"dmmse": "the posterior mean over the pool (dMMSE)"}
    return names.get(reference, reference.replace("_", " "))


@displays(Lens, "sentences")
def lens_verdict(result: Lens) -> list[str]:
    """One sentence per class: where the answer appears, and the predictors nearest to the tuned lens after every layer.

    The answer appears at the first stage at which the tuned lens has half of the model's gain over the no-context
    optimum (`APPEARS`), and is complete at the first with 0.9 of it (`COMPLETE`).
    """
    rule = answer_by_depth if result.token == "x" else nearest_at_y
    by_class = {name: where(result.depth, function_class=name, kind="tuned") for name in distinct_classes(result.depth)}
    return [write_sentence(rule(name, tuned)) for name, tuned in by_class.items()]


def distinct_classes(table: pd.DataFrame) -> list[str]:
    return distinct(table, "function_class")


def answer_by_depth(function_class: str, tuned: pd.DataFrame) -> Fact:
    """The stages at which the answer appears and is complete."""
    stages = select_rows(tuned, reference="target")
    values: dict[str, Any] = {"function_class": function_class}
    if math.isnan(stages[-1]["gain"]):
        return "no gain", values
    first = next((i for i, row in enumerate(stages) if row["gain"] >= APPEARS), None)
    if first is None:
        return "no answer", values
    complete = [row["stage"] for row in stages if row["gain"] >= COMPLETE]
    values |= {"first": stages[first]["stage"], "gain": stages[first]["gain"]}
    values |= {"gain_before": stages[max(0, first - 1)]["gain"]}
    ending = SENTENCES["complete" if complete else "never complete"]
    values |= {"ending": ending.format(stage="".join(complete[:1]), level=COMPLETE)}
    return "answer", values | {"nearest": describe_nearest(tuned, "nearest")}


def nearest_at_y(function_class: str, tuned: pd.DataFrame) -> Fact:
    """The nearest predictors of the tuned lens at y tokens, and its distance to y."""
    return "y tokens", {"function_class": function_class, "nearest": describe_nearest(tuned, "nearest at y")}


def describe_nearest(tuned: pd.DataFrame, sentence: str) -> str:
    """The nearest predictor after every layer, and those whose distance does not differ clearly: the next, and how many
    others."""
    parts = []
    for row in select_rows(tuned, reference="target"):
        layer, _, part = row["stage"].partition(".")
        if part == "post":
            near = sorted(select_rows(tuned, stage=row["stage"], near=True), key=lambda row: row["distance"])
            names = [describe_reference(row["reference"]) for row in near[:2]]
            references = " or ".join([*names, *([counted(len(near) - 2, "other")] if len(near) > 2 else [])])
            values = {"layer": layer, "references": references, "distance": near[0]["distance"]}
            parts.append(write_sentence((sentence, values | {"distance_to_y": row["distance"]})))
    return ", ".join(parts)


@displays(Probes, "sentences")
def probe_verdict(result: Probes) -> list[str]:
    """One sentence per class: for every target, the position where it exceeds its controls most.

    These are the best of many positions, so intervals are widened to hold for all probes of the result at once.
    """
    intact, sentences = where(result.table, condition="intact"), []
    for name in distinct_classes(intact):
        table = where(intact, function_class=name)
        by_target = {target: where(table, target=target) for target in distinct(table, "target")}
        facts = [best_position(target, rows, len(intact)) for target, rows in by_target.items()]
        counts = {"n_positions": max(map(len, by_target.values())), "n_probes": len(intact)}
        chosen = SENTENCES["chosen"].format(**counts) if len(intact) > 1 else ""
        targets = "; ".join(map(write_sentence, facts))
        sentences.append(SENTENCES["probes"].format(function_class=name, targets=targets, chosen=chosen))
    return sentences


def best_position(target: str, table: pd.DataFrame, n_probes: int) -> Fact:
    """Of the probes that exceed their controls by an interval for so many probes at once, the one that does so most."""
    rows = [row | {"above_wide": widen(row, "above", "above", n_probes)} for row in records(table)]
    clear: list[dict[str, Any]] = [row for row in rows if row["above_wide"][0] > 0]
    if not clear:
        return "not decodable", {"target": target}
    best = max(clear, key=lambda row: row["above"])
    low, high = widen(best, "value", "ci", n_probes)
    value = interval(best["value"], low, min(high, 1.0))
    metric = "accuracy" if best["metric"] == "accuracy" else "R²"
    above = "{:.2f} [{:.2f}, {:.2f}]".format(best["above"], *best["above_wide"])
    return "decodable", best | {"target": target, "value": value, "metric": metric, "above": above}


def widen(row: dict[str, Any], column: str, prefix: str, n_values: int) -> tuple[float, float]:
    """The interval of a column, for so many values at once."""
    return widen_interval(row[column], row[f"{prefix}_low"], row[f"{prefix}_high"], n_values)


@displays(Swaps, "sentences")
def swap_verdict(result: Swaps) -> list[str]:
    """One sentence per class: for every target, the position chosen on selection prompts, and its test on test prompts.

    The subspace of a target is used if its pattern has a larger effect there than both kinds of controls, after Holm
    over targets and classes. That the model reads this target, and not another that varies with it, does not follow.
    """
    patterns, sentences = where(result.table, subspace="pattern"), []
    n_tests = len(patterns.dropna(subset=["p_chosen"]))
    for name in distinct_classes(patterns):
        table = where(patterns, function_class=name)
        rows = [top_row(where(table, target=target), "evidence") for target in distinct(table, "target")]
        targets = "; ".join(write_sentence(judge_target(row, n_tests)) for row in rows)
        n_used = sum(row["p_holm"] <= SIGNIFICANT + ROUNDING for row in rows)
        shared = SENTENCES["shared"] if n_used > 1 else ""
        sentences.append(SENTENCES["swaps"].format(function_class=name, targets=targets, shared=shared))
    return sentences


def judge_target(row: dict[str, Any], n_tests: int) -> Fact:
    """The effect of a target's swap, and whether it exceeds its controls significantly among so many tests."""
    values = row | {"effect": interval(row["effect"], row["ci_low"], row["ci_high"])}
    if math.isnan(row["p_chosen"]):
        return "untested", values
    judgement = SENTENCES[judge_swap(row["p_chosen"], row["p_holm"], row["n_controls"])]
    judgement = judgement.format(**row, n_tests=counted(n_tests, "test"), needed=needed_controls(n_tests))
    return "swap", values | {
        "judgement": judgement,
        "p": p_text(row["p_chosen"], row["n_controls"], holm=row["p_holm"]),
    }


def judge_swap(p_value: float, p_holm: float, n_controls: int) -> str:
    """The name of the sentence about a p-value, which cannot be smaller than 1 / (n_controls + 1).

    >>> judge_swap(0.01, 0.02, 99), judge_swap(0.01, 0.15, 99), judge_swap(0.02, 0.3, 99)
    ('used', 'too few controls', 'not used')
    """
    if p_holm <= SIGNIFICANT + ROUNDING:
        return "used"
    return "too few controls" if is_bound(p_value, n_controls) else "not used"


@displays(HeadDecoding, "sentences")
def heads_verdict(result: HeadDecoding) -> list[str]:
    """One sentence per class: the head with the highest retrospective score, and that with the highest R²."""
    by_class = {name: where(result.table, function_class=name) for name in distinct_classes(result.table)}
    return [write_sentence(highest_heads(name, table)) for name, table in by_class.items()]


def highest_heads(function_class: str, table: pd.DataFrame) -> Fact:
    """The heads with the highest score, all that equal it in two digits, and another if its R² is clearly higher."""
    rows = records(table)
    score, best = max(round(row["score"], 2) for row in rows), top_row(table, "value")
    highest = [row for row in rows if round(row["score"], 2) == score]
    r2 = listed([interval(row["value"], row["ci_low"], row["ci_high"]) for row in highest])
    values = {"function_class": function_class, "head": listed([name_head(row) for row in highest]), "score": score}
    is_higher = best["ci_low"] > max(row["ci_high"] for row in highest)
    best_text = SENTENCES["best"].format(best_head=name_head(best), best_r2=best["value"]) if is_higher else ""
    return "several heads" if len(highest) > 1 else "one head", values | {"r2": r2, "best": best_text}


def name_head(row: dict[str, Any]) -> str:
    return f"{row['layer']}.{row['head']}"

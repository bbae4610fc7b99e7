"""Sentences that follow from readouts by fixed rules."""

import math
from typing import Any

import pandas as pd

from interp.display.result import displays
from interp.display.text import counted
from interp.readouts.head_decoding import HeadDecoding
from interp.readouts.lens import Lens
from interp.readouts.probes import Probes
from interp.readouts.subspace_patching import Swaps
from interp.readouts.tables import select_rows, top_row
from interp.statistics.effects import SIGNIFICANT
from training.common.output import interval
from training.common.table_rows import distinct, where

APPEARS, COMPLETE = 0.5, 0.9
"""Shares of the model's in-context gain from which on the answer counts as present, and as complete."""
SENTENCES = {
    "no gain": "On {function_class} the model is not shown to beat the no-context optimum: no answer appears.",
    "no answer": "On {function_class} no stage has half of the model's gain over the no-context optimum.",
    "answer": "On {function_class} the answer appears at {first} ({gain:.2f} of the model's gain over the no-context "
    "optimum, {gain_before:.2f} before) and is complete at {complete}; the tuned lens is closest {nearest}.",
    "nearest": "after layer {layer} to {references} ({distance:.3f})",
    "y tokens": "At the y tokens of {function_class}, which hold y itself, the tuned lens is closest {nearest}.",
    "nearest at y": "after layer {layer} to {references} ({distance:.3f}) and {distance_to_y:.3f} from y",
    "probes": "Decodable on {function_class}: {targets}.",
    "not decodable": "{target} nowhere above its controls",
    "decodable": "{target} best at {stage}, {token} tokens, k = {examples} ({metric} {value}, {above:.2f} above its "
    "controls)",
    "swaps": "Swapped on {function_class}: {targets}.",
    "swap": "{target} {judgement} ({effect} of the way at {stage}, {token} tokens, chosen on other prompts; whole "
    "stream {full:.2f}; random subspaces {random:.2f}, matched ones orthogonal to it {matched:.2f}; p = "
    "{p_chosen:.3f})",
    "used": "is used",
    "too few controls": "moves the prediction more than every random subspace, but these are too few for a test",
    "not used": "cannot be distinguished from random subspaces",
    "one head": "On {function_class} head {head} has the highest retrospective score ({score:.2f}), and R² of x_i in "
    "its output is {r2}.",
    "two heads": "On {function_class} head {head} has the highest retrospective score ({score:.2f}), and R² of x_i in "
    "its output is {r2}; the highest R² is that of head {best_head} ({best_r2:.2f}).",
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
    complete = next(row["stage"] for row in stages if row["gain"] >= COMPLETE)
    values |= {"first": stages[first]["stage"], "gain": stages[first]["gain"], "complete": complete}
    values |= {"gain_before": stages[max(0, first - 1)]["gain"]}
    return "answer", values | {"nearest": describe_nearest(tuned, "nearest")}


def nearest_at_y(function_class: str, tuned: pd.DataFrame) -> Fact:
    """The nearest predictors of the tuned lens at y tokens, and its distance to y."""
    return "y tokens", {"function_class": function_class, "nearest": describe_nearest(tuned, "nearest at y")}


def describe_nearest(tuned: pd.DataFrame, sentence: str) -> str:
    """The nearest predictor, and the second one if its distance does not differ clearly, after every layer."""
    parts = []
    for row in select_rows(tuned, reference="target"):
        layer, _, part = row["stage"].partition(".")
        if part == "post":
            near = sorted(select_rows(tuned, stage=row["stage"], near=True), key=lambda row: row["distance"])
            references = " or ".join(describe_reference(row["reference"]) for row in near[:2])
            values = {"layer": layer, "references": references, "distance": near[0]["distance"]}
            parts.append(write_sentence((sentence, values | {"distance_to_y": row["distance"]})))
    return ", ".join(parts)


@displays(Probes, "sentences")
def probe_verdict(result: Probes) -> list[str]:
    """One sentence per class: for every target, the position where it exceeds its controls most."""
    return [
        SENTENCES["probes"].format(
            function_class=name,
            targets="; ".join(
                write_sentence(best_position(target, where(result.table, target=target, **selected)))
                for target in distinct(where(result.table, **selected), "target")
            ),
        )
        for name in distinct_classes(result.table)
        for selected in [{"function_class": name, "condition": "intact"}]
    ]


def best_position(target: str, table: pd.DataFrame) -> Fact:
    """The probe that exceeds its controls most, if that exceeds 0 by its interval."""
    best = top_row(table, "above")
    if not best["above_low"] > 0:
        return "not decodable", {"target": target}
    value = interval(best["value"], best["ci_low"], best["ci_high"])
    metric = "accuracy" if best["metric"] == "accuracy" else "R²"
    return "decodable", best | {"target": target, "value": value, "metric": metric}


@displays(Swaps, "sentences")
def swap_verdict(result: Swaps) -> list[str]:
    """One sentence per class: for every target, the position chosen on selection prompts, and its test on test prompts.

    A target is used if its pattern has a larger effect there than both kinds of controls.
    """
    sentences = []
    for name in distinct_classes(result.table):
        table = where(result.table, function_class=name, subspace="pattern")
        rows = [top_row(where(table, target=target), "evidence") for target in distinct(table, "target")]
        targets = "; ".join(write_sentence(judge_target(row)) for row in rows)
        sentences.append(SENTENCES["swaps"].format(function_class=name, targets=targets))
    return sentences


def judge_target(row: dict[str, Any]) -> Fact:
    """The effect of a target's swap, and whether it exceeds its controls significantly."""
    effect = interval(row["effect"], row["ci_low"], row["ci_high"])
    return "swap", row | {"effect": effect, "judgement": SENTENCES[judge_swap(row["p_chosen"], row["n_controls"])]}


def judge_swap(p_value: float, n_controls: int) -> str:
    """The name of the sentence about a p-value, which cannot be smaller than 1 / (n_controls + 1).

    >>> judge_swap(0.01, 99), judge_swap(0.1, 9), judge_swap(0.2, 9)
    ('used', 'too few controls', 'not used')
    """
    if p_value <= SIGNIFICANT:
        return "used"
    return "too few controls" if p_value <= 1 / (n_controls + 1) + 1e-12 else "not used"


@displays(HeadDecoding, "sentences")
def heads_verdict(result: HeadDecoding) -> list[str]:
    """One sentence per class: the head with the highest retrospective score, and that with the highest R²."""
    by_class = {name: where(result.table, function_class=name) for name in distinct_classes(result.table)}
    return [write_sentence(highest_heads(name, table)) for name, table in by_class.items()]


def highest_heads(function_class: str, table: pd.DataFrame) -> Fact:
    """The heads with the highest score and the highest R²."""
    highest, best = (top_row(table, column) for column in ("score", "value"))
    head, best_head = (f"{row['layer']}.{row['head']}" for row in (highest, best))
    r2 = interval(highest["value"], highest["ci_low"], highest["ci_high"])
    values = {"function_class": function_class, "head": head, "score": highest["score"], "r2": r2}
    values |= {"best_head": best_head, "best_r2": best["value"]}
    return "one head" if head == best_head else "two heads", values

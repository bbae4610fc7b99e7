"""Patching maps in words: the locations with the best evidence, class by class."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from interp.display.result import displays
from interp.display.text import counted, listed
from interp.patching.maps import UNVARYING, PatchMap, name_location
from interp.statistics.effects import differs_from_zero, rank_by_evidence
from training.common.output import records
from training.common.table_rows import distinct, where

ALIKE = 0.5
"""NMSE: both runs give about the same answer where the corrupt run's error and the gap between the runs are smaller."""

SENTENCES = {
    "no gap": "On {prompts} the clean and the corrupt run give the same predictions: there is nothing to patch.",
    "no effect": "On {prompts} no patch has an effect that differs from 0 ({n_locations} patched).",
    "no change of error": "On {prompts} both runs give about the same answer, so errors are compared, not effects: no "
    "patch gives an error that differs from that of the patched run ({n_locations} patched).",
    "effects": "On {prompts} patching {outcomes}.",
    "errors": "On {prompts} both runs give about the same answer, so errors are compared, not effects: "
    "without a patch the NMSE is {unpatched:.2f}; patching {outcomes}.",
    "unvarying": "{locations}: " + UNVARYING + ".",
    "unchanged": "Some activations are the same in both runs, so patching them has no effect (column changed).",
}
OUTCOMES = {
    "denoise": "{location} restores {value:.2f} [{low:.2f}, {high:.2f}] of the gap",
    "noise": "{location} destroys {value:.2f} [{low:.2f}, {high:.2f}] of the gap",
    "reverse": "{location} moves the prediction the other way, by {value:.2f} [{low:.2f}, {high:.2f}] of the gap",
    "error": "{location} gives {value:.2f} [{low:.2f}, {high:.2f}]",
}


@displays(PatchMap, "sentences")
def map_verdict(result: PatchMap) -> list[str]:
    """A sentence per class, and one for locations where a patch can have no effect."""
    sentences = [class_sentence(result, name) for name in distinct(result.table, "function_class")]
    rows = records(result.table)
    if unvarying := dict.fromkeys(name_location(result.site, row) for row in rows if row["note"]):
        sentences.append(SENTENCES["unvarying"].format(locations=listed(list(unvarying))))
    if not all(row["changed"] or row["note"] for row in rows):
        sentences.append(SENTENCES["unchanged"])
    return sentences


def class_sentence(result: PatchMap, function_class: str) -> str:
    """The location with the best evidence on one class, and the next one.

    Locations whose interval contains what the unpatched run has are not named; where there are no others, the sentence
    says how many were patched.
    """
    kind, rows = judge_map(result, function_class)
    outcomes = (describe_outcome(result, row, compare_errors=kind == "errors") for row in rows)
    return SENTENCES[kind].format(
        prompts=f"{function_class} (corrupt: {result.question.corrupt})",
        n_locations=counted(len(where(result.table, function_class=function_class)), "location"),
        unpatched=unpatched_error(result, function_class),
        outcomes="; next ".join(outcomes),
    )


def judge_map(result: PatchMap, function_class: str) -> tuple[str, list[dict[str, Any]]]:
    """Which sentence (a key of `SENTENCES`) a class gets, and the rows that it names."""
    best = strongest(result, function_class, 2)
    if np.isnan(best[0]["effect"]):
        return "no gap", []
    evident = [row for row in best if is_evident(result, function_class, row)]
    if answers_alike(result, function_class):
        return "errors" if evident else "no change of error", evident
    return "effects" if evident else "no effect", evident


def describe_outcome(result: PatchMap, row: Mapping[str, Any], *, compare_errors: bool) -> str:
    """What one patch does to the gap, or to the error."""
    location = name_location(result.site, row)
    if compare_errors:
        value, low, high = (row[column] for column in ("nmse", "nmse_low", "nmse_high"))
        return OUTCOMES["error"].format(location=location, value=value, low=low, high=high)
    value, low, high = row["effect"], row["ci_low"], row["ci_high"]
    if value < 0:
        return OUTCOMES["reverse"].format(location=location, value=-value, low=-high, high=-low)
    return OUTCOMES[result.question.direction].format(location=location, value=value, low=low, high=high)


def strongest(result: PatchMap, function_class: str, count: int) -> list[dict[str, Any]]:
    """The locations of one class with the best evidence that they matter (`rank_by_evidence`).

    Where both runs give about the same answer, locations are ranked by how much they change the error instead, those
    with an interval that leaves out the unpatched run's error first.
    """
    rows = records(where(result.table, function_class=function_class))
    if answers_alike(result, function_class):
        before = unpatched_error(result, function_class)
        rows.sort(key=lambda row: (not is_evident(result, function_class, row), -abs(row["nmse"] - before)))
    else:
        rows.sort(key=lambda row: rank_by_evidence(row["effect"], row["ci_low"], row["ci_high"]))
    return rows[:count]


def is_evident(result: PatchMap, function_class: str, row: Mapping[str, Any]) -> bool:
    """Whether the interval of a location leaves out that the patch changed nothing."""
    if answers_alike(result, function_class):
        before = unpatched_error(result, function_class)
        return bool(differs_from_zero(row["nmse_low"] - before, row["nmse_high"] - before))
    return not rank_by_evidence(row["effect"], row["ci_low"], row["ci_high"])[0]


def unpatched_error(result: PatchMap, function_class: str) -> float:
    """NMSE of the run that is patched, before it is patched."""
    return result.class_errors(function_class)[f"nmse_{result.question.base}"]


def answers_alike(result: PatchMap, function_class: str) -> bool:
    """Whether the corruption hardly changes the answer (as `inputs` does), so that the gap is too small for shares."""
    errors = result.class_errors(function_class)
    return errors["nmse_corrupt"] < ALIKE and errors["gap"] < ALIKE

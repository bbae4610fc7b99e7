"""Patching maps in words: the locations with the best evidence, class by class.

They are the best of many, so their intervals are widened to hold for all patches of the map at once
(`interp.statistics.effects.widen_interval`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from interp.display.result import displays
from interp.display.text import counted, listed
from interp.patching.composition import Composition
from interp.patching.maps import UNVARYING, PatchMap, name_location
from interp.patching.paths import PathEffects
from interp.patching.prompt_pairs import parse_corruption
from interp.patching.sites import SITES
from interp.statistics.effects import LEAST_NAMED, differs_from_zero, rank_by_evidence, widen_interval
from interp.statistics.p_values import is_bound
from training.common.output import records
from training.common.table_rows import distinct, where

MOST_NAMED = 6
"""Locations that a sentence names; more are counted."""
ALIKE = 0.5
"""NMSE: the corrupt run answers, too, where its error and the gap between the runs are smaller."""

SENTENCES = {
    "no gap": "On {prompts} the clean and the corrupt run give the same predictions: there is nothing to patch.",
    "no effect": "On {prompts} no patch is shown to have an effect of 0.01 or more ({n_locations} patched).",
    "no change of error": "On {prompts} the corrupt run answers, too, so errors are compared, not effects: no "
    "patch is shown to change the error of the patched run ({n_locations} patched).",
    "effects": "On {prompts} patching {outcomes}{chosen}.",
    "errors": "On {prompts} the corrupt run answers, too, so errors are compared, not effects: "
    "without a patch the NMSE is {unpatched:.2f}; patching {outcomes}{chosen}.",
    "chosen": " (chosen from {n_locations}; intervals hold for all {n_patches} of the map at once)",
    "unvarying": "{locations}: " + UNVARYING + ".",
    "composition": "{n_above} of {n_inputs} inputs score above all {n_rotations} rotations, where about {expected:.2g} "
    "would by chance; furthest above chance is {sender} to {receiver} ({score:.2f}, chance {chance:.2f}). Weights say "
    "what a head could read, not whether it does: interp.path_effects tests that.",
    "unchanged": "The same in both runs (corrupt: {corrupt}; column changed), so that this map cannot show what they "
    "do: {locations}.",
    "same x": "Both runs have the same x (corrupt: {corrupt}), so what a component carries of x alone has no "
    "effect in this map; other corruptions (--corrupt prompt) change x, too.",
    "paths": "On {prompts} what {sender} writes in the other run takes the prediction {total} of the way to that of "
    "the other run; {paths}.",
    "chosen path": " (chosen from {n_paths}; intervals hold for all of them at once)",
    "path": "the path to {receiver} alone {effect}",
    "path and next": "the path to {receiver} alone {effect}, next that to {next_receiver} {next_effect}",
    "no path": "none of {n_paths} is shown to carry 0.01 of the way or more",
    "no total": "On {prompts} what {sender} writes in the other run is not shown to take the prediction 0.01 of the "
    "way to that of the other run, so no path from it has a share; what writes the same may stand in for it.",
}
OUTCOMES = {
    "denoise": "{location} restores {value:.2f} [{low:.2f}, {high:.2f}] of the gap",
    "noise": "{location} destroys {value:.2f} [{low:.2f}, {high:.2f}] of the gap",
    "reverse": "{location} moves the prediction the other way, by {value:.2f} [{low:.2f}, {high:.2f}] of the gap",
    "error": "{location} {changes} it to {value:.2f} [{low:.2f}, {high:.2f}]",
}


@displays(PatchMap, "sentences")
def map_verdict(result: PatchMap) -> list[str]:
    """A sentence per class, and one for locations where a patch can have no effect."""
    sentences = [class_sentence(result, name) for name in distinct(result.table, "function_class")]
    rows = records(result.table)
    if unvarying := dict.fromkeys(name_location(result.site, row) for row in rows if row["note"]):
        sentences.append(SENTENCES["unvarying"].format(locations=listed(list(unvarying))))
    unchanged = dict.fromkeys(name_location(result.site, row) for row in rows if not row["changed"] and not row["note"])
    if unchanged:
        locations = list_most(list(unchanged))
        sentences.append(SENTENCES["unchanged"].format(corrupt=result.question.corrupt, locations=locations))
    corruption, _ = parse_corruption(result.question.corrupt)
    if corruption.keeps_x and SITES[result.site].by_head and not all(row["note"] for row in rows):
        sentences.append(SENTENCES["same x"].format(corrupt=result.question.corrupt))
    return sentences


def list_most(names: Sequence[str]) -> str:
    """The first names, and how many more there are.

    >>> list_most(["z of 0.1"]), list_most([f"x{i}" for i in range(9)])
    ('z of 0.1', 'x0, x1, x2, x3, x4 and x5, and 3 more')
    """
    more = f", and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return listed(list(names[:MOST_NAMED])) + more


def class_sentence(result: PatchMap, function_class: str) -> str:
    """The location with the best evidence on one class, and the next one.

    Locations whose interval contains what the unpatched run has are not named; where there are no others, the sentence
    says how many were patched.
    """
    kind, rows = judge_map(result, function_class)
    outcomes = (describe_outcome(result, row, compare_errors=kind == "errors") for row in rows)
    n_locations = counted(len(where(result.table, function_class=function_class)), "location")
    n_patches = len(result.table)
    return SENTENCES[kind].format(
        prompts=f"{function_class} (corrupt: {result.question.corrupt})",
        n_locations=n_locations,
        unpatched=unpatched_error(result, function_class),
        outcomes="; next ".join(outcomes),
        chosen=SENTENCES["chosen"].format(n_locations=n_locations, n_patches=n_patches) if n_patches > 1 else "",
    )


def judge_map(result: PatchMap, function_class: str) -> tuple[str, list[dict[str, Any]]]:
    """Which sentence (a key of `SENTENCES`) a class gets, and the rows that it names."""
    best = [widen_row(row, len(result.table)) for row in strongest(result, function_class, 2)]
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
        changes = "raises" if value > unpatched_error(result, row["function_class"]) else "lowers"
        return OUTCOMES["error"].format(location=location, changes=changes, value=value, low=low, high=high)
    value, low, high = row["effect"], row["ci_low"], row["ci_high"]
    if value < 0:
        return OUTCOMES["reverse"].format(location=location, value=-value, low=-high, high=-low)
    return OUTCOMES[result.question.direction].format(location=location, value=value, low=low, high=high)


def strongest(result: PatchMap, function_class: str, count: int) -> list[dict[str, Any]]:
    """The locations of one class with the best evidence that they matter (`rank_by_evidence`).

    Where the corrupt run answers, too, locations are ranked by how much they change the error instead, those
    with an interval that leaves out the unpatched run's error first. Intervals count as wide as for the whole map.
    """
    alike, before = answers_alike(result, function_class), unpatched_error(result, function_class)

    def rank(row: Mapping[str, Any]) -> tuple[bool, float]:
        wide = widen_row(row, len(result.table))
        if alike:
            return not is_evident(result, function_class, wide), -abs(row["nmse"] - before)
        return rank_by_evidence(row["effect"], wide["ci_low"], wide["ci_high"])

    return sorted(records(where(result.table, function_class=function_class)), key=rank)[:count]


def widen_row(row: Mapping[str, Any], n_patches: int) -> dict[str, Any]:
    """A location with intervals that hold for so many patches at once."""
    ci_low, ci_high = widen_interval(row["effect"], row["ci_low"], row["ci_high"], n_patches)
    nmse_low, nmse_high = widen_interval(row["nmse"], row["nmse_low"], row["nmse_high"], n_patches)
    return {**row, "ci_low": ci_low, "ci_high": ci_high, "nmse_low": nmse_low, "nmse_high": nmse_high}


def is_evident(result: PatchMap, function_class: str, row: Mapping[str, Any]) -> bool:
    """Whether the interval of a location leaves out that the patch changed nothing, and a sentence can show it."""
    if answers_alike(result, function_class):
        before = unpatched_error(result, function_class)
        return bool(differs_from_zero(row["nmse_low"] - before, row["nmse_high"] - before))
    return is_effect(row)


def unpatched_error(result: PatchMap, function_class: str) -> float:
    """NMSE of the run that is patched, before it is patched."""
    return result.class_errors(function_class)[f"nmse_{result.question.base}"]


def answers_alike(result: PatchMap, function_class: str) -> bool:
    """Whether the corruption hardly changes the answer (as `inputs` does), so that the gap is too small for shares."""
    errors = result.class_errors(function_class)
    return errors["nmse_corrupt"] < ALIKE and errors["gap"] < ALIKE


@displays(PathEffects, "sentences")
def path_verdict(result: PathEffects) -> list[str]:
    """A sentence per class and set of senders: their total effect, and the paths with the best evidence."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in records(result.table):
        groups.setdefault((row["function_class"], row["sender"]), []).append(row)
    return [describe_paths(f"{name} (corrupt: {result.question.corrupt})", *rows) for (name, _), rows in groups.items()]


def describe_paths(prompts: str, total: Mapping[str, Any], *paths: Mapping[str, Any]) -> str:
    """The sentence on the paths from one set of senders."""
    if not is_effect(total):
        return SENTENCES["no total"].format(prompts=prompts, sender=total["sender"])
    wide = []
    for row in paths:
        low, high = widen_interval(row["effect"], row["ci_low"], row["ci_high"], len(paths))
        wide.append({**row, "ci_low": low, "ci_high": high})
    wide.sort(key=lambda row: rank_by_evidence(row["effect"], row["ci_low"], row["ci_high"]))
    evident = [row for row in wide[:2] if is_effect(row)]
    template = ("no path", "path", "path and next")[len(evident)]
    n_paths = counted(len(paths), "path")
    values: dict[str, Any] = {"n_paths": n_paths}
    for prefix, row in zip(("", "next_"), evident, strict=False):
        values |= {f"{prefix}receiver": row["receiver"], f"{prefix}effect": show_effect(row)}
    clause = SENTENCES[template].format(**values) + (SENTENCES["chosen path"].format(**values) if evident else "")
    return SENTENCES["paths"].format(prompts=prompts, sender=total["sender"], total=show_effect(total), paths=clause)


def is_effect(row: Mapping[str, Any]) -> bool:
    """Whether an effect is not 0.00 and its interval leaves out 0."""
    return bool(abs(row["effect"]) >= LEAST_NAMED and differs_from_zero(row["ci_low"], row["ci_high"]))


def show_effect(row: Mapping[str, Any]) -> str:
    return "{effect:z.2f} [{ci_low:z.2f}, {ci_high:z.2f}]".format(**row)


@displays(Composition, "sentences")
def composition_verdict(result: Composition) -> list[str]:
    """How many inputs score above all rotations, how many would by chance, and the one furthest above chance."""
    rows = records(result.table)
    n_above = sum(is_bound(row["p_value"], result.n_rotations) for row in rows)
    furthest = max(rows, key=lambda row: row["score"] - row["chance"])
    counts = {"n_above": n_above, "n_inputs": len(rows), "n_rotations": result.n_rotations}
    return [SENTENCES["composition"].format(expected=len(rows) / (result.n_rotations + 1), **counts, **furthest)]

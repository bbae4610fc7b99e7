"""What a reader must know before believing the report: every warning that applies, by rule."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from analyses.report.evidence import Evidence, ModelEvidence, by_curriculum
from interp.ablation.size_classes import ATTENDS, size_of
from interp.display.text import counted
from interp.model.heads import show
from interp.statistics.effects import LEAST_GAIN, SIGNIFICANT
from interp.statistics.seeds import independent_seeds, unknown_seeds, unknown_seeds_note
from training.common.output import records
from training.common.table_rows import where
from training.evaluation.convergence import FRACTION
from training.options import DEFAULT_PROMPTS

FEW_SEEDS = 3

SENTENCES: dict[str, str] = {
    "self-check failed": "{failure}.",
    "few independent seeds": (
        "{seeds} of the curriculum {curriculum}: what holds here holds for {these_models}, not yet for the curriculum."
    ),
    "shared streams": (
        "{n_models} models share a stream of random numbers (initialisation, data or task choice), so they count as "
        "one seed: their agreement is no evidence."
    ),
    "unknown seeds": "{note}",
    "unconverged": (
        "{model} has not learned {function_class}: with all its heads its error is {ratio:.2f} of the no-context "
        "optimum, and effects are shares of the small gain that is left."
    ),
    "effect undefined": (
        "{model} is not clearly better than the no-context optimum on {classes} (by more than {least_gain:g} standard "
        "errors of the gain): effects are undefined there."
    ),
    "replacements disagree": "In {model} the replacements disagree about {heads} on {function_class} ({effects}).",
    "few controls": (
        "{heads} of {model} can be compared with {controls}{in_all}: p cannot be smaller than {smallest_p:.3g}."
    ),
    "no controls": "{model} has no layer-matched set to compare {heads} with.",
    "no head found": (
        "{model} has no head with a retrospective score above {threshold}. The report removes the heads above it "
        "together, as one set. Here there is no such set, so heads of this model were removed one at a time only."
    ),
    "few prompts": (
        "Only {n_prompts} prompts per class were used (the default is {default}): intervals are wide and heads near "
        "the threshold may change sides."
    ),
}


@dataclass(frozen=True)
class Caveat:
    """One warning.

    Attributes:
        kind: a key of `RULES`.
        text: one or two sentences.
        models: the checkpoints that it concerns.
    """

    kind: str
    text: str
    models: tuple[str, ...]


Cases = Iterator[tuple[tuple[ModelEvidence, ...], str, dict[str, Any]]]
"""The models that a warning concerns, its key in `SENTENCES`, and what that sentence is filled with."""


def caveats(evidence: Evidence) -> list[Caveat]:
    """All that apply, the gravest first."""
    return [
        Caveat(kind, SENTENCES[sentence].format(**values), tuple(model.name for model in models))
        for kind, rule in RULES.items()
        for models, sentence, values in rule(evidence)
    ]


def failed_checks(evidence: Evidence) -> Cases:
    """A set of heads for which a self-check failed."""
    for model in evidence.models:
        for failure in dict.fromkeys(model.failures):
            yield (model,), "self-check failed", {"failure": failure}


def few_seeds(evidence: Evidence) -> Cases:
    """Fewer than `FEW_SEEDS` independent seeds of a curriculum."""
    for curriculum, models in by_curriculum(evidence.models).items():
        n_seeds = len(independent_seeds([model.checkpoint for model in models]))
        if n_seeds < FEW_SEEDS:
            these_models = "this model" if len(models) == 1 else "these models"
            seeds = counted(n_seeds, "independent seed")
            values = {"seeds": seeds, "curriculum": curriculum, "these_models": these_models}
            yield tuple(models), "few independent seeds", values


def shared_streams(evidence: Evidence) -> Cases:
    """Models that share a seed of initialisation, data or task choice."""
    for indices in independent_seeds([model.checkpoint for model in evidence.models]):
        if len(indices) > 1:
            models = tuple(evidence.models[index] for index in indices)
            yield models, "shared streams", {"n_models": len(models)}


def unknown_origins(evidence: Evidence) -> Cases:
    """Runs with unknown seeds among several."""
    if note := unknown_seeds_note([model.checkpoint for model in evidence.models]):
        names = unknown_seeds([model.checkpoint for model in evidence.models])
        yield tuple(model for model in evidence.models if model.name in names), "unknown seeds", {"note": note}


def unconverged(evidence: Evidence) -> Cases:
    """A model whose error on a class of its training exceeds `FRACTION` of the no-context optimum."""
    for model in evidence.models:
        for name in model.trained:
            row = first_row(model, name)
            ratio = row["nmse_before"] / row["nmse_no_context"]
            if ratio > FRACTION:
                yield (model,), "unconverged", {"model": model.name, "function_class": name, "ratio": ratio}


def undefined_effects(evidence: Evidence) -> Cases:
    """A class on which the intact model has no clear in-context gain, so that effects are undefined."""
    for model in evidence.models:
        names = [name for name in model.classes if size_of(first_row(model, name)) == "undefined"]
        if names:
            values = {"model": model.name, "classes": ", ".join(names), "least_gain": LEAST_GAIN}
            yield (model,), "effect undefined", values


def modes_disagree(evidence: Evidence) -> Cases:
    """Modes that put the effect of the found set in different size classes (`size_of`)."""
    for model in evidence.models:
        for name, rows in rows_of_found_set(model).items():
            if len({size_of(row) for row in rows}) > 1:
                effects = ", ".join(f"{row['mode']} {row['effect']:.2f}" for row in rows)
                heads = show(model.chosen_heads)
                values = {"model": model.name, "heads": heads, "function_class": name, "effects": effects}
                yield (model,), "replacements disagree", values


def few_controls(evidence: Evidence) -> Cases:
    """So few layer-matched sets that no p-value could be significant."""
    for model in evidence.models:
        if model.ablation is None:
            continue
        row = model.ablation.table.iloc[0]
        n_controls, smallest_p = int(row["n_controls"]), float(row["smallest_p"])
        values: Mapping[str, Any] = {"model": model.name, "heads": show(model.chosen_heads)}
        if not n_controls:
            yield (model,), "no controls", dict(values)
        elif smallest_p > SIGNIFICANT:
            in_all = " in all" if row["exact"] else ""
            controls = counted(n_controls, "layer-matched set")
            yield (model,), "few controls", {**values, "controls": controls, "in_all": in_all, "smallest_p": smallest_p}


def nothing_found(evidence: Evidence) -> Cases:
    """A model without a head above the threshold."""
    for model in evidence.models:
        if not model.chosen_heads:
            yield (model,), "no head found", {"model": model.name, "threshold": ATTENDS}


def few_prompts(evidence: Evidence) -> Cases:
    """Fewer prompts than the default."""
    n_prompts = evidence.settings.n_prompts
    if n_prompts < DEFAULT_PROMPTS:
        yield evidence.models, "few prompts", {"n_prompts": n_prompts, "default": DEFAULT_PROMPTS}


RULES: dict[str, Callable[[Evidence], Cases]] = {
    "self-check failed": failed_checks,
    "few independent seeds": few_seeds,
    "shared streams": shared_streams,
    "unknown seeds": unknown_origins,
    "unconverged": unconverged,
    "effect undefined": undefined_effects,
    "replacements disagree": modes_disagree,
    "few controls": few_controls,
    "no head found": nothing_found,
    "few prompts": few_prompts,
}


def first_row(model: ModelEvidence, function_class: str) -> dict[str, Any]:
    """Any row of a class among those of single heads: the errors of the intact model are in each."""
    return records(where(model.singles.table, function_class=function_class))[0]


def rows_of_found_set(model: ModelEvidence) -> dict[str, list[dict[str, Any]]]:
    """By class, the found set's row for every mode; nothing if nothing was found."""
    if model.ablation is None:
        return {}
    rows = where(model.ablation.table, heads=show(model.chosen_heads))
    return {name: records(where(rows, function_class=name)) for name in model.classes}

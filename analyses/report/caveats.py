"""What a reader must know before believing the report: every warning that applies, by rule."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from analyses.report.evidence import Evidence, ModelEvidence
from interp.ablation.size_classes import ATTENDS, size_of
from interp.display.text import counted
from interp.model.heads import show
from interp.statistics.effects import LEAST_GAIN, SIGNIFICANT
from interp.statistics.seeds import independent_seeds
from training.common.output import records
from training.common.table_rows import where
from training.evaluation.convergence import FRACTION
from training.options import DEFAULT_PROMPTS

FEW_SEEDS = 3


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


def caveats(evidence: Evidence) -> list[Caveat]:
    """All that apply, the gravest first."""
    return [Caveat(kind, text, models) for kind, rule in RULES.items() for text, models in rule(evidence)]


Found = Iterator[tuple[str, tuple[str, ...]]]


def few_seeds(evidence: Evidence) -> Found:
    """Fewer than `FEW_SEEDS` independent seeds of a curriculum."""
    by_curriculum: dict[str, list[ModelEvidence]] = {}
    for model in evidence.models:
        by_curriculum.setdefault(model.curriculum, []).append(model)
    for curriculum, models in by_curriculum.items():
        n_seeds = len(independent_seeds([one.checkpoint for one in models]))
        if n_seeds < FEW_SEEDS:
            text = f"{counted(n_seeds, 'independent seed')} of the curriculum {curriculum}: what holds here holds for "
            text += f"{'this model' if len(models) == 1 else 'these models'}, not yet for the curriculum."
            yield text, names_of(models)


def shared_streams(evidence: Evidence) -> Found:
    """Models that share a seed of initialisation, data or task choice."""
    for places in independent_seeds([one.checkpoint for one in evidence.models]):
        if len(places) > 1:
            models = [evidence.models[place] for place in places]
            text = f"{len(models)} models share a stream of random numbers (initialisation, data or task choice), so "
            yield text + "they count as one seed: their agreement is no evidence.", names_of(models)


def unconverged(evidence: Evidence) -> Found:
    """A model whose error on a class of its training exceeds `FRACTION` of the no-context optimum."""
    for model in evidence.models:
        for name in model.trained:
            row = first_row(model, name)
            ratio = row["nmse_before"] / row["nmse_no_context"]
            if ratio > FRACTION:
                text = f"{model.name} has not learned {name}: with all its heads its error is {ratio:.2f} of the "
                yield text + "no-context optimum, and effects are shares of the small gain that is left.", (model.name,)


def undefined_effects(evidence: Evidence) -> Found:
    """A class on which the intact model has no clear in-context gain, so that effects are undefined."""
    for model in evidence.models:
        names = [name for name in model.classes if size_of(first_row(model, name)) == "undefined"]
        if names:
            text = (
                f"{model.name} is not clearly better than the no-context optimum on {', '.join(names)} (by more than "
            )
            text += f"{LEAST_GAIN:g} standard errors of the gain): effects are undefined there."
            yield text, (model.name,)


def modes_disagree(evidence: Evidence) -> Found:
    """Replacements that put the effect of the found set in different size classes (`size_of`)."""
    for model in evidence.models:
        for name, rows in rows_of_found(model).items():
            sizes = {size_of(row) for row in rows}
            if len(sizes) > 1:
                effects = ", ".join(f"{row['mode']} {row['effect']:.2f}" for row in rows)
                text = f"In {model.name} the replacements disagree about {show(model.found)} on {name} ({effects})."
                yield text, (model.name,)


def few_controls(evidence: Evidence) -> Found:
    """So few layer-matched sets that no p-value could be significant."""
    for model in evidence.models:
        if model.ablation is not None:
            row = model.ablation.table.iloc[0]
            n, smallest = int(row["n_controls"]), float(row["smallest_p"])
            if n == 0:
                yield f"{model.name} has no layer-matched set to compare {show(model.found)} with.", (model.name,)
            elif smallest > SIGNIFICANT:
                text = f"{show(model.found)} of {model.name} can be compared with {counted(n, 'layer-matched set')}"
                yield (
                    f"{text}{' in all' if row['exact'] else ''}: p cannot be smaller than {smallest:.3g}.",
                    (model.name,),
                )


def nothing_found(evidence: Evidence) -> Found:
    """A model without a head above the threshold."""
    for model in evidence.models:
        if not model.found:
            text = f"{model.name} has no head with a retrospective score above {ATTENDS}: nothing was removed as a set."
            yield text, (model.name,)


def few_prompts(evidence: Evidence) -> Found:
    """Fewer prompts than the default."""
    if evidence.settings.n_prompts < DEFAULT_PROMPTS:
        text = f"Only {evidence.settings.n_prompts} prompts per class were used (the default is {DEFAULT_PROMPTS}): "
        yield text + "intervals are wide and heads near the threshold may change sides.", names_of(evidence.models)


def left_out(evidence: Evidence) -> Found:
    """A set of heads for which a self-check failed."""
    for model in evidence.models:
        for failure in dict.fromkeys(model.failures):
            yield f"{failure}.", (model.name,)


RULES: dict[str, Callable[[Evidence], Found]] = {
    "self-check failed": left_out,
    "few independent seeds": few_seeds,
    "shared streams": shared_streams,
    "unconverged": unconverged,
    "effect undefined": undefined_effects,
    "replacements disagree": modes_disagree,
    "few controls": few_controls,
    "no head found": nothing_found,
    "few prompts": few_prompts,
}


def first_row(model: ModelEvidence, name: str) -> dict[str, Any]:
    """Any row of a class among those of single heads: the errors of the intact model are in each."""
    return records(where(model.singles.table, function_class=name))[0]


def rows_of_found(model: ModelEvidence) -> dict[str, list[dict[str, Any]]]:
    """By class, the found set's row for every mode; nothing if nothing was found."""
    if model.ablation is None:
        return {}
    of_set = where(model.ablation.table, heads=show(model.found))
    return {name: records(where(of_set, function_class=name)) for name in model.classes}


def names_of(models: Sequence[ModelEvidence]) -> tuple[str, ...]:
    return tuple(one.name for one in models)

"""The page: what each section shows, put into the template. No number is made here."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import PurePath
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from analyses.report import panels, shown
from analyses.report.caveats import Caveat, caveats
from analyses.report.claims import Claim, claims
from analyses.report.curves import key_to_emergence, key_to_errors
from analyses.report.distributions import key_to_null
from analyses.report.evidence import Evidence, ModelEvidence
from analyses.report.protocol import Protocol
from analyses.report.tables import tables
from interp.ablation.size_classes import ATTENDS
from interp.ablation.verdict import pooled_verdict
from interp.model.heads import highest_head
from training.common.output import records
from training.common.table_rows import where

QUESTION = "Which heads make these models learn in context, and do they really cause it?"
FEW = 3
"""Models of which every detail is open from the start."""


@dataclass(frozen=True)
class Account:
    """What is said of the evidence, by rule.

    Attributes:
        claims: what a colleague would try to break, with verdicts.
        sentences: by checkpoint, or by curriculum for several models together.
        caveats: the warnings that apply.
    """

    claims: list[Claim]
    sentences: dict[str, list[str]]
    caveats: list[Caveat]


def account(evidence: Evidence) -> Account:
    """All that is said."""
    said = {}
    if not evidence.pooled.empty:
        for group in dict.fromkeys(evidence.pooled["curriculum"]):
            title = "all models" if group == "all" else f"curriculum {group}"
            said[title] = [pooled_verdict(where(evidence.pooled, curriculum=group))]
    said |= {model.name: sentences_of(model) for model in evidence.models}
    return Account(claims(evidence), said, caveats(evidence))


def sentences_of(model: ModelEvidence) -> list[str]:
    """What was found in one model and what removing it does."""
    chance = model.retrospective.chance
    if not model.found:
        best = highest_head(model.selection)
        highest = f"the highest is {best} with {model.selection[best]:.2f}, chance {chance:.3f}"
        return [f"No head has a retrospective score above {ATTENDS} ({highest}): there is nothing to remove."]
    located = ", ".join(f"{head} ({model.selection[head]:.2f})" for head in model.found)
    first = f"Heads with a retrospective score above {ATTENDS} (chance {chance:.3f}): {located}."
    if model.ablation is None:
        return [first, "Removing them failed a self-check, so their effect is not known."]
    return [first, *model.ablation.all_sentences()]


def document(evidence: Evidence, said: Account, protocol: Mapping[str, Any]) -> dict[str, Any]:
    """report.json: everything but the longest tables, which are beside it as CSV."""
    whole = tables(evidence)
    short = ("models", "ablation", "pooled", "between_classes", "between_models", "score_against_effect", "emergence")
    models = [
        {
            "checkpoint": one.name,
            "step": one.checkpoint.step,
            "curriculum": one.curriculum,
            "found": [str(head) for head in one.found],
            "selection_scores": one.selection,
            "scores": {kind: scores.values for kind, scores in one.scores.items()},
            "chance": {kind: scores.chance for kind, scores in one.scores.items()},
            "verdict": said.sentences[one.name],
        }
        for one in evidence.models
    ]
    return {
        "question": QUESTION,
        "claims": [vars(one) for one in said.claims],
        "verdict": said.sentences,
        "warnings": [vars(one) for one in said.caveats],
        "protocol": dict(protocol),
        "checkpoints": models,
        **{name: records(whole[name]) if name in whole else [] for name in short},
        "single_heads": records(whole["single_heads"]),
    }


def render(evidence: Evidence, said: Account, protocol: Protocol, data: Sequence[str]) -> str:
    """The whole file.

    Args:
        evidence: what was measured.
        said: about it.
        protocol: how.
        data: the names of the files beside it.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.globals.update(svg=Markup, is_nan=np.isnan)  # figures are made here and escape what they show
    labels = labels_of(evidence.models)
    several, models = len(evidence.models) > 1, evidence.models
    return environment.from_string(asset("template.html.j2")).render(
        question=QUESTION,
        style=Markup(asset("style.css")),
        script=Markup(asset("script.js")),
        account=said,
        kinds={
            kind: [one for one in said.caveats if one.kind == kind]
            for kind in dict.fromkeys(one.kind for one in said.caveats)
        },
        models=models,
        labels=labels,
        several=several,
        few=len(models) <= FEW,
        protocol=protocol,
        data=data,
        panels=panels,
        shown=shown,
        evidence=evidence,
        key={
            "null": key_to_null(),
            "forest": key_to_null(forest=True),
            "errors": key_to_errors(),
            "emergence": key_to_emergence(),
        },
        parts=parts,
        threshold=ATTENDS,
        with_heads=[one for one in models if one.ablation is not None],
        with_history=[one for one in models if not one.emergence.empty],
    )


def parts(paragraph: str) -> list[str]:
    """The sentences of a verdict, one per function class, for a list.

    >>> parts("Removing 0.1 costs 0.9 (p = 0.1). Removing 0.1 costs 1. It attends as one.")
    ['Removing 0.1 costs 0.9 (p = 0.1).', 'Removing 0.1 costs 1.', 'It attends as one.']
    """
    return re.split(r"(?<=[.]) (?=Removing |The intact |It attends |They attend |Over |No model |One seed )", paragraph)


def asset(name: str) -> str:
    return (resources.files("analyses.report") / name).read_text(encoding="utf-8")


def labels_of(models: Sequence[ModelEvidence]) -> dict[str, str]:
    """Short names: the last part of a path if that tells all models apart."""
    last = {model.name: PurePath(model.name.removeprefix("zoo:")).name for model in models}
    return last if len(set(last.values())) == len(models) else {model.name: model.name for model in models}

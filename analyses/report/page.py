"""The page: the figures, tables and sentences of each section, put into the template. Nothing is computed here."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import PurePath
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from analyses.report import figures, page_tables
from analyses.report.caveats import Caveat, caveats
from analyses.report.claims import Claim, claims
from analyses.report.evidence import Evidence, ModelEvidence
from analyses.report.protocol import Protocol
from analyses.report.studies import study_documents
from analyses.report.tables import tables
from interp.ablation.size_classes import ATTENDS
from interp.ablation.verdict import pooled_verdict
from interp.model.heads import highest_head
from training.common.output import records
from training.common.table_rows import distinct, where
from training.common.terminal import printable_line

QUESTION = "Which heads make these models learn in context, and do they really cause it?"
FEW = 3
"""Models of which every detail is open from the start."""
SENTENCES: dict[str, str] = {
    "no head": (
        "No head has a retrospective score above {threshold} (the highest is {best} with {score:.2f}, chance "
        "{chance:.3f}): there is nothing to remove."
    ),
    "chosen heads": "Heads with a retrospective score above {threshold} (chance {chance:.3f}): {heads}.",
    "failed check": "Removing them failed a self-check, so their effect is not known.",
}


@dataclass(frozen=True)
class Account:
    """What follows from the evidence, by rule.

    Attributes:
        claims: those that a colleague would try to break, with verdicts.
        sentences: by checkpoint, or by curriculum for several models together.
        caveats: the warnings that apply.
    """

    claims: list[Claim]
    sentences: dict[str, list[str]]
    caveats: list[Caveat]


def account(evidence: Evidence) -> Account:
    """Claims, sentences and warnings."""
    sentences = {}
    for group in distinct(evidence.pooled, "curriculum"):
        title = "all models" if group == "all" else f"curriculum {group}"
        sentences[title] = [pooled_verdict(where(evidence.pooled, curriculum=group))]
    sentences |= {model.name: sentences_of(model) for model in evidence.models}
    return Account(claims(evidence), sentences, caveats(evidence))


def sentences_of(model: ModelEvidence) -> list[str]:
    """The chosen heads of one model and the effect of removing them."""
    best = highest_head(model.selection)
    heads = ", ".join(f"{head} ({model.selection[head]:.2f})" for head in model.chosen_heads)
    values = {"threshold": ATTENDS, "chance": model.retrospective.chance, "heads": heads}
    values |= {"best": best, "score": model.selection[best]}
    if not model.chosen_heads:
        return [SENTENCES["no head"].format(**values)]
    removal = [SENTENCES["failed check"]] if model.ablation is None else model.ablation.all_sentences()
    return [SENTENCES["chosen heads"].format(**values), *removal]


def document(evidence: Evidence, judged: Account, protocol: Mapping[str, Any]) -> dict[str, Any]:
    """The content of report.json: everything but the longest tables, which are beside it as CSV."""
    data = tables(evidence)
    short = ("models", "ablation", "pooled", "between_classes", "between_models", "score_against_effect", "emergence")
    models = [
        {
            "checkpoint": model.name,
            "step": model.checkpoint.step,
            "curriculum": model.curriculum,
            "found": [str(head) for head in model.chosen_heads],
            "selection_scores": model.selection,
            "scores": {kind: scores.values for kind, scores in model.scores.items()},
            "chance": {kind: scores.chance for kind, scores in model.scores.items()},
            "verdict": judged.sentences[model.name],
        }
        for model in evidence.models
    ]
    return {
        "question": QUESTION,
        "claims": [
            {"statement": claim.statement, "verdict": claim.verdict, "because": claim.evidence}
            for claim in judged.claims
        ],
        "verdict": judged.sentences,
        "warnings": [vars(caveat) for caveat in judged.caveats],
        "protocol": dict(protocol),
        "checkpoints": models,
        **{name: records(data[name]) if name in data else [] for name in short},
        "single_heads": records(data["single_heads"]),
        "studies": study_documents(evidence.studies),
    }


def render(evidence: Evidence, judged: Account, protocol: Protocol, data: Sequence[str]) -> str:
    """The whole file.

    Args:
        evidence: what was measured.
        judged: what follows from it.
        protocol: of the measurement.
        data: the names of the files beside it.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.globals.update(markup=Markup, is_nan=np.isnan)  # figures have escaped their texts
    models = evidence.models
    return environment.from_string(asset("template.html.j2")).render(
        question=QUESTION,
        style=Markup(asset("style.css")),
        script=Markup(asset("script.js")),
        account=judged,
        kinds={
            kind: [caveat for caveat in judged.caveats if caveat.kind == kind]
            for kind in dict.fromkeys(caveat.kind for caveat in judged.caveats)
        },
        models=models,
        labels=labels_of(models),
        several=len(models) > 1,
        few=len(models) <= FEW,
        protocol=protocol,
        data=data,
        figures=figures,
        page_tables=page_tables,
        evidence=evidence,
        split_sentences=split_sentences,
        threshold=ATTENDS,
        with_heads=[model for model in models if model.ablation is not None],
        with_history=[model for model in models if not model.emergence.empty],
    )


def split_sentences(paragraph: str) -> list[str]:
    """The sentences of a verdict, one per function class, for a list.

    >>> split_sentences("Removing 0.1 costs 0.9 (p = 0.1). Removing 0.1 costs 1. It attends as one.")
    ['Removing 0.1 costs 0.9 (p = 0.1).', 'Removing 0.1 costs 1.', 'It attends as one.']
    """
    return re.split(r"(?<=[.]) (?=Removing |The intact |It attends |They attend |Over |No model |One seed )", paragraph)


def asset(name: str) -> str:
    return (resources.files("analyses.report") / name).read_text(encoding="utf-8")


def labels_of(models: Sequence[ModelEvidence]) -> dict[str, str]:
    """Short names: the last part of a path, if no two models share it."""
    short = {model.name: PurePath(model.name.removeprefix("zoo:")).name for model in models}
    labels = short if len(set(short.values())) == len(models) else {name: name for name in short}
    return {name: printable_line(label) for name, label in labels.items()}

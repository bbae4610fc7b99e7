"""What is needed to repeat a report: prompts, seeds, splits, versions, and the exact command line."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analyses.report.emergence import AT_MOST_PROMPTS, AT_MOST_STEPS
from analyses.report.evidence import LEAD, MATCHES, PATH_PROMPTS, Evidence, ModelEvidence
from analyses.report.page_tables import Cell, Table, text_cell
from interp.ablation.control_sets import MATCHES as MEANINGS
from interp.ablation.modes import DEFAULT_MODES
from interp.ablation.size_classes import ATTENDS, HALF, HARMLESS
from interp.statistics.seeds import independent_seeds
from training.checkpoints.checkpoint import environment, weights_hash
from training.common.dates import now
from training.evaluation.convergence import FRACTION
from training.options import DEFAULT_NULL_PROMPTS


@dataclass(frozen=True)
class Protocol:
    """What a colleague needs to repeat the report.

    Attributes:
        command: the command line.
        protocol: text or numbers, by their label.
        checkpoints: one row per model: seeds, step, shape, and the hash of its weights.
    """

    command: str
    protocol: dict[str, str | int]
    checkpoints: Table


def protocol_of(evidence: Evidence, arguments: Sequence[str]) -> Protocol:
    """The protocol of a report made now by this process.

    Args:
        evidence: what was measured.
        arguments: of `interp`.
    """
    settings = evidence.settings
    n_null = min(DEFAULT_NULL_PROMPTS, settings.n_prompts)
    groups = independent_seeds([model.checkpoint for model in evidence.models])
    entries: dict[str, str | int] = {
        "prompts per class": settings.n_prompts,
        "seed": settings.seed,
        "computed": now().strftime("%Y-%m-%d %H:%M UTC"),
        "heads are chosen": f"score above {ATTENDS}, mean over the trained classes, prompts of stream 'selection'",
        "heads are tested": "prompts of stream 'test', shared by every condition; references are of a third stream",
        "replacements": f"{', '.join(DEFAULT_MODES)}; single heads and comparisons by {LEAD}",
        "null sets": f"up to {settings.n_controls} per set and matching "
        f"({'; '.join(MEANINGS[match] for match in MATCHES)}), "
        f"on {n_null} prompts",
        "p-values": "(k+1)/(n+1), the tested set is not among its control sets; Holm over function classes",
        "intervals": "95 %, paired bootstrap over prompts",
        "classes of size": (
            f"most: effect of at least {HALF}; none: interval within {HARMLESS} of 0; negative: interval below 0"
        ),
        "learned": f"error at most {FRACTION} of the no-context optimum, over the last quarter of the pairs",
        "snapshots": f"at most {AT_MOST_STEPS} per run, on {min(AT_MOST_PROMPTS, settings.n_prompts)} prompts",
        "paths": f"on {min(PATH_PROMPTS, settings.n_prompts)} prompts" if settings.paths else "not traced",
        "studies": ", ".join(result.name for result in evidence.studies) or "none",
        "independent seeds": f"{len(groups)} among {len(evidence.models)} checkpoints",
        "versions": ", ".join(f"{name} {version}" for name, version in environment().items()),
    }
    return Protocol(shlex.join(["interp", *arguments]), entries, checkpoints_table(evidence.models))


def checkpoints_table(models: Sequence[ModelEvidence]) -> Table:
    """One row per checkpoint."""
    rows = [
        (
            text_cell(model.name),
            text_cell(model.curriculum),
            Cell(str(model.checkpoint.step), float(model.checkpoint.step)),
            text_cell("{n_layers} x {n_heads}".format(**vars(model.checkpoint.config.model))),
            text_cell(str(model.checkpoint.config.seeds)),
            text_cell(weights_fingerprint(model)),
        )
        for model in models
    ]
    columns = ("checkpoint", "curriculum", "step", "layers x heads", "seeds: init / data / task", "weights, SHA-256")
    return Table("Checkpoints", columns, rows)


def weights_fingerprint(model: ModelEvidence) -> str:
    """The first digits of the hash of its weights file; a dash for a model without files."""
    digest = weights_hash(model.checkpoint.directory, model.checkpoint.step)
    return "–" if digest is None else digest[:16]


def as_json(protocol: Protocol) -> dict[str, Any]:
    """For report.json."""
    rows = [
        dict(zip(protocol.checkpoints.columns, (cell.text for cell in row), strict=True))
        for row in protocol.checkpoints.rows
    ]
    return {"command": protocol.command, **protocol.protocol, "checkpoints": rows}

"""A head without output, and a self-check that fails for one head, cost a row and not the command."""

from copy import deepcopy
from dataclasses import replace

import pytest

from analyses.studies import cause
from interp.model import self_checks as checks
from interp.model.heads import Head
from training.checkpoints.checkpoint import Checkpoint, load
from training.common.errors import CheckError, refuse_failures
from training.common.table_rows import where


@pytest.fixture
def pruned() -> Checkpoint:
    """zoo:linear-0 without the output of head 1.3."""
    checkpoint = load("zoo:linear-0")
    model = deepcopy(checkpoint.model)
    model.layers[1].attn.W_V[3] = 0
    model.layers[1].attn.b_V[3] = 0
    return replace(checkpoint, model=model)


@pytest.mark.slow
def test_cause_keeps_a_pruned_head_and_leaves_a_failing_one_out(pruned, monkeypatch):
    true = checks.plain_edits

    def plain_edits(components, *given):
        return true(tuple(head for head in components if head != Head(2, 5)), *given)

    monkeypatch.setattr(checks, "plain_edits", plain_edits)
    monkeypatch.setattr(checks, "is_changed", lambda _, head, *__: head != Head(1, 3))
    monkeypatch.setattr(cause, "ATTENDS", 2.0)  # no set of several heads
    findings = cause.study([pruned], n_prompts=64)
    heads = findings.tables["heads"]
    (row,) = where(heads, heads="1.3").to_dict("records")
    assert abs(row["effect"]) < 1e-5
    assert row["note"] == "the output of 1.3 does not vary, so mean ablation leaves it unchanged"
    assert "2.5" not in set(heads["heads"])
    assert len(heads) == 23
    with pytest.raises(CheckError, match=r"zoo:linear-0: 2\.5 left out, self-check: mean ablation in the engine"):
        refuse_failures(findings.failures)

"""A head without output, and a self-check that fails for one head, cost a row and not the command."""

from copy import deepcopy
from dataclasses import replace

import pytest

from analyses.report.evidence import Settings
from analyses.report.report import report
from analyses.studies import retrospective
from analyses.studies.cause import measures
from analyses.studies.cause import study as cause
from interp.ablation.ablate import ablate_or_reasons
from interp.ablation.size_classes import ATTENDS
from interp.model import self_checks as checks
from interp.model.heads import Head, all_heads, heads_above, show
from interp.scores.score import selection_scores
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


def refuse(monkeypatch, *refused: Head) -> None:
    """The self-check of a set with any of these heads fails."""
    true = checks.plain_edits

    def plain_edits(components, *given):
        return true(tuple(head for head in components if head not in refused), *given)

    monkeypatch.setattr(checks, "plain_edits", plain_edits)
    monkeypatch.setattr(checks, "changes_output", lambda *_: True)


def test_a_study_goes_on_without_the_set_whose_self_check_fails(monkeypatch):
    checkpoint, heads = load("zoo:linear-0"), (Head(0, 1), Head(0, 2))
    options = {"modes": ["zero"], "n_prompts": 16, "n_controls": 0, "matches": ()}
    result, reasons = ablate_or_reasons(checkpoint, [heads], ["linear"], **options)
    assert result is not None
    assert not reasons
    refuse(monkeypatch, Head(0, 1))
    result, reasons = ablate_or_reasons(checkpoint, [heads, (Head(0, 2),)], ["linear"], **options)
    assert result is None
    assert len(reasons) == 1
    assert reasons[0].startswith("zoo:linear-0: 0.1,0.2 left out, self-check: zero ablation in the engine")
    assert ablate_or_reasons(checkpoint, [heads], ["linear"], **options) == (None, reasons)


def test_a_defect_of_the_engine_still_ends_a_study(monkeypatch):
    """Removing nothing fails, too: no result could be believed."""
    true = checks.predictions_of
    monkeypatch.setattr(checks, "predictions_of", lambda *given: true(*given) + 0.1)
    with pytest.raises(CheckError, match="removing no head changes the predictions"):
        ablate_or_reasons(load("zoo:linear-0"), [(Head(0, 1),)], ["linear"], n_prompts=16, n_controls=0, matches=())


@pytest.mark.slow
def test_retrospective_cause_and_report_go_on_where_the_found_heads_fail(monkeypatch, tmp_path):
    """Everything that does not need the joint removal is there, and the command ends with the reason."""
    checkpoint = load("zoo:linear-0")
    found = heads_above(ATTENDS, selection_scores(checkpoint, 64, 0))
    refuse(monkeypatch, *found)
    reason = f"zoo:linear-0: {show(found)} left out, self-check: "
    result = retrospective.study(checkpoint, n_prompts=64, n_controls=2)
    result.write(tmp_path)
    assert result.ablation is None
    assert result.failures[0].startswith(reason)
    findings = cause.study([checkpoint], n_prompts=64)
    assert findings.failures[0].startswith(reason)
    assert set(findings.files["heads"]["heads"]) == {str(h) for h in all_heads(3, 8) if h not in found}
    page = report([checkpoint], Settings(n_prompts=64, n_controls=2, paths=False))
    page.write(tmp_path / "report.html")
    assert "Removing them failed a self-check, so their effect is not known." in (tmp_path / "report.html").read_text()
    assert page.evidence.models[0].failures[0].startswith(reason)


@pytest.mark.slow
def test_cause_keeps_a_pruned_head_and_leaves_a_failing_one_out(pruned, monkeypatch):
    true = checks.plain_edits

    def plain_edits(components, *given):
        return true(tuple(head for head in components if head != Head(2, 5)), *given)

    monkeypatch.setattr(checks, "plain_edits", plain_edits)
    monkeypatch.setattr(checks, "changes_output", lambda _, head, *__: head != Head(1, 3))
    monkeypatch.setattr(measures, "ATTENDS", 2.0)  # no set of several heads
    findings = cause.study([pruned], n_prompts=64)
    heads = findings.files["heads"]
    (row,) = where(heads, heads="1.3", function_class="linear").to_dict("records")
    assert abs(row["effect"]) < 1e-5
    assert row["note"] == "the output of 1.3 does not vary, so mean ablation leaves it unchanged"
    assert "2.5" not in set(heads["heads"])
    assert set(heads.groupby("function_class").size()) == {23}
    with pytest.raises(CheckError, match=r"zoo:linear-0: 2\.5 left out, self-check: mean ablation in the engine"):
        refuse_failures(findings.failures)

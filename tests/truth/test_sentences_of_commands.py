"""What patching maps, circuits, studies and reports say of disguised circuits (`disguised`), held against the truth."""

import pytest
from disguised import SHIFT, disguised

from analyses.report.evidence import Settings, measure
from analyses.report.page import sentences_of
from analyses.studies.cause import study as cause
from interp.attribution.circuits import circuits
from interp.model.heads import head_set, show
from interp.patching.maps import patch
from training.common.output import records

PROMPTS = 64
OTHER_PROMPT = {"corrupt": "prompt", "direction": "noise", "n_prompts": PROMPTS}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["suppressor", "null space"])
def test_the_reader_carries_the_whole_answer(kind, tmp_path):
    """The reader writes the average that the answer is made of; a decoy cannot be named beside it."""
    model = disguised(kind, 5, tmp_path)
    text, caveat = patch(model.checkpoint, ["linear"], n_prompts=PROMPTS).sentences()
    assert caveat.startswith("Both runs have the same x")
    assert text.startswith(
        f"On linear (corrupt: function) patching z of {model.heads['reader']} restores 1.00 [1.00, 1.00]"
    )
    decoy = model.heads.get("decoy")
    assert decoy is None or f"z of {decoy}" not in text


def test_a_patched_suppressor_moves_the_prediction_the_other_way(tmp_path):
    """c_i = x_i - 0.6 s_i over a gap of 0.4 p: with s_i of another prompt, -0.6 / 0.4 times one half."""
    model = disguised("suppressor", 6, tmp_path)
    found = patch(model.checkpoint, ["linear"], heads=[(model.heads["suppressor"],)], **OTHER_PROMPT)
    (row,) = records(found.table)
    assert row["effect"] == pytest.approx(-0.75, abs=0.25)
    (text,) = found.sentences()
    assert f"z of {model.heads['suppressor']} moves the prediction the other way, by {-row['effect']:.2f}" in text


def test_a_patched_decoy_has_no_effect(tmp_path):
    model = disguised("null space", 6, tmp_path)
    found = patch(model.checkpoint, ["linear"], heads=[(model.heads["decoy"],)], **OTHER_PROMPT)
    assert found.sentences() == [
        "On linear (corrupt: prompt) no patch is shown to have an effect of 0.01 or more (1 location patched)."
    ]


@pytest.mark.slow
def test_a_patched_mover_changes_predictions_although_its_removal_changes_no_error(tmp_path):
    """With x of another prompt what it adds turns round in every second prompt or so, by 2 `SHIFT`."""
    model = disguised("moved", 6, tmp_path)
    found = patch(model.checkpoint, ["linear"], heads=[(model.heads["mover"],)], **OTHER_PROMPT)
    (row,) = records(found.table)
    assert row["distance_to_clean"] == pytest.approx(0.45 * (2 * SHIFT) ** 2, abs=0.15)
    assert f"z of {model.heads['mover']}" in " ".join(found.sentences())


@pytest.mark.slow
def test_the_study_counts_a_copy_of_one_class_on_that_class(tmp_path):
    """Of two heads that attend one matters on each class, and so does the reader, which does not attend."""
    model = disguised("class only", 5, tmp_path)
    found = cause.study([model.checkpoint], n_prompts=64)
    for row in records(found.files["guide"]):
        assert (row["n_attend"], row["n_matter"], row["n_both"], row["precision"]) == (2, 2, 1, 0.5), row
    assert "either one of these heads can replace another" not in " ".join(found.sentences())


@pytest.mark.slow
def test_halves_of_an_answer_are_not_said_to_replace_each_other(tmp_path):
    """Together they cost more than the sum of each alone because errors are squared."""
    model = disguised("two halves", 5, tmp_path)
    text = " ".join(cause.study([model.checkpoint], n_prompts=512).sentences())
    assert "in 1 of 1 case, most in" in text
    assert "either one of these heads can replace another, or their contributions add up (errors are squared)" in text


@pytest.mark.slow
def test_the_circuit_of_a_suppressor_is_the_one_that_was_written(tmp_path):
    """Its activations are large: float32 is off by more than the tolerance, float64 is not."""
    model = disguised("suppressor", 22, tmp_path)
    found = circuits(model.checkpoint, ["linear"], n_prompts=32, n_random=10, method="eap", sizes=(5, 10, 20))
    assert found.sentences()[0].startswith("On linear (corrupt: prompt) 8 of 198 edges carry 1.00 [1.00, 1.00]")
    copy, suppressor, reader = (str(model.heads[role]) for role in ("copy 0", "suppressor", "reader"))
    paths = {("embed", "0.mlp"), ("0.mlp", f"{reader}.v"), (reader, "1.mlp"), ("1.mlp", "out")}
    for head in (copy, suppressor):
        paths |= {("embed", f"{head}.v"), (head, "0.mlp")}
    assert {(row["sender"], row["receiver"]) for row in records(found.edges) if row["chosen"]} == paths


@pytest.mark.slow
def test_the_report_and_the_study_of_alternatives_call_no_head_a_decoy(tmp_path):
    """Alone neither copy costs anything, together they cost everything."""
    model = disguised("two alternatives", 5, tmp_path)
    copies = head_set(model.heads[role] for role in ("copy 0", "copy 1"))
    evidence = measure(model.checkpoint, Settings(n_prompts=128, n_controls=5, paths=False))
    located, together, *alone = sentences_of(evidence)
    assert all(str(head) in located for head in copies)
    assert together.startswith(f"Removing {show(copies)} costs 1.")
    assert all("a decoy" not in text.replace("It is not a decoy:", "") for text in alone)
    assert all("It is not a decoy: " in text for text in alone)
    text = " ".join(cause.study([model.checkpoint], n_prompts=128).sentences())
    assert "either one of these heads can replace another, or their contributions add up (errors are squared)" in text

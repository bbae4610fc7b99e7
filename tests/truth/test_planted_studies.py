"""Studies of models whose circuits are known."""

import circuits
import matplotlib.pyplot as plt
import pytest

from analyses.studies.cause import study as cause
from analyses.studies.cause.measures import MATTERS
from analyses.studies.trace import study as trace
from interp.ablation.ablate import ablate
from interp.model.heads import Head
from training.checkpoints.checkpoint import load
from training.common.output import records
from training.common.table_rows import where


@pytest.fixture(scope="module")
def of_planted(planted):
    return cause.study([planted], n_prompts=256, seed=0)


@pytest.mark.slow
def test_cause_finds_the_head_that_copies_and_the_decoy(of_planted):
    """Heads 0.1 and 0.3 attend alike; all of the gain goes with 0.1 (and with its reader 1.2), nothing with 0.3."""
    row, most = records(of_planted.files["guide"])
    heads = {head["heads"]: head for head in records(of_planted.files["heads"])}
    assert {name for name, head in heads.items() if head["score"] > 0.5} == {"0.1", "0.3"}
    assert {name for name, head in heads.items() if head["effect"] > MATTERS} == {"0.1", "1.2"}
    assert heads["0.1"]["effect"] == pytest.approx(1, abs=0.05)
    assert heads["0.3"]["effect"] == pytest.approx(0, abs=1e-4)
    assert (row["level"], most["level"]) == (0.1, 0.5)
    assert (row["n_attend"], row["n_matter"], row["n_both"], row["precision"], row["recall"]) == (2, 2, 1, 0.5, 0.5)


@pytest.mark.slow
def test_cause_says_what_the_heads_do_together_and_alone(of_planted):
    removed = where(of_planted.files["pooled"], mode="mean")
    kept = where(of_planted.files["kept"], mode="mean")
    assert [row["effect"] for row in records(removed)] == pytest.approx([1], abs=0.05)
    assert [row["effect"] for row in records(kept)] == pytest.approx([1], abs=0.05)  # without the reader
    text = " ".join(of_planted.sentences())
    assert "Heads with a score above 0.5 are in 1 of 1 model: planted 0.1,0.3." in text
    assert "One seed is one piece of evidence" in text
    assert "Of the heads that score above 0.5, 1 of 2 cost more than 0.1 and 1 of 2 cost more than 0.5 of the" in text


@pytest.mark.slow
def test_cause_sees_heads_that_stand_in_for_one_another(redundant):
    """Either of two copying heads is enough: alone they cost nothing, together everything."""
    found = cause.study([redundant], n_prompts=128)
    (row,) = records(found.files["together"])
    assert row["sum_alone"] == pytest.approx(0, abs=0.05)
    assert row["effect"] == pytest.approx(circuits.redundant_effect(2, "mean", 128), abs=0.15)
    assert "in 1 of 1 case, most in redundant on linear (1." in " ".join(found.sentences())


@pytest.mark.slow
def test_cause_of_a_model_without_such_heads_says_so():
    found = cause.study([load("zoo:quadratic-0")], n_prompts=64)
    assert found.sentences()[0] == "Heads with a score above 0.5 are in 0 of 1 model. None in zoo:quadratic-0."
    assert not len(found.files["pooled"])
    for draw in found.figures.values():
        draw()
    plt.close("all")


@pytest.mark.slow
def test_cause_pools_over_seeds_and_agrees_with_ablate():
    """Two models of one seed each, head 0.1 in both: the pooled effect is the mean of what `ablate` says of each."""
    models = [load("zoo:mixed-0"), load("zoo:linear-0")]
    found = cause.study(models, n_prompts=64)
    pooled = where(found.files["pooled"], curriculum="all", mode="mean", function_class="linear")
    tables = [ablate(one, [(Head(0, 1),)], ["linear"], modes=["mean"], n_controls=0, n_prompts=64) for one in models]
    effects = [records(one.table)[0]["effect"] for one in tables]
    assert records(pooled)[0]["effect"] == pytest.approx(sum(effects) / 2, rel=1e-9)
    assert records(pooled)[0]["n_seeds"] == 2


@pytest.mark.slow
def test_trace_finds_what_the_planted_head_carries_and_who_reads_it(planted):
    """Head 0.1 copies x_i beside y_i and the first MLP multiplies them; the decoy writes nothing that is read."""
    found = trace.study([planted], n_prompts=128, seed=0)
    shares = {(row["sender"], row["reader"]): row["share"] for row in records(found.files["readers"])}
    assert shares["0.1", "own mlp"] == pytest.approx(1, abs=0.05)
    for reader in ("later mlps", "queries", "keys", "values", "out"):
        assert shares["0.1", reader] == pytest.approx(0, abs=0.05)
    written = {row["heads"]: row["value"] for row in records(found.files["written"])}
    assert written["0.1"] > 0.9
    assert written["0.3"] < 0.05
    assert "the strongest reader is the MLP of the head's layer in 1 of 1 model; the share of the" in " ".join(
        found.sentences()
    )

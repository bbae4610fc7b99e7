"""Readouts of the planted circuit: where the answer is, what is decodable, what of it is used, and what heads write."""

from typing import Any

import numpy as np
import pytest

from interp.readouts.head_decoding import decode_heads
from interp.readouts.lens import lens
from interp.readouts.probes import probe
from interp.readouts.subspace_patching import swap
from interp.readouts.tables import select_rows
from interp.readouts.verdict import heads_verdict, lens_verdict, swap_verdict
from training.common.table_rows import where

FEW: dict[str, Any] = {"n_prompts": 128, "n_fit": 512}
EXAMPLES = np.arange(16)


@pytest.fixture(scope="module")
def of_lens(planted):
    return lens(planted, n_prompts=512)


def test_the_plain_lens_reads_nothing_before_the_last_mlp_and_the_answer_after_it(of_lens):
    plain = where(of_lens.table, kind="plain")
    for stage in ("embed", "0.mid", "0.post", "1.mid"):
        assert where(plain, stage=stage, reference="no_context")["distance"].to_numpy().max() < 1e-4
    last = where(plain, stage="1.post", reference="target")["distance"].to_numpy()
    np.testing.assert_allclose(last[4:], 2 / EXAMPLES[4:], rtol=0.4)  # the error of x_q mean(x_i y_i)


def test_no_affine_map_finds_the_answer_where_only_its_factors_are(of_lens):
    """After attention of layer 1 the stream holds S and x_q, and the answer is their product."""
    tuned = {row["stage"]: row["gain"] for row in select_rows(of_lens.depth, kind="tuned", reference="target")}
    assert tuned["1.mid"] == pytest.approx(0, abs=0.1)
    assert tuned["1.post"] == pytest.approx(1, abs=0.01)
    assert (
        "first reaches half of the model's gain over the no-context optimum at 1.post (1.00 of it"
        in lens_verdict(of_lens)[0]
    )


def test_probes_find_what_was_put_there(planted):
    table = probe(planted, targets=["w", "xty", "x"], examples=[12], **FEW).table

    def value(target, token, stage):
        return where(table, target=target, token=token, stage=stage)["value"].iloc[0]

    assert value("x", "y", "embed") == pytest.approx(0, abs=0.02)  # y has the sign of w x, and w is ±1
    assert value("x", "y", "0.mid") == pytest.approx(1, abs=1e-3)
    assert value("xty", "x", "0.post") == pytest.approx(0, abs=0.02)
    assert value("xty", "x", "1.mid") == pytest.approx(1, abs=0.01)  # S is X'y / k
    assert value("w", "x", "1.mid") > 0.6  # S is w mean(x²)
    assert value("w", "y", "0.mid") == pytest.approx(0, abs=0.02)  # y_i and x_i, not yet their product
    assert value("w", "y", "0.post") == pytest.approx(1 / 3, abs=0.12)  # E[x²]² / E[x⁴]
    assert np.abs(where(table, target="w")["shuffled"].to_numpy()).max() < 0.05


@pytest.mark.slow
def test_what_is_decodable_and_not_read_is_called_unused(planted):
    """After layer 0 a y token holds x_i and w x_i². The reader takes the product, which holds w; nobody takes x_i."""
    result = swap(planted, targets=["w", "x"], examples=12, **FEW, n_controls=99)
    rows = where(result.table, token="y", stage="0.post")
    for subspace in ("weights", "pattern"):
        used, unused = (where(rows, target=target, subspace=subspace).iloc[0] for target in ("w", "x"))
        assert used["rank"] == unused["rank"] == 1
        assert used["effect"] == pytest.approx(1, abs=0.05)
        assert used["p_value"] == 1 / 100
        assert unused["effect"] == pytest.approx(0, abs=0.02)
    assert where(rows, target="x")["full"].iloc[0] == pytest.approx(1, abs=0.01)
    (sentence,) = swap_verdict(result)
    assert "w is used" in sentence
    assert "x is not distinguished from random subspaces" in sentence


@pytest.mark.slow
def test_the_only_mechanism_is_called_used_and_its_controls_lie_outside_it(planted):
    """At the query the reader's input is X'y / k alone: subspaces drawn as the stream varies contain it."""
    result = swap(planted, targets=["xty"], examples=12, **FEW, n_controls=39)
    chosen = result.table.query("subspace == 'pattern'").dropna(subset=["p_chosen"]).iloc[0]
    assert chosen["effect"] == pytest.approx(1, abs=0.05)
    assert chosen["p_chosen"] == 1 / 40
    assert chosen["matched"] < 0.5
    (sentence,) = swap_verdict(result)
    assert "xty is used" in sentence


def test_the_copying_head_writes_x_and_the_decoy_writes_nothing(planted):
    result = decode_heads(planted, n_prompts=64, n_fit=128)
    heads = {(row["layer"], row["head"]): row for row in select_rows(result.table)}
    copy, decoy = heads.pop((0, 1)), heads[0, 3]
    assert (copy["value"], copy["score"]) == pytest.approx((1, 1), abs=1e-3)
    assert (decoy["value"], decoy["score"]) == pytest.approx((0, 1), abs=1e-3)
    assert max(row["value"] for row in heads.values()) < 0.05
    assert abs(copy["shuffled"]) < 0.05
    assert "heads 0.1 and 0.3 have the highest retrospective score (1.00)" in heads_verdict(result)[0]

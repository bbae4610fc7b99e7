"""What probes, lenses and swaps say of disguised circuits (`disguised`): what is decoded where, and what is used."""

import re
from typing import Any

import pytest
from disguised import Disguised, disguised

from interp.readouts.head_decoding import decode_heads
from interp.readouts.lens import lens
from interp.readouts.probes import Probes, probe
from interp.readouts.subspace_patching import swap
from training.common.output import records

FEW: dict[str, Any] = {"n_prompts": 64, "n_fit": 256}


def value_by_stage(result: Probes) -> dict[str, float]:
    """R², or accuracy, of the only target."""
    rows = result.table
    return dict(zip(rows["stage"], rows["value"], strict=True))


def decode(model: Disguised, target: str, token: str) -> Probes:
    return probe(model.checkpoint, targets=[target], tokens=[token], examples=[12], **FEW)


def swapped(model: Disguised, target: str, token: str) -> tuple[str, float, str]:
    """What the sentence of a swap says of a target: its judgement, its effect, and where."""
    result = swap(model.checkpoint, ["linear"], targets=[target], tokens=[token], examples=12, n_controls=19, **FEW)
    (text,) = result.sentences()
    parts = re.fullmatch(
        rf"Swapped on linear: the subspace of {target} (.*?) \((-?[\d.]+) \[.*?\] of the way at (\S+), .*\)\.", text
    )
    assert parts, text
    return parts[1], float(parts[2]), parts[3]


LAST = {"product alone": "2.post", "suppressor": "1.post"}
LAST_SLOW = {
    "two alternatives": "2.post",
    "gated copy": "3.post",
    "null space": "1.post",
    "rescaled": "2.post",
    "early only": "3.post",
}


@pytest.mark.parametrize(
    ("kind", "stage"),
    [*LAST.items(), *(pytest.param(*item, marks=pytest.mark.slow) for item in LAST_SLOW.items())],
)
def test_the_answer_appears_where_the_last_factor_is_multiplied(kind, stage, tmp_path):
    """Before it the stream holds two factors, and no affine map makes their product."""
    (text,) = lens(disguised(kind, 7, tmp_path).checkpoint, n_prompts=256).sentences()
    half = "On linear the tuned lens first reaches half of the model's gain over the no-context optimum at"
    assert text.startswith(f"{half} {stage} (1.00 of it"), text
    assert f"and 0.9 of it at {stage};" in text


@pytest.mark.slow
def test_the_product_is_decoded_after_the_reader_and_used_there(tmp_path):
    """Of its pairs the query has X'y / k from layer 1 on and nothing before; layer 2 multiplies it by x_q."""
    model = disguised("product alone", 7, tmp_path)
    result = decode(model, "xty", "x")
    values = value_by_stage(result)
    assert values["0.post"] == pytest.approx(0, abs=0.05)
    assert values["1.mid"] == pytest.approx(1, abs=0.01)
    (text,) = result.sentences()
    assert re.search(r"xty exceeds its controls most at (1.mid|1.post|2.mid|2.post), x tokens", text), text
    assert swapped(model, "xty", "x") == ("is used", pytest.approx(1, abs=0.05), "1.post")


@pytest.mark.slow
def test_the_sign_that_copies_stand_in_for_is_decoded_and_used(tmp_path):
    model = disguised("two alternatives", 7, tmp_path)
    values = value_by_stage(decode(model, "w", "x"))
    assert values["0.post"] == pytest.approx(0, abs=0.05)
    assert values["1.post"] == pytest.approx(1, abs=0.02)
    assert swapped(model, "w", "x") == ("is used", pytest.approx(1, abs=0.3), "1.post")


@pytest.mark.slow
def test_what_a_decoy_writes_is_decoded_and_not_used(tmp_path):
    """After layer 0 the y tokens hold x_i twice, where the copy and where the decoy wrote it; nobody reads either."""
    model = disguised("null space", 7, tmp_path)
    values = value_by_stage(decode(model, "x", "y"))
    assert values["embed"] == pytest.approx(0, abs=0.05)
    assert [values["0.mid"], values["0.post"]] == pytest.approx([1, 1], abs=0.01)
    judgement, effect, _ = swapped(model, "x", "y")
    assert judgement != "is used"
    assert effect == pytest.approx(0, abs=0.02)


@pytest.mark.slow
def test_a_decoy_writes_x_as_the_copy_does(tmp_path):
    model = disguised("null space", 7, tmp_path)
    result = decode_heads(model.checkpoint, n_prompts=64, n_fit=128)
    heads = {f"{row['layer']}.{row['head']}": row for row in records(result.table)}
    alike = sorted(str(model.heads[role]) for role in ("copy 0", "decoy"))
    for name in alike:
        assert (heads[name]["value"], heads[name]["score"]) == pytest.approx((1, 1), abs=0.01)
    (text,) = result.sentences()
    assert text.startswith(f"On linear heads {' and '.join(alike)} have the highest retrospective score (1.00)")
    assert "the highest R² is" not in text


@pytest.mark.slow
def test_the_class_is_decoded_and_used_once_it_is_averaged(tmp_path):
    """|y| = 1 is no linear reading of y; its mean over the pairs is written by the reader and switches layer 2."""
    model = disguised("class only", 7, tmp_path)
    values = value_by_stage(decode(model, "class", "x"))
    assert values["0.post"] == pytest.approx(0.5, abs=0.1)
    assert values["1.post"] == pytest.approx(1, abs=0.01)
    result = swap(model.checkpoint, targets=["class"], tokens=["x"], examples=12, n_controls=39, **FEW)
    for text in result.sentences():
        assert "class is used (" in text, text
        assert "of the way at 1.post, x tokens, chosen on other prompts" in text

"""The planted models of the zoo: they are what their builders write, and what their truth says holds."""

import pytest
import ship
import torch
from circuits import self_repairing_effect

import interp
from interp.ablation.reference_activations import REFERENCE_PROMPTS
from training.checkpoints.checkpoint import zoo_names, zoo_path, zoo_truth
from training.common.output import records

FEW = {"modes": "mean", "n_controls": 0, "n_prompts": 512}


def effects(model, *sets, column="effect"):
    rows = records(interp.ablate(f"zoo:{model}", list(sets), "linear", **FEW).table)
    return [row[column] for row in rows]


def roles(name, tmp_path):
    return {role: str(head) for role, head in ship.PLANTED[name].make(tmp_path).heads.items()}


@pytest.mark.parametrize("name", ship.PLANTED)
def test_a_shipped_model_is_what_its_builder_writes(name, tmp_path):
    ship.write(name, tmp_path)
    assert zoo_truth(name) == (tmp_path / name / "truth.txt").read_text().strip()
    ours, theirs = (interp.load(path).model.state_dict() for path in (tmp_path / name, zoo_path(name)))
    for key, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[key], rtol=1e-4, atol=1e-4 * float(tensor.abs().max()))


def test_only_planted_models_have_a_truth():
    assert {name for name in zoo_names() if zoo_truth(name)} == {*ship.PLANTED}


def test_a_single_head_is_all_of_it(tmp_path):
    heads = roles("planted_single", tmp_path)
    costs = dict(
        zip([f"{layer}.{n}" for layer in range(3) for n in range(6)], effects("planted_single", "each"), strict=True)
    )
    needed = {heads["copy 0"], heads["reader"]}
    assert {name for name, effect in costs.items() if effect > 0.9} == needed
    assert max(abs(effect) for name, effect in costs.items() if name not in needed) < 0.01


def test_either_of_two_copies_is_enough(tmp_path):
    heads = roles("planted_redundant", tmp_path)
    first, second = heads["copy 0"], heads["copy 1"]
    alone, other, both = effects("planted_redundant", first, second, f"{first},{second}")
    assert (alone, other) == pytest.approx((0, 0), abs=0.01)
    assert both > 0.9


def test_a_decoy_costs_nothing_alone_or_with_another(tmp_path):
    heads = roles("planted_decoy", tmp_path)
    decoy, copy = heads["decoy"], heads["copy 0"]
    alone, without, both = effects("planted_decoy", decoy, copy, f"{copy},{decoy}")
    assert alone == pytest.approx(0, abs=0.01)
    assert without == pytest.approx(both, abs=0.01)
    scores = interp.score("zoo:planted_decoy", n_prompts=64).values["linear"]
    layer, number = map(int, decoy.split("."))
    assert scores[layer, number] > 0.9


def test_self_repair_hides_a_direct_effect(tmp_path):
    writer = roles("planted_self_repair", tmp_path)["writer"]
    wanted = [self_repairing_effect(name, "mean", REFERENCE_PROMPTS) for name in ("writer", "writer_direct")]
    (total,), (direct,) = (effects("planted_self_repair", writer, column=kind) for kind in ("effect", "direct_effect"))
    assert (total, direct) == pytest.approx(tuple(wanted), rel=0.1)


def test_copy_then_read_needs_both_and_not_the_decoy(tmp_path):
    heads = roles("planted_copy_then_read", tmp_path)
    copy, reader, decoy = effects("planted_copy_then_read", heads["copy"], heads["reader"], heads["decoy"])
    assert min(copy, reader) > 0.9
    assert decoy == pytest.approx(0, abs=0.01)

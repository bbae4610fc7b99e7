"""Every design, through the public interface, on models whose answer is known: circuits.py."""

from typing import Any

import pytest
from circuits import COPIES, ERASER, N_HEADS, WRITER, redundant_effect, self_repairing_effect

from interp.ablation.ablate import ablate
from interp.ablation.cumulative import cumulative
from interp.ablation.pairs import pairs
from interp.ablation.verdict import verdict
from interp.model.heads import Head, all_heads, head_set, parse_heads, show

REAL, DECOY = Head(0, 1), Head(0, 3)  # of the single circuit: its copy, and what only attends
READER, BYSTANDER = Head(1, 2), Head(0, 0)  # averages what the copies made; has W_O = 0
N_PROMPTS = 512
QUICK: dict[str, Any] = {"modes": ["zero"], "n_prompts": N_PROMPTS}
ALONE: dict[str, Any] = QUICK | {"n_controls": 0}


def effects(result) -> dict[str, float]:
    return dict(zip(result.table["heads"], result.table["effect"], strict=True))


def named(text, checkpoint):
    return parse_heads(text, checkpoint.config.model.n_layers, checkpoint.config.model.n_heads)


def close(wanted, tolerance=0.02):
    return pytest.approx(wanted, abs=tolerance)


# The single circuit


@pytest.mark.slow
def test_of_each_head_alone_only_the_circuit_matters(planted):
    found = effects(ablate(planted, named("each", planted), **ALONE))
    wanted = {str(head): float(head in (REAL, READER)) for head in all_heads(2, N_HEADS)}
    assert found == close(wanted)


@pytest.mark.parametrize("family", ["layers", "mlps"])
def test_every_layer_and_every_mlp_of_the_single_circuit_is_needed(planted, family):
    sets = named(family, planted)
    assert effects(ablate(planted, sets, **ALONE)) == close({show(one): 1.0 for one in sets})


@pytest.mark.slow
def test_keeping_the_single_circuit_is_enough_and_no_other_pair_is(planted):
    circuit, decoy = head_set([REAL, READER]), head_set([DECOY, READER])
    table = ablate(planted, [circuit, decoy], design="keep", n_controls=30, **QUICK).table
    assert table["effect"].tolist() == close([0, 1])
    assert table["n_controls"].tolist() == [24, 24]  # 5 x 5 pairs of a head in each layer
    assert table["p_value"].tolist() == pytest.approx([1 / 25, 1])


@pytest.mark.slow
def test_copy_and_reader_are_one_circuit_and_the_decoy_is_none(planted):
    """Either takes all, and so do both: together they cost 1 less than the sum."""
    table = pairs(planted, head_set([REAL, DECOY, READER]), **QUICK).table
    found = dict(zip(table["heads"], table["interaction"], strict=True))
    assert found == close({"0.1,0.3": 0, "0.1,1.2": -1, "0.3,1.2": 0})


def test_cumulative_removal_of_the_single_circuit_falls_at_its_first_head(planted):
    result = cumulative(planted, [DECOY, BYSTANDER, READER, REAL], n_orders=0, **QUICK)
    assert result.table["effect"].tolist() == close([0, 0, 1, 1])
    assert result.area["area"].item() == close(0.5)


# The redundant pair


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["zero", "mean"])
def test_one_of_two_copies_is_harmless_and_both_are_fatal(redundant, mode):
    sets = [(COPIES[0],), (COPIES[1],), COPIES]
    table = ablate(redundant, sets, modes=[mode], n_prompts=N_PROMPTS, n_controls=10).table
    wanted = [redundant_effect(n_removed, mode, N_PROMPTS) for n_removed in (1, 1, 2)]
    assert table["effect"].tolist() == close(wanted, 0.1)


@pytest.mark.slow
def test_with_other_prompts_copies_one_of_two_is_harmless_and_both_are_fatal(exact_redundant):
    sets = [(COPIES[0],), (COPIES[1],), COPIES]
    table = ablate(exact_redundant, sets, modes=["resample"], n_prompts=2048, n_controls=0).table
    wanted = [redundant_effect(n_removed, "resample", 2048) for n_removed in (1, 1, 2)]
    assert table["effect"].tolist()[:2] == close(wanted[:2], 0.003)
    assert table["effect"].tolist()[2] == close(wanted[2], 0.15)  # prompts leave a standard error of 0.05
    assert table["direct_effect"].tolist() == close([0, 0, 0], 1e-6)


@pytest.mark.slow
def test_of_each_head_of_the_redundant_model_only_the_reader_matters(redundant):
    found = effects(ablate(redundant, named("each", redundant), **ALONE))
    assert found == close({str(head): float(head == READER) for head in all_heads(3, N_HEADS)})


@pytest.mark.slow
def test_the_layers_of_copies_and_reader_are_needed_and_the_one_without_either_is_not(redundant):
    table = ablate(redundant, named("layers", redundant), **ALONE).table
    assert table["effect"].tolist() == close([1, 1, 0])


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["zero", "resample"])
def test_the_interaction_of_two_copies_is_the_whole_effect(exact_redundant, mode):
    heads = head_set([*COPIES, BYSTANDER])
    table = pairs(exact_redundant, heads, modes=[mode], n_prompts=N_PROMPTS).table
    rows = {row["heads"]: row for row in table.to_dict("records")}
    both = rows.pop("0.1,0.3")
    one, two = (redundant_effect(n_removed, mode, N_PROMPTS) for n_removed in (1, 2))
    assert both["interaction"] == close(two - 2 * one, 0.02 if mode == "zero" else 0.3)
    assert both["p_holm"] < 0.01
    assert all(abs(row["interaction"]) < 0.01 for row in rows.values())


@pytest.mark.slow
def test_keeping_the_circuit_is_enough_and_without_the_reader_it_is_not(redundant):
    kept = [head_set([*COPIES, READER]), head_set([COPIES[0], READER]), COPIES]
    assert ablate(redundant, kept, design="keep", **ALONE).table["effect"].tolist() == close([0, 0, 1])


def test_all_but_one_shows_that_no_single_copy_is_needed(redundant):
    but_one = [head_set(set(all_heads(3, N_HEADS)) - {head}) for head in (COPIES[0], READER)]
    assert ablate(redundant, but_one, design="keep", **ALONE).table["effect"].tolist() == close([0, 1])


@pytest.mark.slow
def test_cumulative_removal_falls_at_the_second_copy(redundant):
    order = [BYSTANDER, COPIES[0], Head(0, 2), COPIES[1]]
    result = cumulative(redundant, order, n_orders=40, **QUICK)
    assert result.table["effect"].tolist() == close([0, 0, 0, 1])
    area = result.area.iloc[0]
    assert area["area"] == close(0.25)
    assert area["p_value"] == 1  # no order of these four heads has a smaller area
    assert area["random_area"] == close(5 / 12, 0.1)  # the later copy comes second, third, fourth in 1, 2, 3 of 6


@pytest.mark.slow
def test_cumulative_removal_with_the_copies_first_is_the_worst_order(redundant):
    order = [*COPIES, BYSTANDER, Head(0, 2)]
    area = cumulative(redundant, order, n_orders=40, **QUICK).area.iloc[0]
    assert area["area"] == close(0.75)
    assert 1 / 41 <= area["p_value"] < 0.4  # one order in six has the copies first, too


# The self-repairing pair


@pytest.mark.sample(1)
@pytest.mark.parametrize("mode", ["zero", "mean", "resample"])
def test_self_repair_is_the_gap_between_direct_and_total(self_repairing, mode):
    table = ablate(self_repairing, [(WRITER,), (ERASER,)], modes=[mode], n_prompts=N_PROMPTS, n_controls=0).table
    wanted = [self_repairing_effect(removed, mode, N_PROMPTS) for removed in ("writer", "eraser")]
    direct = [self_repairing_effect(removed, mode, N_PROMPTS) for removed in ("writer_direct", "eraser")]
    assert table["effect"].tolist() == pytest.approx(wanted, rel=0.1)
    assert table["direct_effect"].tolist() == pytest.approx(direct, rel=0.1)
    assert table["frozen_effect"].tolist() == pytest.approx(wanted, rel=0.1)
    sentences = verdict(table)
    assert "later components compensate for part of it" in sentences[0]
    assert "compensate" not in sentences[1]


def test_the_eraser_has_nothing_to_add_once_the_writer_is_gone(self_repairing):
    """Both together cost what the writer costs alone, so the interaction is minus what the eraser costs."""
    row = pairs(self_repairing, head_set([WRITER, ERASER]), **QUICK).table.iloc[0]
    eraser = self_repairing_effect("eraser", "zero", N_PROMPTS)
    assert row["effect"] == pytest.approx(self_repairing_effect("both", "zero", N_PROMPTS), rel=0.1)
    assert row["interaction"] == pytest.approx(-eraser, rel=0.1)
    assert row["p_holm"] < 0.01


@pytest.mark.slow
@pytest.mark.parametrize(("order", "first"), [((WRITER, ERASER), "writer"), ((ERASER, WRITER), "eraser")])
def test_the_order_of_cumulative_removal_shows_who_repairs(self_repairing, order, first):
    table = cumulative(self_repairing, order, n_orders=0, **QUICK).table
    wanted = [self_repairing_effect(removed, "zero", N_PROMPTS) for removed in (first, "both")]
    assert table["effect"].tolist() == pytest.approx(wanted, rel=0.1)


@pytest.mark.slow
def test_each_layer_of_the_self_repairing_model_costs_what_its_one_head_costs(self_repairing):
    table = ablate(self_repairing, named("layers", self_repairing), **ALONE).table
    wanted = [1, 1, *(self_repairing_effect(removed, "zero", N_PROMPTS) for removed in ("writer", "eraser"))]
    assert table["effect"].tolist() == pytest.approx(wanted, rel=0.1)


@pytest.mark.slow
def test_keeping_the_writer_without_the_eraser_costs_what_the_eraser_costs(self_repairing):
    needed = [Head(0, 1), READER, WRITER]
    table = ablate(self_repairing, [head_set([*needed, ERASER]), head_set(needed)], design="keep", **ALONE).table
    assert table["effect"].tolist() == close([0, self_repairing_effect("eraser", "zero", N_PROMPTS)], 0.2)

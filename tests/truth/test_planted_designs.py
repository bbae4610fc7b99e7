"""Every design, through the public interface, on models whose answer is known: circuits.py."""

import pytest
from circuits import COPIES, ERASER, WRITER, redundant_effect, self_repairing_effect

from interp.ablation import ablate
from interp.designs import cumulative, pairs
from interp.heads import Head, all_heads, head_set

READER, BYSTANDER = Head(1, 2), Head(0, 0)  # averages what the copies made; has W_O = 0
N_PROMPTS = 512
QUICK = {"modes": ["zero"], "n_prompts": N_PROMPTS}


def effects(table, *columns):
    return {tuple(row[column] for column in columns): row["effect"] for row in table.to_dict("records")}


@pytest.mark.parametrize("mode", ["zero", "mean"])  # rounding in this model's clip exceeds what ablate allows resample
def test_one_of_two_copies_is_harmless_and_both_are_fatal(redundant, mode):
    sets = [(COPIES[0],), (COPIES[1],), COPIES]
    table = ablate(redundant, sets, modes=[mode], n_prompts=N_PROMPTS, n_controls=10).table
    wanted = [redundant_effect(n_removed, mode, N_PROMPTS) for n_removed in (1, 1, 2)]
    assert table["effect"].tolist() == pytest.approx(wanted, abs=0.1)


def test_the_interaction_of_two_copies_is_the_whole_effect(redundant):
    table = pairs(redundant, head_set([*COPIES, BYSTANDER]), **QUICK).table
    rows = {row["heads"]: row for row in table.to_dict("records")}
    both = rows.pop("0.1,0.3")
    assert both["interaction"] == pytest.approx(1, abs=0.02)
    assert both["p_holm"] < 0.01
    assert all(abs(row["interaction"]) < 0.01 for row in rows.values())


def test_keeping_the_circuit_is_enough_and_without_the_reader_it_is_not(redundant):
    kept = [head_set([*COPIES, READER]), head_set([COPIES[0], READER]), COPIES]
    table = ablate(redundant, kept, design="keep", n_controls=0, **QUICK).table
    assert table["effect"].tolist() == pytest.approx([0, 0, 1], abs=0.02)


def test_all_but_one_shows_that_no_single_copy_is_needed(redundant):
    everything = all_heads(redundant.config.model.n_layers, redundant.config.model.n_heads)
    but_one = [head_set(set(everything) - {head}) for head in (COPIES[0], READER)]
    table = ablate(redundant, but_one, design="keep", n_controls=0, **QUICK).table
    assert table["effect"].tolist() == pytest.approx([0, 1], abs=0.02)


def test_cumulative_removal_falls_at_the_second_copy(redundant):
    order = [BYSTANDER, COPIES[0], Head(0, 2), COPIES[1]]
    result = cumulative(redundant, order, n_orders=0, **QUICK)
    assert result.table["effect"].tolist() == pytest.approx([0, 0, 0, 1], abs=0.02)
    assert result.area["area"].tolist() == pytest.approx([0.25], abs=0.02)


@pytest.mark.parametrize("mode", ["zero", "mean", "resample"])
def test_self_repair_is_the_gap_between_direct_and_total(self_repairing, mode):
    table = ablate(self_repairing, [(WRITER,), (ERASER,)], modes=[mode], n_prompts=N_PROMPTS, n_controls=0).table
    wanted = [self_repairing_effect(removed, mode, N_PROMPTS) for removed in ("writer", "eraser")]
    direct = [self_repairing_effect(removed, mode, N_PROMPTS) for removed in ("writer_direct", "eraser")]
    assert table["effect"].tolist() == pytest.approx(wanted, rel=0.1)
    assert table["direct_effect"].tolist() == pytest.approx(direct, rel=0.1)
    assert table["frozen_effect"].tolist() == pytest.approx(wanted, rel=0.1)

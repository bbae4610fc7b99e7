from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from interp.ablation import reference_activations as references
from interp.ablation import runner as sweep
from interp.ablation.ablate import ablate, add_holm, control_columns, curve_rows, output_norms, removed_components
from interp.ablation.control_sets import ControlSets
from interp.ablation.errors import ClassErrors, SetErrors
from interp.ablation.modes import MODES, Mode, resample
from interp.ablation.reference_activations import activations, partner_prompts, read_reference, reference_prompts
from interp.ablation.verdict import verdict
from interp.model import self_checks as checks
from interp.model.engine import SITES, read_sites
from interp.model.heads import MLP, Head, all_heads, head_set, show
from interp.names import MODE_NAMES
from interp.statistics.effects import LEAST_NAMED, Effect
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import CheckError, UserError
from training.common.output import records
from training.config.parse import from_preset
from training.evaluation.evaluate import evaluation_prompts, no_context_error, predictions
from training.model.transformer import Transformer

SETS = [(Head(0, 1), Head(1, 2)), (Head(2, 3),)]


@pytest.fixture(scope="module")
def trained():
    from training.checkpoints.checkpoint import load

    return load("zoo:mixed-0")


@pytest.fixture
def tiny_copy(trained):
    """A copy to be changed."""
    return replace(trained, model=deepcopy(trained.model))


@pytest.fixture(scope="module")
def result(trained):
    return ablate(trained, SETS, ["linear", "cubic"], n_prompts=150, n_controls=6)


def test_table_has_a_row_per_set_class_and_mode(result):
    keys = result.table[["heads", "function_class", "mode"]].drop_duplicates()
    assert len(result.table) == len(keys) == 2 * 2 * 3
    assert set(result.table["heads"]) == {"0.1,1.2", "2.3"}


def plain_loop(trained):
    """Test prompts, and a function that predicts them without heads through nothing but the forward pass with edits."""
    prompts, other = (
        evaluation_prompts(trained.config, "linear", n_prompts=150, seed=0, stream=s) for s in ("test", "reference")
    )
    reference = reference_prompts(trained.config, "linear", seed=0)
    sites = [f"blocks.{layer}.attn.hook_z" for layer in range(3)]
    kept, averaged = (read_sites(trained.model, drawn.tokens, sites) for drawn in (other, reference))

    def predict_without(heads, mode):
        def edit(layer):
            def replaced(z):
                z = z.clone()
                for head in heads:
                    if head.layer == layer:
                        source = kept[sites[layer]][:, :, head.number]
                        mean = averaged[sites[layer]][:, :, head.number].mean(0)
                        written = {"zero": 0.0 * source, "mean": mean, "resample": source}
                        z[:, :, head.number] = written[mode]
                return z

            return replaced

        return trained.model(prompts.tokens, {site: edit(layer) for layer, site in enumerate(sites)})[:, ::2]

    return prompts, predict_without


def of_last_quarter(differences, unit):
    return (differences.square() / unit)[:, 12:].double().mean().item()


def test_numbers_are_those_of_a_plain_loop(trained, result):
    """Errors, effect and null of one row again."""
    prompts, predict_without = plain_loop(trained)
    unit = trained.config.second_moment("linear")

    def error(heads, mode):
        return of_last_quarter(predict_without(heads, mode) - prompts.ys, unit)

    intact = of_last_quarter(predictions(trained.model, prompts) - prompts.ys, unit)
    optimum = (no_context_error(trained.config, "linear", prompts) / unit)[:, 12:].double().mean().item()
    for mode in ("zero", "mean", "resample"):
        row = result.table.query("heads == '0.1,1.2' and function_class == 'linear' and mode == @mode").iloc[0]
        assert row["nmse_before"] == pytest.approx(intact, rel=1e-5)
        assert row["nmse_no_context"] == pytest.approx(optimum, rel=1e-5)
        assert row["nmse_after"] == pytest.approx(error(SETS[0], mode), rel=1e-4)
        assert row["effect"] == pytest.approx((row["nmse_after"] - intact) / (optimum - intact), rel=1e-5)
        controls = result.null.query(
            "heads == '0.1,1.2' and function_class == 'linear' and mode == @mode and match == 'layer'"
        )
        null = []
        for text in controls["control"]:
            heads = [Head(*map(int, name.split("."))) for name in text.split(",")]
            null.append((error(heads, mode) - intact) / (optimum - intact))
        assert list(controls["effect"]) == pytest.approx(null, rel=1e-3, abs=1e-4)
        assert row["p_value"] == (sum(value >= row["effect"] - LEAST_NAMED for value in null) + 1) / 7
        apart = [value for value, disjoint in zip(null, controls["disjoint"], strict=True) if disjoint]
        if apart:
            assert row["control_effect"] == pytest.approx(np.mean(apart), rel=1e-3, abs=1e-4)


def test_predictions_move_as_in_a_plain_loop(trained, result):
    prompts, predict_without = plain_loop(trained)
    intact, unit = predictions(trained.model, prompts), trained.config.second_moment("linear")
    gain = no_context_error(trained.config, "linear", prompts)[:, 12:].double().mean().item() / unit
    gain -= of_last_quarter(intact - prompts.ys, unit)
    for mode in ("zero", "mean", "resample"):
        row = result.table.query("heads == '0.1,1.2' and function_class == 'linear' and mode == @mode").iloc[0]
        moved = of_last_quarter(predict_without(SETS[0], mode) - intact, unit) / gain
        assert row["moved_effect"] == pytest.approx(moved, rel=1e-4)
        assert row["moved_ci_low"] < moved < row["moved_ci_high"]


def columns_of(design, effects, error, n_tests=1, n_apart=2):
    """What 39 control sets say of a set whose effect is 0.3 on their prompts; the first two share no head with it."""
    controls = ControlSets(tuple((Head(layer, 0),) for layer in range(39)), exact=False)
    total, compared = Effect(0.31, 0.2, 0.4, error), Effect(0.3, 0.2, 0.4, 0.05)
    return control_columns(total, compared, controls, effects, np.arange(39) < n_apart, design, n_tests)


def test_one_null_is_summed_up_as_by_hand():
    found = columns_of("remove", np.arange(39) / 100, 0.1)
    assert found == pytest.approx(
        {
            "p_value": (9 + 1) / 40,  # 0.30 to 0.38
            "p_two_sided": 2 * (9 + 1) / 40,
            "compared_effect": 0.3,
            "n_controls": 39,
            "smallest_p": 1 / 40,
            "exact": False,
            "n_disjoint": 2,
            "control_effect": 0.005,
            "control_min": 0.0,
            "control_max": 0.01,
            "detectable": 0.37 + LEAST_NAMED + 0.84 * 0.05,
        }
    )
    assert columns_of("remove", np.arange(39) / 100, 0.2)["detectable"] == pytest.approx((1.96 + 0.84) * 0.2)
    assert columns_of("remove", np.arange(39) / 100, 0.1, n_tests=3)["detectable"] == np.inf


def test_sets_that_all_share_a_head_leave_no_cost_to_compare_with():
    found = columns_of("remove", np.arange(39) / 100, 0.1, n_apart=0)
    assert found["n_disjoint"] == 0
    assert np.isnan([found["control_effect"], found["control_max"]]).all()


def test_a_set_that_is_kept_is_judged_by_what_it_leaves():
    """Control sets leave 0 to 0.38 of the gain, the set 0.7: only what loses less than 0.62 could have been found."""
    found = columns_of("keep", 1 - np.arange(39) / 100, 0.1)
    assert found["p_value"] == 1 / 40
    assert found["detectable"] == pytest.approx(1 - (0.37 + LEAST_NAMED + 0.84 * 0.05))
    assert found["control_max"] == 1
    assert columns_of("keep", 1 - np.arange(39) / 100, 0.2)["detectable"] == pytest.approx(1 - 2.8 * 0.2)
    assert columns_of("keep", np.arange(39) / 100, 0.1)["p_value"] == (31 + 1) / 40  # 0.00 to 0.30 lost
    assert columns_of("keep", np.ones(39), 0.1, n_tests=3)["detectable"] == -np.inf


def test_holm_is_over_classes_within_each_set_mode_and_range():
    keys = [(heads, mode, points) for heads in "ab" for mode in ("zero", "mean") for points in ("0-3", "4-7")]
    rows = [
        {"heads": heads, "mode": mode, "points": points, "function_class": name}
        | {f"{prefix}p_value": p * shrink for prefix, shrink in (("", 1), ("size_", 0.5), ("norm_", 0.1))}
        | {f"{prefix}p_two_sided": 2 * p * shrink for prefix, shrink in (("", 1), ("size_", 0.5), ("norm_", 0.1))}
        for heads, mode, points in keys
        for name, p in (("linear", 0.01), ("cubic", 0.04))
    ]
    add_holm(rows)
    for prefix, shrink in (("", 1), ("size_", 0.5), ("norm_", 0.1)):
        adjusted = [row[f"{prefix}p_holm"] for row in rows]
        assert adjusted == pytest.approx([0.02 * shrink, 0.04 * shrink] * len(keys))
        two_sided = [row[f"{prefix}p_two_sided_holm"] for row in rows]
        assert two_sided == pytest.approx([0.04 * shrink, 0.08 * shrink] * len(keys))


def test_curves_are_means_over_prompts_by_number_of_examples():
    (_, one), kept = SETS, (Head(0, 0),)
    without = {"zero": {kept: SetErrors(np.zeros((2, 1)), curve=np.array([0.5, 0.7]))}}
    errors = ClassErrors(np.array([[1.0, 2], [3, 4]]), np.array([[5.0, 6], [7, 9]]), without, 0.0)
    columns = ("heads", "function_class", "mode", "examples", "nmse")
    assert [tuple(row[name] for name in columns) for row in curve_rows(errors, "cubic", {show(one): kept})] == [
        ("", "cubic", "intact", 0, 2),
        ("", "cubic", "intact", 1, 3),
        ("", "cubic", "no_context", 0, 6),
        ("", "cubic", "no_context", 1, 7.5),
        ("2.3", "cubic", "zero", 0, 0.5),
        ("2.3", "cubic", "zero", 1, 0.7),
    ]


def test_what_a_design_removes(random_checkpoint):
    heads = (Head(0, 1), Head(2, 3))
    assert removed_components(heads, "remove", random_checkpoint) == heads
    assert removed_components((Head(0, MLP),), "remove", random_checkpoint) == (Head(0, MLP),)
    others = removed_components(heads, "keep", random_checkpoint)
    assert (len(others), {*others} & {*heads}) == (22, set())
    assert {*others, *heads} == {*all_heads(3, 8)}
    with pytest.raises(UserError, match=r"^design keep takes heads only \(given: 1\.mlp\); MLPs are always kept$"):
        removed_components((Head(1, MLP),), "keep", random_checkpoint)


@pytest.mark.slow
def test_the_found_head_of_the_shipped_model_is_causal(trained):
    result = ablate(trained, [(Head(0, 1),)], ["linear"], n_prompts=256, n_controls=50)
    for row in records(result.table):
        assert row["ci_low"] > 0.5
        assert row["control_max"] < 0.25
        assert row["p_value"] == row["smallest_p"]


@pytest.mark.slow
def test_results_repeat_and_do_not_depend_on_chunks(trained, monkeypatch):
    def table():
        return ablate(trained, SETS[:1], ["linear"], n_prompts=100, n_controls=3, modes=["resample"]).table

    first, second = table(), table()
    pd.testing.assert_frame_equal(first, second)
    monkeypatch.setattr(sweep, "CHUNK", 17)
    monkeypatch.setattr(sweep, "PASS", 2**18)
    pd.testing.assert_frame_equal(first, table(), rtol=1e-4, atol=1e-6)


def test_null_sets_are_compared_on_prompts_that_they_share_with_the_set(trained):
    """A set under test keeps its effect on all prompts, and is judged by the loss on those of the control sets."""
    common = {"n_prompts": 60, "n_controls": 5, "modes": ["mean"], "matches": ["layer"]}
    few, whole = (ablate(trained, SETS, ["linear"], **common, n_null_prompts=n) for n in (20, 60))
    for column in ("effect", "ci_low", "ci_high", "frozen_effect", "n_controls"):
        np.testing.assert_allclose(few.table[column], whole.table[column], rtol=1e-4, atol=1e-5)
    errors = few.errors["linear"]
    intact = errors.intact[:, 12:].mean(1)
    gain = errors.no_context[:, 12:].mean() - intact.mean()
    for one, row in zip(SETS, few.table.to_dict("records"), strict=True):
        null = few.null[few.null["heads"] == show(one)]
        losses = {
            show(removed): (found.total[:20, 0].mean() - intact[:20].mean()) / gain
            for removed, found in errors.ablated["mean"].items()
        }
        assert all(
            len(found.total) == (60 if removed in SETS else 20) for removed, found in errors.ablated["mean"].items()
        )
        assert row["compared_effect"] == pytest.approx(losses[show(one)], rel=1e-6)
        assert null["effect"].tolist() == pytest.approx([losses[name] for name in null["control"]], rel=1e-6)
        assert row["p_value"] == (1 + sum(null["effect"] >= row["compared_effect"] - LEAST_NAMED)) / (1 + len(null))
        assert row["compared_effect"] != pytest.approx(row["effect"], rel=1e-3)
    assert whole.table["compared_effect"].tolist() == pytest.approx(whole.table["effect"].tolist(), rel=1e-6)


@pytest.mark.slow
def test_random_sets_are_significant_as_often_as_they_should_be(trained):
    """The whole way from heads to p-values under the null: sets that nothing chose, 240 of them."""
    rng = np.random.default_rng(0)
    every = all_heads(3, 8)
    sets = list(dict.fromkeys(head_set(every[i] for i in rng.choice(24, 3, replace=False)) for _ in range(300)))[:240]
    found = ablate(trained, sets, ["linear"], modes=["mean"], n_prompts=24, n_null_prompts=12, n_controls=19)
    for column in ("p_value", "size_p_value"):
        p_values = found.table[column].to_numpy()
        assert len(p_values) == 240
        assert p_values.mean() == pytest.approx(0.525, abs=0.06)  # 1/20, 2/20, ... 1 have this mean
        for level in (0.05, 0.1, 0.25, 0.5):
            assert np.mean(p_values <= level + 1e-9) == pytest.approx(
                level, abs=3.5 * (level * (1 - level) / 240) ** 0.5
            )


@pytest.mark.slow
def test_nothing_is_significant_in_a_model_that_does_not_learn_in_context(generator):
    """Random weights have no in-context gain to lose, so there is no test rather than a lucky one."""
    config = from_preset("tiny", "mixed", 0)
    untrained = Checkpoint("untrained", Path("untrained"), config, 0, Transformer(config.model, generator).eval())
    found = ablate(untrained, [(head,) for head in all_heads(3, 8)], ["linear"], n_prompts=100, n_controls=7)
    assert np.isnan(found.table[["p_value", "p_holm"]].to_numpy()).all()


@pytest.mark.parametrize("site", list(SITES))
def test_reference_moments_are_those_over_all_prompts(trained, site, monkeypatch):
    monkeypatch.setattr(references, "REFERENCE_MEMORY", 2**18)  # several chunks
    tokens = evaluation_prompts(trained.config, "linear", n_prompts=50, seed=0).tokens
    whole = activations(trained.model, tokens, site)
    known = read_reference(trained.model, tokens, site).moments
    for mean, std, wanted in zip(known.mean, known.std, whole, strict=True):
        torch.testing.assert_close(mean, wanted.mean(0, keepdim=True), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(std, wanted.std(0, correction=0, keepdim=True), rtol=1e-3, atol=1e-5)


def test_output_norms_are_those_of_what_is_written(trained):
    norms = output_norms(trained, ["linear"], seed=0)
    tokens = reference_prompts(trained.config, "linear", seed=0).tokens
    found = activations(trained.model, tokens, "z")
    written = found[1][:, :, 5] @ trained.model.layers[1].attn.W_O[5]
    assert norms[Head(1, 5)] == pytest.approx(written.square().sum(-1).mean().sqrt().item(), rel=1e-4)
    assert norms[Head(2, MLP)] == pytest.approx(found[5].square().sum(-1).mean().sqrt().item(), rel=1e-4)


def test_curves_average_to_the_errors_in_the_table(result):
    for _, row in result.table.iterrows():
        keys = (result.curves[["heads", "function_class", "mode"]] == row[["heads", "function_class", "mode"]]).all(
            axis=1
        )
        curve = result.curves[keys].set_index("examples")["nmse"]
        assert curve[12:].mean() == pytest.approx(row["nmse_after"], rel=1e-9)


def test_an_untrained_model_has_no_effect_to_measure(random_checkpoint):
    result = ablate(random_checkpoint, [SETS[1]], ["linear"], n_prompts=64, n_controls=4)
    assert result.table[["effect", "ci_low", "p_value"]].isna().to_numpy().all()
    assert "better than the no-context optimum" in verdict(result.table)[0]
    assert "No effect of removing" in verdict(result.table)[0]


def test_all_heads_have_no_layer_matched_set(trained):
    result = ablate(trained, [all_heads(3, 8)], ["linear"], n_prompts=32, modes=["mean"], n_controls=20)
    assert result.table["n_controls"].tolist() == [0]
    assert "no p-value" in verdict(result.table)[0]
    assert result.table["heads"].tolist() == [show(all_heads(3, 8))]


@pytest.mark.parametrize(
    ("failure", "broken"),
    [
        ("not that of the forward pass", lambda true, m, r, removed, g, **k: true(m, r, removed, g, **k) * 1.001),
        ("patching a run with itself", lambda true, m, r, removed, g, **k: true(m, r, removed, g, **k) + 0.01),
    ],
)
def test_an_ablation_that_does_not_act_is_refused(trained, monkeypatch, failure, broken):
    """Each self-check, by breaking what it guards."""
    true, calls = checks.predict_without, []

    def predict(*given, **more):
        calls.append(given)
        is_patch = len(calls) == 1
        return broken(true, *given, **more) if is_patch == ("patching" in failure) else true(*given, **more)

    monkeypatch.setattr(checks, "predict_without", predict)
    with pytest.raises(CheckError, match=failure):
        ablate(trained, [(Head(0, 1),)], ["linear"], n_prompts=32, n_controls=0)


def test_a_changed_intact_run_is_refused(trained, monkeypatch):
    true = checks.predictions_of
    monkeypatch.setattr(checks, "predictions_of", lambda *given: true(*given) + 0.01)
    with pytest.raises(CheckError, match="removing no head changes the predictions"):
        ablate(trained, [(Head(0, 1),)], ["linear"], n_prompts=32, n_controls=0)


def test_a_sweep_that_float64_does_not_confirm_is_refused(trained, monkeypatch):
    true = checks.predict_without
    monkeypatch.setattr(sweep, "check_removal", lambda *_: {})
    monkeypatch.setattr(checks, "predict_without", lambda *given, **more: true(*given, **more) * 1.001)
    with pytest.raises(CheckError, match=r"zero ablation of 0\.1 differs from its float64 result"):
        ablate(trained, [(Head(0, 1),)], ["linear"], modes=["zero"], n_prompts=32, n_controls=0)


def test_an_edit_that_leaves_the_activation_as_it_was_is_refused(trained, monkeypatch):
    monkeypatch.setattr(checks, "head_edit", lambda *_: lambda activation: activation)
    with pytest.raises(CheckError, match=r"zero ablation leaves what head 0\.1 writes"):
        ablate(trained, [(Head(0, 1),)], ["linear"], n_prompts=32, n_controls=0)


PRUNED = {"zero": "is zero", "mean": "does not vary", "resample": "does not vary"}


@pytest.mark.parametrize("site", ["z", "value"])
def test_a_head_without_output_is_a_row_with_the_reason(tiny_copy, site):
    """A pruned head beside one that is not: effect 0, and the other is measured as ever."""
    tiny_copy.model.layers[0].attn.W_V[3] = 0
    tiny_copy.model.layers[0].attn.b_V[3] = 0
    table = ablate(tiny_copy, [(Head(0, 3),), (Head(0, 2),)], ["linear"], site=site, n_prompts=32, n_controls=0).table
    notes = dict(zip(zip(table["heads"], table["mode"], strict=True), table["note"], strict=True))
    for mode, reason in PRUNED.items():
        assert notes["0.3", mode] == f"the output of 0.3 {reason}, so {mode} ablation leaves it unchanged"
        assert notes["0.2", mode] == ""
    effects = np.array(table["effect"])[table["heads"] == "0.3"]
    assert np.abs(effects).max() < 1e-5


def test_a_reason_is_given_once_for_all_heads_that_it_holds_for(tiny_copy):
    tiny_copy.model.layers[1].attn.W_V[2:5] = 0
    tiny_copy.model.layers[1].attn.b_V[2:5] = 0
    sets = [(Head(1, head),) for head in (1, 2, 3, 4)]
    (table,) = ablate(tiny_copy, sets, ["linear"], modes=["mean"], n_prompts=32, n_controls=0).tables()
    assert table.caption.count("does not vary") == 1
    assert table.caption.endswith("; the output of 1.2, 1.3, 1.4 does not vary, so mean ablation leaves it unchanged")
    assert "control" not in table.caption


def test_a_head_that_carries_a_constant_is_a_row_that_only_zero_ablation_changes(tiny_copy):
    tiny_copy.model.layers[0].attn.W_V[3] = 0
    tiny_copy.model.layers[0].attn.b_V[3] = 0.3
    table = ablate(tiny_copy, [(Head(0, 3),)], ["linear"], n_prompts=32, n_controls=0).table.set_index("mode")
    assert [bool(note) for note in table.loc[["zero", "mean", "resample"], "note"]] == [False, True, True]
    assert abs(table.loc["mean", "effect"]) < 1e-5 < abs(table.loc["zero", "effect"])


def test_a_pattern_that_is_already_uniform_is_a_row_with_the_reason(tiny_copy):
    for name in ("W_Q", "b_Q"):
        getattr(tiny_copy.model.layers[0].attn, name)[1] = 0
    table = ablate(tiny_copy, [(Head(0, 1),)], ["linear"], site="pattern", n_prompts=32, n_controls=0).table
    assert table["note"].item() == (
        "the output of 0.1 is that of uniform attention, so uniform ablation leaves it unchanged"
    )


@pytest.mark.slow
def test_a_set_that_fails_a_check_costs_that_set(trained, monkeypatch):
    """The engine is broken for one head: the others are reported as without it, and it is named."""
    true = checks.plain_edits

    def plain_edits(components, *given):
        return true(tuple(head for head in components if head != Head(0, 1)), *given)

    sets = [(Head(0, 1),), (Head(0, 2),)]
    whole = ablate(trained, sets, ["linear"], n_prompts=64, n_controls=3)
    monkeypatch.setattr(checks, "plain_edits", plain_edits)
    monkeypatch.setattr(checks, "changes_output", lambda *_: True)
    partial = ablate(trained, sets, ["linear"], n_prompts=64, n_controls=3)
    assert set(partial.table["heads"]) == {"0.2"}
    assert partial.failed.keys() == {"0.1"}
    assert "in the engine is not that of the forward pass" in partial.failed["0.1"]
    wanted = whole.table[whole.table["heads"] == "0.2"]["effect"].tolist()
    assert partial.table["effect"].tolist() == pytest.approx(wanted, rel=1e-5)
    with pytest.raises(CheckError, match="is not that of the forward pass"):
        ablate(trained, sets[:1], ["linear"], n_prompts=64, n_controls=0)


def test_a_defect_of_the_size_of_rounding_errors_is_refused_where_there_is_no_rounding(trained, monkeypatch):
    true = checks.predict_without
    monkeypatch.setattr(checks, "predict_without", lambda *given, **more: true(*given, **more) * (1 + 3e-5))
    with pytest.raises(CheckError, match="patching a run with itself changes it"):
        ablate(trained, [(Head(0, 1),)], ["linear"], n_prompts=32, n_controls=0)


@pytest.mark.sample(3)
@pytest.mark.parametrize("mode", list(MODES))
@pytest.mark.parametrize("site", ["z", pytest.param("value", marks=pytest.mark.slow)])
def test_every_mode_removes_a_causal_head_at_every_site(trained, mode, site):
    """What the head reads are the inputs: other inputs are fatal, another function of the same ones harmless."""
    result = ablate(trained, [(Head(0, 1),)], ["linear"], modes=[mode], site=site, n_prompts=128, n_controls=0)
    (effect,) = result.table["effect"]
    if mode in ("resample:function", "resample:class"):
        assert abs(effect) < 0.02
    else:
        assert effect > 0.8


@pytest.mark.slow
def test_a_mode_of_ones_own_needs_no_entry_anywhere(trained):
    """One that gives what `mean` or `resample` gives costs as much."""
    own = Mode("own", "the mean again", lambda reference: reference.mean)
    again = Mode("again", "another prompt's output again", resample, partner="other")
    modes = ["mean", own, "resample", again]
    result = ablate(trained, SETS[:1], ["linear"], modes=modes, n_prompts=128, n_controls=3)
    effects = {row["mode"]: row["effect"] for row in records(result.table)}
    assert effects["own"] == pytest.approx(effects["mean"], rel=1e-6)
    assert effects["again"] == pytest.approx(effects["resample"], rel=1e-6)
    assert effects["mean"] != pytest.approx(effects["resample"], rel=0.01)
    result.plot()
    result.plot_curves()
    assert "own" in result._repr_html_()


def test_modes_that_help_names_are_the_registry():
    assert [*MODES] == [*MODE_NAMES]


def test_two_modes_of_one_name_are_refused(trained):
    with pytest.raises(UserError, match="modes zero,mean,mean: mean is named twice"):
        ablate(trained, SETS, ["linear"], modes=["zero", "mean", Mode("mean", "mine", lambda r: r.mean)])


def test_resampling_needs_a_second_class():
    config = from_preset("tiny", "single:linear", 0, ["data.classes=linear"])
    with pytest.raises(UserError, match="needs a second function class"):
        partner_prompts(config, "linear", "class", 16, 0)


@pytest.mark.parametrize("partner", ["other", "function", "class", "inputs"])
def test_partners_share_what_they_should(trained, partner):
    """Noise-free classes: the same inputs under the same function would give the same ys."""
    config = trained.config
    test = evaluation_prompts(config, "linear", n_prompts=40, seed=0)
    other = partner_prompts(config, "linear", partner, 40, 0)
    assert torch.equal(test.xs, other.xs) == (partner in ("function", "class"))
    assert not torch.equal(test.ys, other.ys)
    weights = [torch.linalg.lstsq(one.xs, one.ys[..., None]).solution for one in (test, other)]
    assert torch.allclose(*weights, atol=1e-3) == (partner == "inputs")


def test_noise_is_the_same_however_prompts_are_cut(trained, monkeypatch):
    def effects():
        return ablate(trained, SETS[:1], ["linear"], modes=["noise"], n_prompts=60, n_controls=0).table["nmse_after"]

    whole = effects()
    monkeypatch.setattr(sweep, "CHUNK", 7)
    assert list(effects()) == pytest.approx(list(whole), rel=1e-5)


@pytest.mark.slow
def test_optimal_constants_cost_no_more_than_the_means_they_start_from(trained):
    sets = [(Head(0, 1),), (Head(0, 2),), (Head(0, MLP),)]
    table = ablate(trained, sets, ["linear"], modes=["mean", "optimal"], n_prompts=512, n_controls=0).table
    mean, optimal = (
        np.array([row["nmse_after"] for row in records(table) if row["mode"] == mode]) for mode in ("mean", "optimal")
    )
    assert (optimal <= mean + 0.03).all()  # fitted on other prompts
    assert optimal[1] < 0.5 * mean[1]  # most of what the mean of 0.2 costs is not lost information


def test_ranges_are_means_over_their_pairs(trained):
    whole = ablate(trained, SETS, ["linear"], modes=["mean"], points="4-7,12-15", n_prompts=64, n_controls=2)
    for points, first in (("4-7", 4), ("12-15", 12)):
        for row in (one for one in records(whole.table) if one["points"] == points):
            curve = whole.curves.query("heads == @row['heads'] and mode == 'mean'")["nmse"].to_numpy()
            assert curve[first : first + 4].mean() == pytest.approx(row["nmse_after"], rel=1e-9)
    assert set(whole.null["points"]) == {"4-7", "12-15"}


@pytest.mark.slow
def test_keeping_is_removing_the_complement(trained):
    kept = (Head(0, 1), Head(1, 2))
    others = tuple(head for head in all_heads(3, 8) if head not in kept)
    keep = ablate(trained, [kept], ["linear"], modes=["mean"], design="keep", n_prompts=64, n_controls=5)
    remove = ablate(trained, [others], ["linear"], modes=["mean"], n_prompts=64, n_controls=0)
    (kept_row,), (removed_row,) = records(keep.table), records(remove.table)
    assert kept_row["nmse_after"] == pytest.approx(removed_row["nmse_after"], rel=1e-6)
    null = [row["effect"] for row in records(keep.null) if row["match"] == "layer"]
    as_good = sum(effect <= kept_row["effect"] + LEAST_NAMED for effect in null)
    assert kept_row["p_value"] == pytest.approx((as_good + 1) / (len(null) + 1))
    with pytest.raises(UserError, match="takes heads only"):
        ablate(trained, [(Head(0, MLP),)], ["linear"], design="keep", n_prompts=16)


@pytest.mark.slow
def test_a_small_memory_limit_changes_nothing_but_the_passes(trained):
    small, large = (
        ablate(trained, SETS, ["linear"], modes=["mean"], n_prompts=40, n_controls=3, memory=memory).table
        for memory in (2**20, 2**30)
    )
    pd.testing.assert_frame_equal(small, large, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"site": "k"}, "unknown site 'k' \\(valid: z, pattern, value\\)"),
        ({"tokens": "q"}, "tokens 'q' is not valid"),
        ({"points": "12-16"}, "these prompts have pairs 0-15"),
        ({"modes": ["median"]}, "unknown modes 'median'"),
    ],
)
def test_what_does_not_exist_is_refused(trained, wrong, message):
    with pytest.raises(UserError, match=message):
        ablate(trained, SETS, ["linear"], n_prompts=16, **wrong)


def test_verdict_says_when_replacements_disagree(result):
    rows = result.table.query("heads == '2.3' and function_class == 'linear'").copy()
    rows["effect"], rows["ci_low"], rows["ci_high"] = [1.4, 0.2, 0.01], [1.3, 0.1, 0.0], [1.5, 0.3, 0.02]
    assert (
        "THE REPLACEMENTS GIVE DIFFERENT VERDICTS (zero 1.40, at least half of the gain; mean 0.20, part of the gain; "
        in verdict(rows)[0]
    )


@pytest.mark.slow
def test_more_prompts_narrow_the_interval(trained):
    widths = []
    for n in (64, 1024):
        row = ablate(trained, [(Head(0, 1),)], ["linear"], modes=["mean"], n_prompts=n, n_controls=0).table.iloc[0]
        widths.append(row["ci_high"] - row["ci_low"])
    assert widths[1] < 0.5 * widths[0]
    assert np.isfinite(widths).all()


def test_total_effects_alone_are_those_of_the_whole_ablation(trained):
    sets = [(Head(0, 1),), (Head(0, 1), Head(2, 3))]
    options = {"modes": ["mean", "resample"], "n_controls": 4, "matches": ["layer"], "n_prompts": 48}
    whole = ablate(trained, sets, ["linear"], **options).table
    total = ablate(trained, sets, ["linear"], **options, total_only=True)
    for column in ("effect", "ci_low", "ci_high", "control_effect", "nmse_after"):
        assert np.allclose(total.table[column], whole[column], rtol=1e-4, atol=1e-6)
    assert total.table[["heads", "mode", "p_value"]].equals(whole[["heads", "mode", "p_value"]])
    for kind in ("direct", "frozen", "moved"):
        assert total.table[f"{kind}_effect"].isna().all()
        assert whole[f"{kind}_effect"].notna().all()
    assert set(total.curves["mode"]) == {"intact", "no_context"}

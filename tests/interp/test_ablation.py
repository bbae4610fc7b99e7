import numpy as np
import pandas as pd
import pytest
import torch

from interp import ablation, checks
from interp.ablation import ablate, mean_z
from interp.engine import trace
from interp.heads import Head, all_heads, show
from interp.verdict import verdict
from training.errors import CheckError
from training.evaluate import evaluation_prompts, no_context_error, predictions
from training.output import records

SETS = [(Head(0, 1), Head(1, 2)), (Head(2, 3),)]


@pytest.fixture(scope="module")
def trained():
    from training.checkpoint import load

    return load("zoo:mixed-0")


@pytest.fixture(scope="module")
def result(trained):
    return ablate(trained, SETS, ["linear", "cubic"], n_prompts=150, n_controls=6)


def test_table_has_a_row_per_set_class_and_mode(result):
    keys = result.table[["heads", "function_class", "mode"]].drop_duplicates()
    assert len(result.table) == len(keys) == 2 * 2 * 3
    assert set(result.table["heads"]) == {"0.1,1.2", "2.3"}


def test_numbers_are_those_of_a_plain_loop(trained, result):
    """Errors, effect and null of one row again, through nothing but the model's forward pass with edits."""
    tail = slice(12, 16)
    prompts, other = (
        evaluation_prompts(trained.config, "cubic", n_prompts=150, seed=0, stream=s) for s in ("test", "reference")
    )
    unit = trained.config.second_moment("cubic")

    def error(heads, mode):
        sites = [f"blocks.{layer}.attn.hook_z" for layer in range(3)]
        kept = {}
        trained.model(other.tokens, {site: lambda z, site=site: kept.setdefault(site, z) for site in sites})

        def edit(layer):
            def replace(z):
                z = z.clone()
                for head in heads:
                    if head.layer == layer:
                        source = kept[sites[layer]][:, :, head.number]
                        written = {"zero": 0.0 * source, "mean": source.mean(0), "resample": source}
                        z[:, :, head.number] = written[mode]
                return z

            return replace

        out = trained.model(prompts.tokens, {site: edit(layer) for layer, site in enumerate(sites)})[:, ::2]
        return ((out - prompts.ys).square() / unit)[:, tail].double().mean().item()

    intact = ((predictions(trained.model, prompts) - prompts.ys).square() / unit)[:, tail].double().mean().item()
    optimum = (no_context_error(trained.config, "cubic", prompts) / unit)[:, tail].double().mean().item()
    for mode in ("zero", "mean", "resample"):
        row = result.table.query("heads == '0.1,1.2' and function_class == 'cubic' and mode == @mode").iloc[0]
        assert row["nmse_before"] == pytest.approx(intact, rel=1e-5)
        assert row["nmse_no_context"] == pytest.approx(optimum, rel=1e-5)
        assert row["nmse_after"] == pytest.approx(error(SETS[0], mode), rel=1e-4)
        assert row["effect"] == pytest.approx((row["nmse_after"] - intact) / (optimum - intact), rel=1e-5)
        controls = result.null.query(
            "heads == '0.1,1.2' and function_class == 'cubic' and mode == @mode and match == 'layer'"
        )
        null = []
        for text in controls["control"]:
            heads = [Head(*map(int, name.split("."))) for name in text.split(",")]
            null.append((error(heads, mode) - intact) / (optimum - intact))
        assert list(controls["effect"]) == pytest.approx(null, rel=1e-3, abs=1e-4)
        assert row["p_value"] == (sum(value >= row["effect"] for value in null) + 1) / 7


def test_the_found_head_of_the_shipped_model_is_causal(trained):
    result = ablate(trained, [(Head(0, 1),)], ["linear"], n_prompts=256, n_controls=50)
    for row in records(result.table):
        assert row["ci_low"] > 0.5
        assert row["control_max"] < 0.25
        assert row["p_value"] == row["smallest_p"]


def test_results_repeat_and_do_not_depend_on_chunks(trained, monkeypatch):
    def table():
        return ablate(trained, SETS[:1], ["linear"], n_prompts=100, n_controls=3, modes=["resample"]).table

    first, second = table(), table()
    pd.testing.assert_frame_equal(first, second)
    monkeypatch.setattr(ablation, "CHUNK", 17)
    pd.testing.assert_frame_equal(first, table(), rtol=1e-5)


def test_reference_means_are_means_over_all_prompts(trained, monkeypatch):
    tokens = evaluation_prompts(trained.config, "linear", n_prompts=50, seed=0).tokens
    whole = [z.mean(0, keepdim=True) for z in trace(trained.model, tokens).z]
    monkeypatch.setattr(ablation, "CHUNK", 8)
    for ours, wanted in zip(mean_z(trained.model, tokens), whole, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-6)


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
    assert "makes no use of the context" in verdict(result.table)[0]


def test_all_heads_have_no_layer_matched_set(trained):
    result = ablate(trained, [all_heads(3, 8)], ["linear"], n_prompts=32, modes=["mean"])
    assert result.table["n_controls"].tolist() == [0]
    assert "no p-value" in verdict(result.table)[0]
    assert result.table["heads"].tolist() == [show(all_heads(3, 8))]


def test_an_ablation_that_does_not_act_is_refused(trained, monkeypatch):
    """Each self-check, by breaking what it guards."""
    run = lambda: ablate(trained, [(Head(0, 1),)], ["linear"], n_prompts=32, n_controls=0)  # noqa: E731
    true_predict = checks.predict_with
    for failure, broken in (
        ("not that of the forward pass", lambda m, r, _, z: true_predict(m, r, (), z)),
        ("removing no head changes the predictions", lambda m, r, heads, z: true_predict(m, r, heads, z) + 0.01),
        ("patching a run with itself", lambda m, r, h, z: true_predict(m, r, h, z) + 0.01 * (len(h) == 24)),
    ):
        monkeypatch.setattr(checks, "predict_with", broken)
        with pytest.raises(CheckError, match=failure):
            run()


def test_a_head_that_writes_nothing_to_z_is_reported(random_checkpoint):
    random_checkpoint.model.layers[0].attn.W_V[1] = 0
    random_checkpoint.model.layers[0].attn.b_V[1] = 0
    with pytest.raises(CheckError, match=r"zero ablation leaves what head 0\.1 writes"):
        ablate(random_checkpoint, [(Head(0, 1),)], ["linear"], n_prompts=32, n_controls=0)


def test_verdict_says_when_replacements_disagree(result):
    rows = result.table.query("heads == '2.3' and function_class == 'linear'").copy()
    rows["effect"], rows["ci_low"] = [1.4, 0.2, 0.01], [1.3, 0.1, 0.0]
    assert "THE REPLACEMENTS DISAGREE (zero 1.40, mean 0.20, resample 0.01)" in verdict(rows)[0]


def test_more_prompts_narrow_the_interval(trained):
    widths = []
    for n in (64, 1024):
        row = ablate(trained, [(Head(0, 1),)], ["linear"], modes=["mean"], n_prompts=n, n_controls=0).table.iloc[0]
        widths.append(row["ci_high"] - row["ci_low"])
    assert widths[1] < 0.5 * widths[0]
    assert np.isfinite(widths).all()

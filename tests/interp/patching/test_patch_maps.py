"""Maps of patches against transformer_lens' own patching functions, and against their definitions row by row."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import transformer_lens.patching as tl
from patching_oracle import cached

from interp.model.heads import Head, parse_heads
from interp.model.hooked_transformer import hooked
from interp.model.positions import token_names
from interp.patching import maps
from interp.patching import runner as sweep
from interp.patching.maps import patch, token_sets
from interp.patching.prompt_pairs import prompt_pairs
from interp.patching.runner import group_variants
from interp.patching.verdict import class_sentence, judge_map, strongest, widen_row
from training.checkpoints.checkpoint import load
from training.common.errors import UserError
from training.common.output import records
from training.common.table_rows import where
from training.evaluation.evaluate import no_context_error
from training.tasks.prompts import Layout

PROMPTS = 24
EXAMPLES = 3  # x0 y0 x1 y1 x2 y2 x3: seven tokens, more than the four dims
CORRUPT = {"function": "denoise", "prompt": "noise"}


@pytest.fixture(scope="module")
def trained():
    return load("zoo:mixed-0")


@pytest.fixture(scope="module")
def question(request, trained):
    """(corruption, direction, HookedTransformer, base tokens, source cache, metric on logits)."""
    corrupt = getattr(request, "param", "function")
    direction = CORRUPT[corrupt]
    pairs = prompt_pairs(trained.config, "linear", corrupt, n_prompts=PROMPTS, seed=0, examples=EXAMPLES)
    clean, other = (trained.model.needed(side.tokens) for side in pairs)
    base, source = (other, clean) if direction == "denoise" else (clean, other)
    twin = hooked(trained)
    ends = [twin(tokens)[:, -1, 0].double() for tokens in (base, source)]
    gap = ends[1] - ends[0]

    def effect(logits):
        """The projection on the way from base to source, as in `interp.patching.effects`."""
        return ((logits[:, -1, 0].double() - ends[0]) * gap).mean() / gap.square().mean()

    return corrupt, direction, twin, base, cached(twin, source), effect


def our_map(trained, question, site, **where):
    corrupt, direction = question[:2]
    found = patch(
        trained,
        ["linear"],
        site=site,
        corrupt=corrupt,
        direction=direction,
        examples=EXAMPLES,
        n_prompts=PROMPTS,
        **where,
    )
    return found.table["effect"].to_numpy()


def layers_by_tokens(**more):
    return pd.DataFrame([{"layer": layer, "pos": pos, **more} for layer in range(3) for pos in range(7)])


def by_pos(function, question, index):
    """A by-position sweep over the positions that there are."""
    _, _, twin, base, cache, effect = question
    return function(twin, base, cache, effect, index_axis_names=None, index_df=index).numpy()


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("question", "site"),
    [("function", "resid_pre"), ("function", "resid_mid"), ("prompt", "attn_out"), ("prompt", "mlp_out")],
    indirect=["question"],
)
def test_layers_by_tokens_are_those_of_transformer_lens(trained, question, site):
    theirs = by_pos(getattr(tl, f"get_act_patch_{site}"), question, layers_by_tokens())
    np.testing.assert_allclose(our_map(trained, question, site), theirs, atol=1e-4)
    assert np.ptp(theirs) > 0.1


def test_transformer_lens_on_its_own_stops_at_as_many_tokens_as_there_are_dims(trained, question):
    """Why its positions are listed here: it takes their number from the last axis, which is that of coordinates."""
    _, _, twin, base, cache, effect = question
    theirs = tl.get_act_patch_resid_pre(twin, base, cache, effect)
    assert theirs.shape == (3, 4)
    ours = our_map(trained, question, "resid_pre").reshape(3, 7)
    np.testing.assert_allclose(ours[:, :4], theirs, atol=1e-4)


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("question", "site", "name"),
    [
        ("function", "z", "out"),
        ("prompt", "z", "out"),
        ("prompt", "q", "q"),
        ("prompt", "k", "k"),
        ("function", "v", "v"),
        ("prompt", "pattern", "pattern"),
    ],
    indirect=["question"],
)
def test_heads_are_those_of_transformer_lens(trained, question, site, name):
    _, _, twin, base, cache, effect = question
    theirs = getattr(tl, f"get_act_patch_attn_head_{name}_all_pos")(twin, base, cache, effect)
    assert theirs.shape == (3, 8)
    ours = our_map(trained, question, site).reshape(3, 8)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.sample(2)
@pytest.mark.parametrize(
    ("site", "name", "axis"),
    [("z", "out", "pos"), ("q", "q", "pos"), ("k", "k", "pos"), ("pattern", "pattern", "dest_pos")],
)
def test_a_head_by_tokens_is_that_of_transformer_lens(trained, question, site, name, axis):
    rows = [{"layer": layer, "pos": pos, "head": 1} for layer in (0, 2) for pos in range(7)]
    order = ["layer", "head", "pos"] if axis == "dest_pos" else ["layer", "pos", "head"]
    theirs = by_pos(getattr(tl, f"get_act_patch_attn_head_{name}_by_pos"), question, pd.DataFrame(rows)[order])
    ours = our_map(trained, question, site, heads=[(Head(0, 1),), (Head(2, 1),)], tokens="each")
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.fixture(scope="module")
def found(trained):
    return patch(trained, ["linear", "cubic"], site="resid_mid", corrupt="prompt", examples=2, n_prompts=50, seed=3)


def test_a_row_per_class_layer_and_token_in_reading_order(found):
    assert [*found.table.columns[:7]] == ["function_class", "corrupt", "direction", "site", "layer", "heads", "tokens"]
    keys = found.table[["function_class", "layer", "tokens"]].itertuples(index=False, name=None)
    tokens = ["x0", "y0", "x1", "y1", "x2"]
    assert list(keys) == [(name, layer, at) for name in ("linear", "cubic") for layer in range(3) for at in tokens]
    assert set(found.table["heads"]) == {""}
    assert [*found.baseline_errors["function_class"]] == ["linear", "cubic"]


def test_errors_are_their_definitions(trained, found):
    """nmse, distance, excess of every row, from the predictions; and those from the prompts."""
    for name in ("linear", "cubic"):
        pairs = prompt_pairs(trained.config, name, "prompt", n_prompts=50, seed=3, examples=2)
        unit, answer = trained.config.second_moment(name), pairs.clean.ys[:, -1].double().numpy()
        clean, corrupt = (trained.model.predict(side.tokens)[:, -1].double().numpy() for side in pairs)
        outcomes = found.outcomes[name]
        np.testing.assert_allclose(outcomes.clean, clean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(outcomes.corrupt, corrupt, rtol=1e-5, atol=1e-6)
        end = next(row for row in records(found.baseline_errors) if row["function_class"] == name)
        wanted = {"nmse_clean": clean - answer, "nmse_corrupt": corrupt - answer, "gap": clean - corrupt}
        wanted["nmse_no_context"] = no_context_error(trained.config, name, pairs.clean)[:, -1].sqrt().numpy()
        for key, error in wanted.items():
            assert end[key] == pytest.approx(np.mean(error**2) / unit, rel=1e-4), key
        rows = [row for row in records(found.table) if row["function_class"] == name]
        for row, predicted in zip(rows, outcomes.patched, strict=True):
            assert row["nmse"] == pytest.approx(np.mean((predicted - answer) ** 2) / unit, rel=1e-4)
            distance, above = row["distance_to_clean"], row["nmse_above_no_context"]
            assert distance == pytest.approx(np.mean((predicted - clean) ** 2) / unit, rel=1e-4, abs=1e-8)
            assert above == pytest.approx(row["nmse"] - end["nmse_no_context"], rel=1e-4, abs=1e-6)
            for metric, low, high in (
                ("effect", "ci_low", "ci_high"),
                *((m, f"{m}_low", f"{m}_high") for m in ("nmse", "distance_to_clean", "nmse_above_no_context")),
            ):
                assert row[low] - 1e-9 <= row[metric] <= row[high] + 1e-9


def test_the_last_layer_at_the_query_is_everything(trained):
    for direction in ("denoise", "noise"):
        found = patch(trained, ["linear"], site="resid_post", tokens="query", direction=direction, n_prompts=20)
        (row,) = [row for row in records(found.table) if row["layer"] == 2]
        assert (row["effect"], row["ci_low"], row["ci_high"]) == pytest.approx((1, 1, 1), abs=1e-5)
        end = found.baseline_errors.iloc[0]
        reached, left = ("nmse_clean", "nmse_corrupt") if direction == "denoise" else ("nmse_corrupt", "nmse_clean")
        assert row["nmse"] == pytest.approx(end[reached], rel=1e-4)
        assert row["nmse"] != pytest.approx(end[left], rel=1e-2)


def test_places_where_both_runs_hold_the_same_say_so(trained):
    """The same x under another function: before the first layer an x token holds the same in both runs."""
    rows = records(patch(trained, ["linear"], site="resid_pre", examples=2, n_prompts=20).table)
    first = {row["tokens"]: row for row in rows if row["layer"] == 0}
    assert {name: row["changed"] for name, row in first.items()} == {
        "x0": False, "y0": True, "x1": False, "y1": True, "x2": False,
    }  # fmt: skip
    assert all(row["effect"] == pytest.approx(0, abs=1e-6) for row in rows if not row["changed"])
    assert {row["tokens"] for row in rows if not row["changed"]} == {"x0", "x1", "x2"}
    later = [row["changed"] for row in rows if row["layer"] == 2]
    assert later == [False, True, True, True, True]  # x0 sees nothing before it


def test_results_repeat_and_do_not_depend_on_chunks_or_passes(trained, monkeypatch):
    def table(seed=0):
        return patch(
            trained,
            ["linear"],
            site="v",
            corrupt="prompt",
            tokens="x",
            heads="layer:1",
            examples=4,
            n_prompts=50,
            seed=seed,
        ).table

    first = table()
    pd.testing.assert_frame_equal(first, table())
    monkeypatch.setattr(sweep, "CHUNK", 17)
    monkeypatch.setattr(sweep, "PASS", 2**19)
    pd.testing.assert_frame_equal(first, table(), rtol=1e-4, atol=1e-5)
    assert not np.allclose(first["effect"], table(seed=1)["effect"], atol=1e-3)


def test_heads_together_are_one_patch(trained):
    """All heads of a layer are its attn_out."""
    common = {"corrupt": "prompt", "direction": "noise", "examples": 3, "n_prompts": 20, "tokens": "1-2"}
    (heads,) = records(patch(trained, ["linear"], site="z", heads="layer:1", **common).table)
    assert (heads["heads"], heads["tokens"]) == (",".join(f"1.{i}" for i in range(8)), "1-2")
    whole = records(patch(trained, ["linear"], site="attn_out", **common).table)[1]
    assert (whole["layer"], whole["heads"]) == (1, "")
    assert heads["effect"] == pytest.approx(whole["effect"], abs=1e-5)
    assert abs(whole["effect"]) > 0.02


@pytest.mark.parametrize("layout", [Layout(), Layout(2), Layout(1, at=3), Layout(2, at=2, n_vectors=3)])
def test_token_names_are_where_the_layout_puts_them(layout):
    stream = ["x0", "y0", "x1", "y1", "x2", "y2"]
    stream[layout.at : layout.at] = [f"i{place}" for place in range(layout.n_instruction)]
    assert token_names(layout, 3) == stream


def test_token_sets_are_what_they_are_called():
    layout = Layout(1, at=2)  # x0 y0 i0 x1 y1 x2
    names = token_names(layout, 3)[:-1]  # no prediction depends on the last y

    def chosen(at):
        return [
            (name, "all" if tokens is None else [names[i] for i in tokens.nonzero()[:, 0]])
            for name, tokens in token_sets(at, layout, 3)
        ]

    assert chosen("each") == [(name, [name]) for name in names]
    assert chosen("query") == [("query", ["x2"])]
    assert chosen("all") == [("all", "all")]
    assert chosen("y") == [("y", ["y0", "y1"])]
    assert chosen("0-1") == [("0-1", ["x0", "y0", "x1", "y1"])]
    assert chosen("x:2") == [("x:2", ["x2"])]


def test_variants_in_one_pass_share_their_first_layer_and_token():
    places = maps.list_locations(load("zoo:mixed-0").config, "z", parse_heads("each", 3, 8), "each", 2)
    variants = [place.variant for place in places]
    groups = list(group_variants(variants, 5))
    assert sorted(i for group in groups for i in group) == list(range(len(variants)))
    assert max(map(len, groups)) == 5
    for group in groups:
        starts = {(patch.layer, int(patch.tokens.nonzero()[0])) for i in group for patch in variants[i]}  # type: ignore[union-attr]
        assert len(starts) == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"site": "result"}, r"unknown site 'result' \(valid: resid_pre, resid_mid, .*pattern\)"),
        ({"corrupt": "shuffle"}, r"unknown corrupt 'shuffle' \(valid: function, inputs, prompt, class, permuted"),
        ({"corrupt": "noise:3"}, "only pair:J takes an argument"),
        ({"corrupt": "pair:x"}, "only pair:J takes an argument"),
        ({"corrupt": "pair:99"}, "these prompts have examples 0-14"),
        ({"direction": "both"}, r"unknown direction 'both' \(valid: denoise, noise\)"),
        ({"heads": "3.0"}, "there is no head 3.0; this model has layers 0-2 with heads 0-7"),
        ({"heads": "0.mlp"}, "an MLP is patched with site mlp_out"),
        ({"site": "resid_pre", "heads": "0.1"}, "resid_pre has no heads .those that have: z, q, k, v, pattern"),
        ({"tokens": "nowhere"}, "tokens 'nowhere' is not valid .all, each, query, x, y, or A-B"),
        ({"tokens": "12-16"}, "these prompts have pairs 0-15"),
        ({"tokens": "y:15"}, "no prediction reads the y of the query .pair 15."),
        ({"examples": 16}, "this run's prompts have 1 to 15 examples before a query"),
        ({"examples": 0}, "this run's prompts have 1 to 15 examples before a query"),
        ({"corrupt": "permuted", "examples": 1}, "needs at least two examples"),
    ],
)
def test_what_does_not_exist_is_refused(trained, wrong, message):
    with pytest.raises(UserError, match=message):
        patch(trained, ["linear"], n_prompts=16, **wrong)


def test_heads_can_be_chosen_by_score(trained):
    rows = records(patch(trained, ["linear"], heads="top:1", n_prompts=32).table)
    assert [row["heads"] for row in rows] == ["0.1"]


def test_the_sentence_names_the_best_location_and_the_next(found):
    n_patches = len(found.table)
    rows = [widen_row(row, n_patches) for row in records(found.table) if row["function_class"] == "linear"]
    rows = [row for row in rows if row["ci_low"] > 0]
    rows.sort(key=lambda row: abs(np.log(row["effect"])))  # nearest to 1: an overshoot is no better
    assert judge_map(found, "linear") == ("effects", rows[:2])
    outcomes = [
        f"resid_mid of layer {row['layer']} at {row['tokens']} restores {row['effect']:.2f} "
        f"[{row['ci_low']:.2f}, {row['ci_high']:.2f}] of the gap"
        for row in rows[:2]
    ]
    n_locations = len(where(found.table, function_class="linear"))
    assert class_sentence(found, "linear") == (
        f"On linear (corrupt: prompt) patching {'; next '.join(outcomes)} (chosen from {n_locations} locations; "
        f"intervals hold for all {n_patches} of the map at once)."
    )


def with_effects(found, *effects):
    """The map with a place for each (effect, ci_low, ci_high) of its first class."""
    rows = [
        row | dict(zip(("effect", "ci_low", "ci_high"), effect, strict=True))
        for row, effect in zip(records(found.table), effects, strict=False)
    ]
    return replace(found, table=pd.DataFrame(rows))


def test_the_place_is_chosen_by_evidence(found):
    """Neither an overshoot nor an effect that may be none, however large, is the place that matters most."""
    ends = [(1.4, 1.2, 1.6), (0.95, 0.9, 1.0), (1.0, -0.5, 2.5), (0.2, 0.1, 0.3)]
    rows = strongest(with_effects(found, *ends), "linear", 4)
    assert [row["effect"] for row in rows] == [0.95, 1.4, 0.2, 1.0]


def test_a_map_without_effects_says_so(found):
    flat = with_effects(found, (0.3, -0.1, 0.7), (-0.2, -0.5, 0.1), (0.0, 0.0, 0.0))
    assert judge_map(flat, "linear") == ("no effect", [])
    text = "On linear (corrupt: prompt) no patch is shown to have an effect of 0.01 or more (3 locations patched)."
    assert class_sentence(flat, "linear") == text


def test_the_best_of_many_patches_needs_an_interval_that_holds_for_all(found):
    """Of 24 patches without effect the best has an interval beside 0 in seven maps of ten."""
    named, nothing = (0.3, 0.05, 0.55), (0.0, -0.1, 0.1)
    assert judge_map(with_effects(found, named), "linear")[0] == "effects"
    assert judge_map(with_effects(found, named, *[nothing] * 5), "linear") == ("no effect", [])


def test_a_patch_that_moves_the_prediction_away_restores_nothing(found):
    text = class_sentence(with_effects(found, (-0.5, -0.6, -0.4), (0.0, -0.1, 0.1)), "linear")
    assert "moves the prediction the other way, by 0.50 [0.39, 0.61] of the gap (chosen from 2 locations; " in text
    assert "restores" not in text


def test_where_both_runs_answer_alike_errors_are_compared(trained):
    """Other examples of the same function: the answer stays, so that a mixture of both is what shows."""
    found = patch(trained, ["linear"], site="v", corrupt="inputs", direction="noise", n_prompts=64)
    kind, rows = judge_map(found, "linear")
    worst = max(records(found.table), key=lambda row: row["nmse"])
    worst = widen_row(worst, len(found.table))
    assert (kind, rows[0]) == ("errors", worst)
    unpatched = found.baseline_errors["nmse_clean"].item()
    assert class_sentence(found, "linear").startswith(
        "On linear (corrupt: inputs) the corrupt run answers, too, so errors are compared, not effects: "
        f"without a patch the NMSE is {unpatched:.2f}; patching v of {worst['heads']} raises it to "
        f"{worst['nmse']:.2f} [{worst['nmse_low']:.2f}, {worst['nmse_high']:.2f}]"
    )


def test_where_both_runs_answer_alike_and_no_error_changes_no_location_is_named(trained):
    found = patch(trained, ["linear"], site="v", corrupt="inputs", direction="noise", n_prompts=64)
    before = found.baseline_errors["nmse_clean"].item()
    flat = replace(found, table=found.table.assign(nmse=before, nmse_low=before - 0.1, nmse_high=before + 0.1))
    assert judge_map(flat, "linear") == ("no change of error", [])
    assert class_sentence(flat, "linear").endswith(
        ": no patch is shown to change the error of the patched run (24 locations patched)."
    )


def test_a_model_that_ignores_its_context_has_no_effect_to_measure():
    blind = load("zoo:mixed-0")
    blind.model.unembed.W_U.zero_()
    found = patch(blind, ["linear"], site="resid_pre", examples=2, n_prompts=16)
    assert found.table[["effect", "ci_low", "ci_high"]].isna().to_numpy().all()
    assert np.isfinite(found.table[["nmse", "distance_to_clean", "nmse_above_no_context"]].to_numpy()).all()
    assert class_sentence(found, "linear") == (
        "On linear (corrupt: function) the clean and the corrupt run give the same predictions: "
        "there is nothing to patch."
    )

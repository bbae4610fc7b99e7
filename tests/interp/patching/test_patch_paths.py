"""Path patching against the same done by hand with HookedTransformer, in two ways (see `patching_oracle`)."""

import numpy as np
import pytest
import torch
from architectures import WITH_NORMS
from patching_oracle import assert_same, at_query, path_added, path_patched, random_model, random_tokens

from interp.model.heads import EMBED, MLP, Head, all_heads, head_set
from interp.model.hooked_transformer import hooked
from interp.patching.engine import predict_patched, record_run
from interp.patching.path_receivers import Receiver, all_receivers, parse_receivers
from interp.patching.paths import PathBundle, bundle_paths, parse_senders, path_activations, path_effects
from interp.patching.sites import stack_patches
from interp.statistics.effects import differs_from_zero
from training.checkpoints.checkpoint import load
from training.common.errors import UserError
from training.common.output import records
from training.tasks.prompts import Layout

SUBJECTS = {
    "few tokens": ((2, 2, 16, 3, 5), Layout()),
    "four layers": ((4, 2, 16, 2, 6), Layout()),
    "wide heads": ((2, 2, 64, 5, 20), Layout()),
    "told within": ((3, 2, 16, 3, 5), Layout(n_instruction=2, at=3)),
    "zoo:mixed-0": ((3, 8, 64, 4, 10), Layout()),
}


@pytest.fixture(params=[*SUBJECTS, *WITH_NORMS], scope="module")
def subject(request):
    """(model, its HookedTransformer, base tokens, source tokens)."""
    shape, layout = SUBJECTS.get(request.param, SUBJECTS["few tokens"])
    if request.param.startswith("zoo"):
        model = load(request.param).model
    else:
        model = random_model(*shape, layout, **WITH_NORMS.get(request.param, {}))
    return model, hooked(model), *random_tokens(model, shape[-1])


def sender_sets(model):
    """The read-in, a head, heads and MLPs of several layers, all of these with the read-in, the last MLP."""
    n_layers, n_heads = model.config.n_layers, model.config.n_heads
    across = head_set([Head(layer, layer % n_heads) for layer in range(n_layers)])
    mixed = head_set([Head(0, n_heads - 1), Head(0, MLP), Head(n_layers - 1, 0)])
    return [(EMBED,), (Head(0, 1),), across, mixed, (EMBED, *mixed), (Head(n_layers - 1, MLP),)]


def our_paths(model, base, source, bundle):
    """Predictions of the engine: everything, then each set of receivers."""
    run, found = record_run(model, base), []
    for job, given in zip(bundle.jobs, path_activations([bundle])(model, base, source), strict=True):
        patches = stack_patches(job, base.shape[1], model.config.n_heads, "cpu")
        found.append(predict_patched(model, run, patches, given))
    return torch.cat(found)


def few(receivers):
    """Every kind of input in every layer, of one head each."""
    return [one for one in receivers if one.input in ("mlp", "out") or one.number == (one.layer + 1) % 2]


def later(receivers, senders):
    return [receiver for receiver in receivers if receiver.reads_any(senders)]


@pytest.mark.sample(2)
def test_every_path_equals_the_two_passes_that_do_it(subject):
    model, twin, base, source = subject
    every = few(all_receivers(model.config.n_layers, model.config.n_heads))
    for senders in sender_sets(model):
        bundle = PathBundle(senders, [(one,) for one in later(every, senders)])
        assert bundle.receivers[-1][0].input == "out"
        ours = our_paths(model, base, source, bundle)[1:]
        for (receiver,), found in zip(bundle.receivers, ours, strict=True):
            assert_same(found, path_patched(twin, base, source, senders, receiver))


@pytest.mark.sample(2)
def test_receivers_together_equal_the_change_added_to_what_each_reads(subject):
    model, twin, base, source = subject
    n_layers, n_heads = model.config.n_layers, model.config.n_heads
    every, last = all_receivers(n_layers, n_heads), n_layers - 1
    sets = [
        (Receiver(last, 0, "q"), Receiver(last, 0, "k"), Receiver(last, 1, "v")),
        (Receiver(1, 1, "v"), Receiver(last, 0, "k"), Receiver(last, MLP, "mlp")),
        (Receiver(1, 0, "v"), Receiver(1, MLP, "mlp"), Receiver(n_layers, 0, "out")),
        tuple(one for one in every if one.layer >= 1),
    ]
    for senders in ((EMBED,), (Head(0, 1),), (Head(0, 0), Head(0, MLP))):
        ours = our_paths(model, base, source, PathBundle(senders, sets))[1:]
        for receivers, found in zip(sets, ours, strict=True):
            assert_same(found, path_added(twin, base, source, senders, receivers))


def test_both_ways_by_hand_are_the_same(subject):
    """The oracles agree with one another where both apply."""
    model, twin, base, source = subject
    senders = (Head(0, 1), Head(0, MLP))
    for receiver in later(few(all_receivers(model.config.n_layers, model.config.n_heads)), senders):
        added = path_added(twin, base, source, senders, [receiver])
        assert_same(added, path_patched(twin, base, source, senders, receiver))


@pytest.mark.sample(3)
def test_all_that_reads_a_component_is_its_whole_effect(subject):
    """Nothing but the inputs of later components carries what a component writes."""
    model, _, base, source = subject
    n_layers, n_heads = model.config.n_layers, model.config.n_heads
    every = all_receivers(n_layers, n_heads)
    for senders in ((EMBED,), (Head(0, 1),), (Head(1, MLP),), all_heads(1, n_heads)):
        whole, together = our_paths(model, base, source, PathBundle(senders, [tuple(later(every, senders))]))
        assert_same(together, whole)


def test_the_paths_of_everything_to_the_read_out_are_the_source_run(subject):
    """The final stream is the sum of what the read-in, the heads and the MLPs write."""
    model, twin, base, source = subject
    n_layers = model.config.n_layers
    everything = (EMBED, *all_heads(n_layers, model.config.n_heads), *(Head(layer, MLP) for layer in range(n_layers)))
    whole, out = our_paths(model, base, source, PathBundle(everything, [(Receiver(n_layers, 0, "out"),)]))
    wanted = at_query(twin, source, [])
    assert_same(out, wanted)
    assert_same(whole, wanted)  # all components give what they give in the source run


def test_the_read_in_through_everything_is_the_source_run(subject):
    model, twin, base, source = subject
    bundle = PathBundle((EMBED,), [(Receiver(model.config.n_layers, 0, "out"),)])
    assert_same(our_paths(model, base, source, bundle)[0], at_query(twin, source, []))


def test_what_the_last_mlp_writes_goes_to_the_read_out_alone(subject):
    model, _, base, source = subject
    last = model.config.n_layers - 1
    whole, out = our_paths(model, base, source, PathBundle((Head(last, MLP),), [(Receiver(last + 1, 0, "out"),)]))
    assert_same(out, whole)


def test_a_head_of_the_last_layer_goes_to_its_mlp_and_the_read_out(subject):
    model, _, base, source = subject
    last = model.config.n_layers - 1
    both = (Receiver(last, MLP, "mlp"), Receiver(last + 1, 0, "out"))
    whole, together, apart = our_paths(model, base, source, PathBundle((Head(last, 0),), [both, both[:1]]))
    assert_same(together, whole)
    assert (apart - whole).abs().max() > 1e-4 * whole.abs().max()


@pytest.mark.sample(2)
def test_senders_that_do_not_change_change_nothing(subject):
    """The same tokens on both sides; and a head whose W_O is 0, which writes nothing however its z may change."""
    model, _, base, source = subject
    every = [(one,) for one in few(all_receivers(model.config.n_layers, model.config.n_heads))]
    intact = record_run(model, base).prediction
    for senders in sender_sets(model):
        bundle = PathBundle(senders, [one for one in every if one[0].reads_any(senders)])
        for ours in our_paths(model, base, base, bundle):
            assert_same(ours, intact, 3e-6)
    weights = model.layers[0].attn.W_O
    kept = weights.clone()
    weights[0] = 0
    bundle = PathBundle((Head(0, 0),), [one for one in every if one[0].reads(Head(0, 0))])
    silent = our_paths(model, base, source, bundle)
    intact = record_run(model, base).prediction
    weights.copy_(kept)
    for ours in silent:
        assert_same(ours, intact, 3e-6)


def test_paths_act(subject):
    """Both sides could agree that nothing happens; every kind of receiver feels the read-in."""
    model, _, base, source = subject
    every = [(one,) for one in few(all_receivers(model.config.n_layers, model.config.n_heads))]
    intact = record_run(model, base).prediction
    moved = (our_paths(model, base, source, PathBundle((EMBED,), every))[1:] - intact).abs().amax(1)
    for kind in ("v", "mlp", "out"):
        assert (
            max(size for (one,), size in zip(every, moved, strict=True) if one.input == kind)
            > 1e-3 * intact.abs().max()
        )


@pytest.fixture(scope="module")
def trained():
    return load("zoo:mixed-0")


FIVE = [parse_receivers(text, 3, 8)[0] for text in ("1.2.k", "1.2.v", "0.mlp", "2.mlp,2.1", "out")]


@pytest.fixture(scope="module")
def found(trained):
    common = {"corrupt": "prompt", "direction": "noise", "examples": 4, "n_prompts": 40, "seed": 2}
    return path_effects(trained, [(Head(0, 1),), (Head(1, 2),)], FIVE, ["linear", "cubic"], **common)


@pytest.mark.slow
def test_a_row_per_class_sender_and_set_of_receivers(found):
    """The whole effect first; receivers before a sender are no path."""
    columns = ["function_class", "corrupt", "direction", "sender", "receiver", "effect", "ci_low", "ci_high"]
    columns += ["share", "share_low", "share_high", "nmse", "nmse_low", "nmse_high"]
    assert [*found.table.columns] == columns
    of_first = ["all", "1.2.k", "1.2.v", "0.mlp", "2.mlp,2.1.q,2.1.k,2.1.v", "out"]
    of_second = ["all", "2.mlp,2.1.q,2.1.k,2.1.v", "out"]
    keys = list(found.table[["function_class", "sender", "receiver"]].itertuples(index=False, name=None))
    assert keys == [
        (name, sender, receiver)
        for name in ("linear", "cubic")
        for sender, receivers in (("0.1", of_first), ("1.2", of_second))
        for receiver in receivers
    ]


def test_rows_are_the_predictions_of_the_oracle(trained, found):
    """From prompts to effect, share and nmse of a row, with nothing but HookedTransformer and the definitions."""
    from interp.patching.prompt_pairs import prompt_pairs

    twin, model = hooked(trained), trained.model
    for name in ("linear", "cubic"):
        pairs = prompt_pairs(trained.config, name, "prompt", n_prompts=40, seed=2, examples=4)
        base, source = (model.needed(side.tokens) for side in pairs)
        ends = [at_query(twin, tokens, []).double() for tokens in (base, source)]
        gap = ends[1] - ends[0]

        def effect(predicted, ends=ends, gap=gap):
            return (((predicted.double() - ends[0]) * gap).mean() / gap.square().mean()).item()

        for sender in (Head(0, 1), Head(1, 2)):
            rows = {
                row["receiver"]: row
                for row in records(
                    found.table.query(
                        "function_class == @name and sender == @s", local_dict={"name": name, "s": str(sender)}
                    )
                )
            }
            for receiver in (Receiver(1, 2, "k"), Receiver(1, 2, "v"), Receiver(0, MLP, "mlp"), Receiver(3, 0, "out")):
                if not receiver.reads(sender):
                    continue
                predicted = path_patched(twin, base, source, [sender], receiver)
                row = rows[str(receiver)]
                assert row["effect"] == pytest.approx(effect(predicted), abs=1e-4)
                if differs_from_zero(rows["all"]["ci_low"], rows["all"]["ci_high"]):
                    assert row["share"] == pytest.approx(row["effect"] / rows["all"]["effect"], rel=1e-9)
                else:
                    assert np.isnan(row["share"])
                error = (predicted - pairs.answer).square().double().mean().item() / trained.config.second_moment(name)
                assert row["nmse"] == pytest.approx(error, rel=1e-3)
            if differs_from_zero(rows["all"]["ci_low"], rows["all"]["ci_high"]):
                assert rows["all"]["share"] == rows["all"]["share_low"] == rows["all"]["share_high"] == 1


def test_intervals_contain_their_numbers(found):
    for row in records(found.table):
        for low, value, high in (("ci_low", "effect", "ci_high"), ("nmse_low", "nmse", "nmse_high")):
            assert row[low] - 1e-9 <= row[value] <= row[high] + 1e-9


def test_directions_swap_the_sides(trained):
    """Noise of the pair is denoise of the pair the other way round: only base and source change places."""
    receivers = [(Receiver(3, 0, "out"),)]
    noise, denoise = (
        path_effects(trained, [(EMBED,)], receivers, ["linear"], direction=one, n_prompts=20, examples=3)
        for one in ("noise", "denoise")
    )
    for found, reached in ((noise, "nmse_corrupt"), (denoise, "nmse_clean")):
        whole, out = records(found.table)
        assert (whole["effect"], whole["ci_low"], whole["ci_high"]) == pytest.approx((1, 1, 1), abs=1e-5)
        assert whole["nmse"] == pytest.approx(found.baseline_errors.iloc[0][reached], rel=1e-4)
        assert out["nmse"] != pytest.approx(whole["nmse"], rel=1e-3)


def test_a_sender_without_effect_has_no_shares(recwarn):
    """A head that writes nothing: 0 of 0 is no number, and no warning either."""
    silent = load("zoo:mixed-0")
    silent.model.layers[0].attn.W_O[3] = 0
    found = path_effects(silent, [(Head(0, 3),)], [(Receiver(3, 0, "out"),)], ["linear"], n_prompts=16, examples=3)
    assert found.table["effect"].tolist() == pytest.approx([0, 0], abs=1e-6)
    assert found.table[["share", "share_low", "share_high"]].isna().to_numpy().all()
    assert not [one for one in recwarn if issubclass(one.category, RuntimeWarning)]


def test_receivers_read_what_is_written_before_them():
    reads = {
        "1.0.q": ["embed", "0.0", "0.mlp"],
        "1.mlp": ["embed", "0.0", "0.mlp", "1.0"],
        "out": ["embed", "0.0", "0.mlp", "1.0", "1.mlp"],
        "0.0.v": ["embed"],
        "0.mlp": ["embed", "0.0"],
    }
    (receivers,) = parse_receivers(",".join(reads), 2, 1)
    senders = [EMBED, Head(0, 0), Head(0, MLP), Head(1, 0), Head(1, MLP)]
    for receiver in receivers:
        assert [str(sender) for sender in senders if receiver.reads(sender)] == reads[str(receiver)]


def test_names_of_receivers():
    def names(text):
        return [[str(one) for one in to] for to in parse_receivers(text, 2, 2)]

    assert names("each") == [
        [name]
        for layer in (0, 1)
        for name in [*(f"{layer}.{head}.{kind}" for head in (0, 1) for kind in "qkv"), f"{layer}.mlp"]
    ] + [["out"]]
    assert names("1.1, 0.mlp") == [["1.1.q", "1.1.k", "1.1.v", "0.mlp"]]
    assert names("out,1.0.k") == [["out", "1.0.k"]]


@pytest.mark.parametrize("wrong", ["2.0.q", "1.2", "1.0.z", "2.mlp", "1", "", "mlp", "1.0.q,", "all", "0.0.mlp"])
def test_inputs_that_do_not_exist_are_refused(wrong):
    with pytest.raises(UserError, match=r"there is no input '.*' \(valid: LAYER.HEAD.q, .*layers 0-1, heads 0-1\)"):
        parse_receivers(wrong, 2, 2)


def test_an_input_is_named_once():
    with pytest.raises(UserError, match="an input is named twice"):
        parse_receivers("1.0,1.0.k", 2, 2)


def test_names_of_senders():
    assert parse_senders("embed", 2, 2) == [(EMBED,)]
    assert parse_senders("0.1,0.mlp", 2, 2) == [(Head(0, MLP), Head(0, 1))]
    each = [str(one) for (one,) in parse_senders("each", 2, 2)]
    assert each == ["embed", "0.0", "0.1", "0.mlp", "1.0", "1.1", "1.mlp"]
    assert parse_senders("top:1", 2, 2, lambda: [[0.1, 0.2], [0.4, 0.3]]) == [(Head(1, 0),)]
    with pytest.raises(UserError, match=r"there is no head 2\.0"):
        parse_senders("2.0", 2, 2)


def test_no_path_is_no_answer(trained):
    with pytest.raises(UserError, match=r"no such path: nothing in receivers reads what 2\.mlp writes"):
        bundle_paths([(Head(2, MLP),)], parse_receivers("1.2", 3, 8))
    with pytest.raises(UserError, match="unknown direction 'sideways'"):
        path_effects(trained, [(EMBED,)], [(Receiver(3, 0, "out"),)], ["linear"], direction="sideways")


def test_nothing_in_the_results_depends_on_the_order_of_jobs(trained, found):
    """Each set of receivers on its own gives the row that it has among others."""
    common = {"corrupt": "prompt", "direction": "noise", "examples": 4, "n_prompts": 40, "seed": 2}
    for to in (FIVE[1], FIVE[3]):
        alone = records(path_effects(trained, [(Head(0, 1),)], [to], ["linear"], **common).table)[1]
        name = ",".join(map(str, to))
        (row,) = [
            one
            for one in records(found.table)
            if one["receiver"] == name and one["function_class"] == "linear" and one["sender"] == "0.1"
        ]
        for key in ("effect", "ci_low", "ci_high", "nmse"):
            np.testing.assert_allclose(alone[key], row[key], rtol=1e-4, atol=1e-6)

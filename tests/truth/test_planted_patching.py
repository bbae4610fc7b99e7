"""Patching and path patching find what was planted, with the numbers that follow from the circuit by hand.

`circuits.planted` predicts ŷ = x_q mean(c_i v_i): at the token y_i, head 0.1 copies c_i = x_i from the token x_i and
the first MLP multiplies by what that token itself says, v_i = y_i; head 1.2 averages over the y tokens into the query,
and the last MLP multiplies by x_q. So a patch decides, pair by pair, from which run c_i and v_i come:

    patched                              c_i       v_i
    0.1: z at y_i, v at x_i; attn_out    source    base
    resid_pre of layer 0 at x_i          source    base      it is what 0.1 copies
    resid_pre of layer 0 at y_i          base      source
    what follows the copy at y_i         source    source    resid_mid, mlp_out, resid_pre of layer 1, v of 1.2
    what follows the average at x_q      source    source    z of 1.2, attn_out, resid_mid, mlp_out, resid_post
    anything else                        base      base

Anything else: queries, keys and patterns, which are made of positions alone; the decoy 0.3, which attends like 0.1 but
writes nothing; tokens that nobody looks at. With other examples of another function (`prompt`) nothing is shared but
x_q; then E[effect] of the mixtures is 1/2, as x_i y'_i is independent of x_i y_i and of x'_i y'_i and has mean 0.

Models follow their formulas to 0.3 % (see `circuits`); the tolerance here is 1 % of the mean, 0.01 in effects.
"""

from typing import NamedTuple

import numpy as np
import pytest
from circuits import ERASER, WRITER

from interp.model.heads import EMBED, MLP, Head
from interp.patching.composition import composition
from interp.patching.maps import patch
from interp.patching.path_receivers import Receiver, all_receivers, parse_receivers
from interp.patching.paths import path_effects
from interp.patching.prompt_pairs import prompt_pairs
from training.common.output import records

N = 128
K = 5  # examples
COPY, DECOY, READER = Head(0, 1), Head(0, 3), Head(1, 2)
FIRST, LAST = Head(0, MLP), Head(1, MLP)
EVERY = np.ones(K, dtype=bool)
NONE = ~EVERY


class Sides(NamedTuple):
    """Examples of base and source, and what they are asked."""

    own: tuple[np.ndarray, np.ndarray]
    other: tuple[np.ndarray, np.ndarray]
    query: np.ndarray

    def predicted(self, copied=NONE, said=NONE):
        """ŷ when these examples' c_i and v_i come from the source."""
        c = np.where(copied, self.other[0], self.own[0])
        v = np.where(said, self.other[1], self.own[1])
        return self.query * (c * v).mean(1)

    def effect(self, predicted):
        base, source = self.predicted(), self.predicted(EVERY, EVERY)
        return ((predicted - base) * (source - base)).mean() / ((source - base) ** 2).mean()


def sides(checkpoint, corrupt, direction):
    pairs = prompt_pairs(checkpoint.config, "linear", corrupt, n_prompts=N, seed=0, examples=K)
    clean, other = ((side.xs[:, :-1, 0].double().numpy(), side.ys[:, :-1].double().numpy()) for side in pairs)
    query = pairs.clean.xs[:, -1, 0].double().numpy()
    return Sides(other, clean, query) if direction == "denoise" else Sides(clean, other, query)


@pytest.fixture(scope="module")
def question(planted):
    return asked(planted, "prompt", "denoise")


def asked(checkpoint, corrupt, direction):
    return checkpoint, {"corrupt": corrupt, "direction": direction}, sides(checkpoint, corrupt, direction)


def maps_of(question, site, **where):
    """By (head, or layer; token) the predictions and the row of a map."""
    checkpoint, how, _ = question
    found = patch(checkpoint, ["linear"], site=site, examples=K, n_prompts=N, **how, **where)
    rows = zip(found.outcomes["linear"].patched, records(found.table), strict=True)
    return {(row["heads"] or row["layer"], row["tokens"]): (predicted, row) for predicted, row in rows}


def check(found, question, copied=NONE, said=NONE):
    """Prompt by prompt, and in the effect."""
    predicted, row = found
    known = question[2]
    wanted = known.predicted(copied, said)
    assert np.abs(predicted - wanted).mean() < 0.01 * np.abs(known.predicted()).mean()
    assert row["effect"] == pytest.approx(known.effect(wanted), abs=0.01)


def one(pair):
    return np.arange(K) == pair


def by_token(copied_at="", said_at="", every_at=()):
    """For every token of a map (copied, said), given by the letter of the tokens that carry them."""
    tokens = {f"{letter}{i}": i for i in range(K + 1) for letter in "xy" if (letter, i) != ("y", K)}
    table = {}
    for name, i in tokens.items():
        every = name in every_at
        table[name] = (
            EVERY if every else one(i) & EVERY if name[0] in copied_at else NONE,
            EVERY if every else one(i) & EVERY if name[0] in said_at else NONE,
        )
    return table


QUERY = (f"x{K}",)
LAYERS = {
    ("resid_pre", 0): by_token(copied_at="x", said_at="y"),
    ("resid_mid", 0): by_token(copied_at="y", said_at="y"),
    ("resid_post", 0): by_token(copied_at="y", said_at="y"),
    ("attn_out", 0): by_token(copied_at="y"),
    ("mlp_out", 0): by_token(copied_at="y", said_at="y"),
    ("resid_pre", 1): by_token(copied_at="y", said_at="y"),
    ("resid_mid", 1): by_token(every_at=QUERY),
    ("resid_post", 1): by_token(every_at=QUERY),
    ("attn_out", 1): by_token(every_at=QUERY),
    ("mlp_out", 1): by_token(every_at=QUERY),
}


@pytest.mark.sample(1)
@pytest.mark.parametrize("site", ["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"])
def test_layers_by_tokens(question, site):
    found = maps_of(question, site)
    assert len(found) == 2 * (2 * K + 1)
    for (layer, token), of_place in found.items():
        check(of_place, question, *LAYERS[site, layer][token])


HEADS = {
    ("z", COPY): (EVERY, NONE),
    ("v", COPY): (EVERY, NONE),
    ("z", READER): (EVERY, EVERY),
    ("v", READER): (EVERY, EVERY),
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("site", ["z", "q", "k", "v", "pattern"])
def test_heads(question, site):
    """All 10 heads; those that have no part, and every head's queries, keys and pattern, move nothing."""
    check_heads(question, site)


@pytest.mark.parametrize("site", ["z", "v"])
def test_another_function_of_the_same_inputs(planted, site):
    """The copy is the same, so c_i is; the reader carries everything."""
    question = asked(planted, "function", "noise")
    known = question[2]
    assert known.effect(known.predicted(EVERY, NONE)) == pytest.approx(0)
    assert known.effect(known.predicted(NONE, EVERY)) == pytest.approx(1)
    check_heads(question, site)


def check_heads(question, site):
    found = maps_of(question, site)
    for layer in range(2):
        for number in range(5):
            head = Head(layer, number)
            check(found[str(head), "all"], question, *HEADS.get((site, head), (NONE, NONE)))


def test_the_decoy_differs_and_does_nothing(question):
    """It reads other values, so the patch acts, and nothing comes of it."""
    for site in ("z", "v"):
        _, row = maps_of(question, site, heads=str(DECOY))[str(DECOY), "all"]
        assert row["changed"]
        assert row["effect"] == pytest.approx(0, abs=1e-6)


HEADS_BY_TOKEN = {
    ("z", COPY): by_token(copied_at="y"),
    ("v", COPY): by_token(copied_at="x"),
    ("z", READER): by_token(every_at=QUERY),
    ("v", READER): by_token(copied_at="y", said_at="y"),
}


@pytest.mark.sample(2)
@pytest.mark.parametrize(("site", "head"), list(HEADS_BY_TOKEN))
def test_heads_by_tokens(question, site, head):
    for (_, token), found in maps_of(question, site, heads=str(head), tokens="each").items():
        check(found, question, *HEADS_BY_TOKEN[site, head][token])


def test_copies_of_some_pairs_are_as_many_as_there_are(planted):
    question = asked(planted, "prompt", "noise")
    for at, pairs in (("y:1-2", [1, 2]), ("y:0", [0]), ("y", range(K)), ("x", [])):
        (found,) = maps_of(question, "z", heads="0.1", tokens=at).values()
        check(found, question, np.isin(np.arange(K), list(pairs)))


def test_half_the_way_is_what_the_copy_carries_of_other_prompts(planted):
    (row,) = records(patch(planted, ["linear"], corrupt="prompt", heads="0.1", n_prompts=1024, examples=K).table)
    assert row["effect"] == pytest.approx(0.5, abs=0.06)
    assert row["ci_low"] - 0.005 <= 0.5 <= row["ci_high"] + 0.005


def test_the_same_function_of_other_inputs_shows_in_errors(planted):
    """`inputs`: c_i and v_i belong together, so a copy from elsewhere leaves x_q mean(x_i w x'_i), which knows little.

    Its error is E(mean(x_i x'_i) - 1)² = 1 + 1/k, against E(mean(x_i²) - 1)² = 2/k of both runs.
    """
    found = patch(planted, ["linear"], corrupt="inputs", heads="0.1", n_prompts=1024, examples=K)
    (row,), (end,) = records(found.table), records(found.baseline_errors)
    assert end["nmse_clean"] == pytest.approx(2 / K, abs=0.1)
    assert end["nmse_corrupt"] == pytest.approx(2 / K, abs=0.1)
    assert row["nmse"] == pytest.approx(1 + 1 / K, abs=0.2)


def paths_of(question, senders, receivers):
    """By receiver, the row of a path."""
    checkpoint, how, _ = question
    found = path_effects(checkpoint, [senders], receivers, ["linear"], examples=K, n_prompts=N, **how)
    return {row["receiver"]: row for row in records(found.table)}


WAYS = {
    # what the sender changes, and all that reads it
    COPY: ((EVERY, NONE), "0.mlp"),
    FIRST: ((EVERY, EVERY), "1.2.v"),
    READER: ((EVERY, EVERY), "1.mlp"),
    LAST: ((EVERY, EVERY), "out"),
}


@pytest.mark.sample(1)
@pytest.mark.parametrize("sender", list(WAYS), ids=str)
def test_each_component_is_read_by_the_next_alone(question, sender):
    """0.1 -> 0.mlp -> 1.2.v -> 1.mlp -> out carry everything, all other paths nothing."""
    known = question[2]
    rows = paths_of(question, (sender,), [(to,) for to in all_receivers(2, 5) if to.reads(sender)])
    (copied, said), reader = WAYS[sender]
    whole = known.effect(known.predicted(copied, said))
    assert rows["all"]["effect"] == pytest.approx(whole, abs=0.01)
    for receiver, row in rows.items():
        carries = receiver in ("all", reader)
        assert row["effect"] == pytest.approx(whole if carries else 0, abs=0.01), receiver
        if abs(whole) > 0.1:
            assert row["share"] == pytest.approx(1 if carries else 0, abs=0.01), receiver
            assert row["share_low"] - 1e-6 <= row["share"] <= row["share_high"] + 1e-6


def test_the_read_in_goes_to_the_copy_and_to_the_product(question):
    """x_i through 0.1 and y_i through the MLP that multiplies: apart each is a mixture, together they are the run."""
    known = question[2]
    texts = ["0.1.v", "0.mlp", "0.1.v,0.mlp", "0.1.q", "0.1.k", "0.3", "1.2", "1.mlp", "out"]
    rows = paths_of(question, (EMBED,), [parse_receivers(text, 2, 5)[0] for text in texts])
    whole, copied, said, both, *others = rows.values()
    assert whole["effect"] == pytest.approx(1, abs=1e-5)
    assert copied["effect"] == pytest.approx(known.effect(known.predicted(EVERY, NONE)), abs=0.01)
    assert said["effect"] == pytest.approx(known.effect(known.predicted(NONE, EVERY)), abs=0.01)
    assert both["effect"] == pytest.approx(1, abs=0.01)
    assert [row["effect"] for row in others] == pytest.approx([0] * 6, abs=0.01)


def test_the_decoy_sends_nothing(question):
    rows = paths_of(question, (DECOY,), [(Receiver(0, MLP, "mlp"),), (Receiver(2, 0, "out"),)])
    assert [row["effect"] for row in rows.values()] == pytest.approx([0] * 3, abs=1e-6)
    assert all(np.isnan(row["share"]) for row in rows.values())


def test_the_sentence_names_the_planted_path_and_none_of_the_decoy(question):
    checkpoint, how, known = question
    receivers = [(to,) for to in all_receivers(2, 5) if to.reads(COPY)]
    found = path_effects(checkpoint, [(COPY,), (DECOY,)], receivers, ["linear"], examples=K, n_prompts=N, **how)
    of_copy, of_decoy = found.sentences()
    assert "what 0.3 writes in the other run is not shown to take the prediction 0.01 of the way" in of_decoy
    if abs(known.effect(known.predicted(EVERY, NONE))) > 0.1:
        assert "; the path to 0.mlp alone " in of_copy
        assert "next" not in of_copy


def test_senders_together_write_together(question):
    """What 0.1 and 0.mlp change is what 0.mlp changes: the source's product stands, whatever was copied."""
    known = question[2]
    rows = paths_of(question, (FIRST, COPY), [(Receiver(1, 2, "v"),), (Receiver(1, MLP, "mlp"),)])
    assert [row["effect"] for row in rows.values()] == pytest.approx([1, 1, 0], abs=0.01)
    assert known.effect(known.predicted(EVERY, EVERY)) == pytest.approx(1)


@pytest.mark.slow
def test_self_repair_is_two_paths_that_oppose_each_other(self_repairing):
    """The read-out is 2 (ŷ - ŷ/2): WRITER's ŷ less the half that ERASER takes of what it reads.

    Straight to the read-out, another ŷ' gives 2 (ŷ' - ŷ/2): from ŷ to 2 ŷ' - ŷ, twice the way. Through ERASER's values,
    2 (ŷ - ŷ'/2) = 2 ŷ - ŷ': the whole way backwards. Together, and by whatever reads it, ŷ'.
    """
    texts = ["3.1.v", "out", "3.1.v,out", "3.1.q", "3.1.k", "2.mlp", "3.mlp"]
    receivers = [parse_receivers(text, 4, 5)[0] for text in texts]
    found = path_effects(self_repairing, [(WRITER,), (ERASER,)], receivers, ["linear"], n_prompts=64, examples=8)
    writer, eraser = (
        {row["receiver"]: row for row in records(found.table) if row["sender"] == str(one)} for one in (WRITER, ERASER)
    )
    wanted = {"all": 1, "3.1.v": -1, "out": 2, "3.1.v,out": 1, "3.1.q": 0, "3.1.k": 0, "2.mlp": 0, "3.mlp": 0}
    assert {name: row["effect"] for name, row in writer.items()} == pytest.approx(wanted, abs=0.02)
    assert {name: row["effect"] for name, row in eraser.items()} == pytest.approx(
        {"all": -1, "out": -1, "3.mlp": 0}, abs=0.02
    )
    assert [writer[name]["share"] for name in ("3.1.v", "out")] == pytest.approx([-1, 2], abs=0.02)


def test_weights_alone_say_what_eraser_reads(self_repairing):
    """WRITER writes O as (+, -), ERASER reads its + alone: a score of cos 45° up to centring, all other inputs 0."""
    found = {row["receiver"]: row for row in records(composition(self_repairing, (WRITER,)).table)}
    assert found["3.1.v"]["score"] == pytest.approx(0.5**0.5, rel=0.02)
    assert found["3.1.v"]["p_value"] == 0.01
    assert found["3.1.v"]["chance"] < 0.2
    assert [row["score"] for name, row in found.items() if name != "3.1.v"] == pytest.approx([0] * 14, abs=1e-6)

"""Composition scores against the formula written out, on pairs made to compose, and on pairs that do not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from interp.model.heads import Head
from interp.patching.composition import composition, rotations
from interp.patching.figures import channel_grid
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import UserError
from training.config.config import ModelConfig
from training.config.parse import from_preset
from training.model.transformer import Transformer

CONFIG = from_preset("tiny", "mixed", 0)
FIRST = (Head(0, 0),)


def checkpoint_of(seed=0, n_layers=2, n_heads=2, d_model=16):
    shape = ModelConfig(n_layers, n_heads, d_model, n_dims=2, n_ctx=32, init_std=0.3)
    model = Transformer(shape, torch.Generator().manual_seed(seed)).requires_grad_(False)
    for block in model.layers:
        block.ln1.get_parameter("w").normal_(1, 0.3, generator=torch.Generator().manual_seed(seed + 1))
    return Checkpoint("random", Path("random"), replace(CONFIG, model=shape), 0, model)


def scores_of(checkpoint, senders=None, **more):
    found = composition(checkpoint, senders, **more).table
    return {(row["sender"], row["receiver"]): row for row in found.to_dict("records")}


def by_hand(model, sender, receiver):
    """The docstring's formula; C takes away the mean, as LayerNorm does, and W is read through LayerNorm's gain."""
    d_model = model.config.d_model
    centre = np.eye(d_model) - 1 / d_model

    def read(head, name):
        block = model.layers[head.layer]
        return centre @ (block.ln1.w[:, None] * getattr(block.attn, name)[head.number]).double().numpy()

    def written(head):
        return read(head, "W_V") @ model.layers[head.layer].attn.W_O[head.number].double().numpy() @ centre

    q, k = read(receiver, "W_Q"), read(receiver, "W_K")
    norm = np.linalg.norm
    return {
        kind: norm(written(sender) @ into) / (norm(written(sender)) * norm(into))
        for kind, into in (("q", q @ k.T), ("k", k @ q.T), ("v", written(receiver)))
    }


def test_scores_are_the_formula():
    checkpoint = checkpoint_of(n_layers=3)
    found = scores_of(checkpoint, n_rotations=3)
    heads = [Head(layer, number) for layer in range(3) for number in range(2)]
    pairs = [(one, other) for one in heads for other in heads if other.layer > one.layer]
    assert list(found) == [(str(one), f"{other}.{kind}") for one, other in pairs for kind in "qkv"]
    for one, other in pairs:
        for kind, wanted in by_hand(checkpoint.model, one, other).items():
            assert found[str(one), f"{other}.{kind}"]["score"] == pytest.approx(wanted, rel=1e-9)


def test_only_the_senders_that_are_asked_for():
    assert {sender for sender, _ in scores_of(checkpoint_of(), FIRST, n_rotations=3)} == {"0.0"}


@pytest.mark.parametrize(
    "senders", ["0.0, L1H1", (Head(1, 1), Head(0, 0)), ["0.0", "1.1"], [(Head(0, 0),), (Head(1, 1),)]]
)
def test_senders_are_named_in_every_way(senders):
    checkpoint = checkpoint_of(n_layers=3)
    table = composition(checkpoint, senders, n_rotations=3).table
    assert table["sender"].unique().tolist() == ["0.0", "1.1"]
    assert table.equals(composition(checkpoint, (Head(0, 0), Head(1, 1)), n_rotations=3).table)


@pytest.mark.parametrize(
    ("senders", "message"),
    [
        ("2.0", "there is no head 2.0; this model has layers 0-1 with heads 0-1"),
        ("0.x", "'0.x' is not a head"),
        ("1.0", "no head comes after 1.0: this model's last layer is 1"),
        ("0.mlp", "0.mlp is an MLP, which has no weights of attention"),
        ((), "no heads are given"),
    ],
)
def test_what_cannot_send_is_one_line(senders, message):
    with pytest.raises(UserError) as error:
        composition(checkpoint_of(), senders, n_rotations=3)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("n_layers", "n_heads", "shape"), [(2, 1, (1, 1)), (3, 2, (4, 4)), (4, 8, (24, 24))])
def test_a_panel_has_score_minus_chance_of_senders_by_receivers(n_layers, n_heads, shape):
    result = composition(checkpoint_of(n_layers=n_layers, n_heads=n_heads), n_rotations=2)
    values = {(row["sender"], row["receiver"]): row["score"] - row["chance"] for row in result.table.to_dict("records")}
    axes = result.plot()
    assert [ax.get_title() for ax in axes] == ["read as Q", "read as K", "read as V"]
    for ax, channel in zip(axes, "qkv", strict=True):
        grid = channel_grid(result.table, channel)
        assert grid.shape == ax.images[0].get_array().shape == shape
        for sender in grid.index:
            for receiver in grid.columns:
                drawn = grid.loc[sender, receiver]
                if int(receiver.split(".")[0]) > int(sender.split(".")[0]):
                    assert drawn == values[sender, f"{receiver}.{channel}"]
                else:
                    assert np.isnan(drawn)
        assert ax.images[0].get_clim() == axes[0].images[0].get_clim()
        n_numbers = int(np.isfinite(grid.to_numpy()).sum()) if grid.size <= 60 else 0
        assert len(ax.texts) == n_numbers
    assert ("grey" in axes[0].figure.get_suptitle()) == (n_layers > 2)


def test_receivers_are_in_the_order_of_their_numbers():
    table = composition(checkpoint_of(n_heads=12, d_model=24), FIRST, n_rotations=1).table
    assert channel_grid(table, "q").columns.tolist() == [f"1.{number}" for number in range(12)]


def test_the_table_and_the_sentence_name_the_input_furthest_above_chance(tmp_path):
    checkpoint = checkpoint_of()
    aligned(checkpoint, "W_K", 1)
    result = composition(checkpoint, FIRST)
    (table,), (sentence,) = result.tables(), result.sentences()
    assert table.rows[0][0] == "0.0 to 1.0.k"
    n_above = (result.table["p_value"] == 0.01).sum()
    assert sentence.startswith(
        f"{n_above} of 6 inputs score above all 99 rotations, where about 0.06 would by chance; "
    )
    assert "furthest above chance is 0.0 to 1.0.k (1.00, chance " in sentence
    result.write(tmp_path)
    assert len(pd.read_csv(tmp_path / "composition.csv")) == 6


def aligned(checkpoint, weight, rank):
    """What head 0.0 writes along `rank` directions is what head 1.0 reads by this weight."""
    first, second = checkpoint.model.layers
    d_head = first.attn.W_O.shape[1]
    basis = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(9)))[0]
    mean = torch.full((16, 1), 0.25)
    directions = torch.linalg.qr(torch.cat((mean, basis), dim=1))[0][:, 1 : d_head + 1].clone()  # no mean in them
    directions[:, rank:] = 0
    first.attn.W_O[0] = directions.T
    second.ln1.w.fill_(1)
    getattr(second.attn, weight)[0] = directions
    for name, one in (("W_V", first), ("W_Q", second), ("W_K", second)):
        if name != weight:
            getattr(one.attn, name)[0] = torch.linalg.qr(
                torch.randn(16, 8, generator=torch.Generator().manual_seed(5))
            )[0]
    second.attn.W_O[0] = torch.linalg.qr(torch.randn(16, 8, generator=torch.Generator().manual_seed(6)))[0].T


@pytest.mark.parametrize(("weight", "kind"), [("W_Q", "q"), ("W_K", "k"), ("W_V", "v")])
def test_heads_made_to_compose_do(weight, kind):
    """One direction: 1, the largest that there is. Eight of eight: 1/sqrt(8) each way, since norms grow with rank."""
    for rank, score in ((1, 1.0), (8, 8**-0.5)):
        checkpoint = checkpoint_of()
        aligned(checkpoint, weight, rank)
        found = scores_of(checkpoint, FIRST)
        row = found["0.0", f"1.0.{kind}"]
        assert row["score"] == pytest.approx(score, rel=0.1)
        assert row["score"] > 1.2 * row["chance"]
        assert row["p_value"] == 0.01
        if rank == 1:
            assert max(found, key=lambda key: found[key]["score"]) == ("0.0", f"1.0.{kind}")


def test_scale_does_not_matter():
    checkpoint, before = checkpoint_of(), scores_of(checkpoint_of())
    for factor, name in ((3.0, "W_V"), (0.2, "W_O"), (7.0, "W_Q"), (0.1, "W_K")):
        for block in checkpoint.model.layers:
            getattr(block.attn, name).mul_(factor)
    for key, row in scores_of(checkpoint).items():
        for column in ("score", "chance", "p_value"):
            assert row[column] == pytest.approx(before[key][column], rel=1e-5)


def test_gains_belong_to_the_weights_and_means_to_nobody():
    """LayerNorm's gain moved into the weights that read, and what LayerNorm takes away, change nothing."""
    checkpoint, before = checkpoint_of(), scores_of(checkpoint_of())
    for block in checkpoint.model.layers:
        for name in ("W_Q", "W_K", "W_V"):
            getattr(block.attn, name).mul_(block.ln1.gain[:, None])
        block.ln1.get_parameter("w").fill_(1)
        block.ln1.get_parameter("b").fill_(2)
        block.attn.W_O.add_(0.7)  # every head writes more of the constant vector
        block.attn.W_V.add_(0.3)  # and every value reads more of it
    for key, row in scores_of(checkpoint).items():
        assert row["score"] == pytest.approx(before[key]["score"], rel=1e-4)


@pytest.mark.slow
def test_heads_at_random_compose_by_chance():
    """p-values of 240 unrelated pairs, from 19 rotations each: 1/20, 2/20, ... equally often; chance is on target."""
    rows = {"q": [], "k": [], "v": []}
    for seed in range(240):
        checkpoint = checkpoint_of(seed, n_heads=1, d_model=6)
        for (_, receiver), row in scores_of(checkpoint, n_rotations=19, seed=seed).items():
            rows[receiver[-1]].append(row)
    for kind, found in rows.items():
        p_values = np.array([row["p_value"] for row in found])
        assert p_values.mean() == pytest.approx(0.525, abs=0.065), kind
        for level in (0.05, 0.1, 0.25, 0.5):
            error = 3.5 * (level * (1 - level) / 240) ** 0.5
            assert np.mean(p_values <= level + 1e-9) == pytest.approx(level, abs=error), kind
        difference = [row["score"] - row["chance"] for row in found]
        assert abs(np.mean(difference)) < 4 * np.std(difference) / 240**0.5


def test_a_head_that_writes_nothing_composes_with_nobody():
    checkpoint = checkpoint_of()
    checkpoint.model.layers[0].attn.W_O[0] = 0
    for row in scores_of(checkpoint, FIRST).values():
        assert (row["score"], row["chance"], row["p_value"]) == (0, 0, 1)


def test_rotations_are_uniform_and_repeat():
    """Orthogonal; every entry has mean 0 and variance 1/n, and mirror images are as frequent as turns."""
    first, again = (rotations(5, 4000, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, again)
    torch.testing.assert_close(first @ first.mT, torch.eye(5).double().expand_as(first))
    assert first.mean(0).abs().max() < 4 * (1 / 5 / 4000) ** 0.5
    assert (first.square().mean(0) - 1 / 5).abs().max() < 0.02
    assert abs(first.det().mean()) < 4 / 4000**0.5


def test_the_seed_draws_the_rotations():
    checkpoint = checkpoint_of()
    first, again, other = (scores_of(checkpoint, FIRST, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert all(first[key]["score"] == other[key]["score"] for key in first)
    assert all(first[key]["chance"] != other[key]["chance"] for key in first)

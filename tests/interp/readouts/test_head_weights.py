"""Eigenvalues of QK and OV circuits against numpy's of the whole matrices, TransformerLens', and heads made to copy."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from interp.model.hooked_transformer import hooked
from interp.readouts.head_weights import head_weights
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import UserError
from training.config.config import ModelConfig
from training.config.parse import from_preset
from training.model.transformer import Transformer

CONFIG = from_preset("tiny", "mixed", 0)
D_MODEL, D_HEAD = 16, 4


def checkpoint_of(seed=0, norm: Any = "layer", n_layers=2, n_heads=4):
    shape = ModelConfig(n_layers, n_heads, D_MODEL, n_dims=2, n_ctx=32, init_std=0.3, norm=norm)
    model = Transformer(shape, torch.Generator().manual_seed(seed)).requires_grad_(False)
    if norm != "none":
        for block in model.layers:
            block.ln1.get_parameter("w").normal_(1, 0.3, generator=torch.Generator().manual_seed(seed + 1))
    return Checkpoint("random", Path("random"), replace(CONFIG, model=shape), 0, model)


def eigenvalues_of(result, layer, head, circuit):
    rows = result.eigenvalues.query(f"layer == {layer} and head == {head} and circuit == '{circuit}'")
    return (rows["real"] + 1j * rows["imaginary"]).to_numpy()


def whole_matrices(model, layer, head):
    """W_OV and W_QK [d_model d_model], with LayerNorm's gain and, where it takes the mean away, its centring."""
    block, attn = model.layers[layer], model.layers[layer].attn
    centre = np.eye(D_MODEL) - block.ln1.n_removed / D_MODEL
    q, k, v = (centre @ (block.ln1.gain[:, None] * w[head]).double().numpy() for w in (attn.W_Q, attn.W_K, attn.W_V))
    return {"OV": v @ attn.W_O[head].double().numpy() @ centre, "QK": q @ k.T}


@pytest.mark.parametrize("norm", ["layer", "rms", "none"])
def test_eigenvalues_scores_and_norms_are_those_of_the_whole_matrices(norm):
    checkpoint = checkpoint_of(norm=norm)
    result = head_weights(checkpoint, n_rotations=1)
    for row in result.table.to_dict("records"):
        for circuit, whole in whole_matrices(checkpoint.model, row["layer"], row["head"]).items():
            given = eigenvalues_of(result, row["layer"], row["head"], circuit)
            wanted = np.linalg.eigvals(whole)
            largest = wanted[np.argsort(-abs(wanted))]
            assert abs(largest[D_HEAD:]).max() < 1e-6
            np.testing.assert_allclose(np.sort_complex(given), np.sort_complex(largest[:D_HEAD]), atol=1e-6)
            assert (np.diff(abs(given)) < 1e-8).all()
            score = row["copying_score" if circuit == "OV" else "matching_score"]
            assert score == pytest.approx(np.trace(whole) / abs(wanted).sum(), abs=1e-6)
            assert row[f"{circuit.lower()}_norm"] == pytest.approx(np.linalg.norm(whole), rel=1e-6)


def test_eigenvalues_are_those_of_transformer_lens(random_checkpoint):
    """TransformerLens does not fold LayerNorm in: here its gain is 1, and there is no mean for it to take away."""
    for block in random_checkpoint.model.layers:
        for name in ("W_O", "W_K"):
            weight, dim = getattr(block.attn, name), 2 if name == "W_O" else 1
            weight.sub_(weight.mean(dim, keepdim=True))
    result, model = head_weights(random_checkpoint, n_rotations=1), hooked(random_checkpoint)
    for circuit in ("OV", "QK"):
        theirs = getattr(model, circuit).eigenvalues.detach().numpy()
        for layer, head in np.ndindex(*theirs.shape[:2]):
            ours = eigenvalues_of(result, layer, head, circuit)
            np.testing.assert_allclose(
                np.sort_complex(ours.round(5)), np.sort_complex(theirs[layer, head].astype(complex).round(5)), atol=2e-4
            )


def subspace(seed):
    """Orthonormal directions [d_model d_head] without a mean, which LayerNorm would take away."""
    mean = torch.full((D_MODEL, 1), D_MODEL**-0.5)
    directions = torch.randn(D_MODEL, D_MODEL, generator=torch.Generator().manual_seed(seed))
    return torch.linalg.qr(torch.cat((mean, directions), dim=1)).Q[:, 1 : D_HEAD + 1]


@pytest.mark.parametrize(("sign", "score"), [(1, 1.0), (-1, -1.0)])
def test_a_head_that_copies_a_subspace_has_score_one_and_its_negative_minus_one(sign, score):
    checkpoint, basis = checkpoint_of(), subspace(3)
    block = checkpoint.model.layers[1]
    block.ln1.get_parameter("w").fill_(1)
    block.attn.W_V[2], block.attn.W_O[2] = basis, sign * basis.T
    block.attn.W_Q[2], block.attn.W_K[2] = basis, sign * basis
    result = head_weights(checkpoint, "1.2")
    (row,) = result.table.to_dict("records")
    assert [row["copying_score"], row["matching_score"]] == pytest.approx([score, score], abs=1e-6)
    assert [row["copying_p"], row["matching_p"]] == [0.02, 0.02]
    assert [row["ov_norm"], row["qk_norm"]] == pytest.approx([2, 2], rel=1e-6)
    np.testing.assert_allclose(eigenvalues_of(result, 1, 2, "OV"), sign * np.ones(D_HEAD), atol=1e-6)


def test_a_random_rotation_copies_about_nothing_and_is_not_distinguished_from_one():
    """240 heads that write what they read in random other directions: scores average 0, p-values are uniform."""
    rows = []
    for seed in range(30):
        checkpoint = checkpoint_of(seed)
        for block in checkpoint.model.layers:
            block.ln1.get_parameter("w").fill_(1)
            for head in range(4):
                block.attn.W_V[head] = subspace(1000 * seed + head)
                block.attn.W_O[head] = subspace(1000 * seed + 500 + head).T
        rows.append(head_weights(checkpoint, "layer:0", n_rotations=39, seed=seed).table)
    scores, p_values = (pd.concat(rows)[column].to_numpy() for column in ("copying_score", "copying_p"))
    assert abs(scores.mean()) < 4 * scores.std() / len(scores) ** 0.5
    assert scores.std() > 0.1
    for level in (0.1, 0.5):
        error = 3.5 * (level * (1 - level) / len(p_values)) ** 0.5
        assert np.mean(p_values <= level + 1e-9) == pytest.approx(level, abs=error)


def test_a_head_that_writes_nothing_has_no_score():
    checkpoint = checkpoint_of()
    checkpoint.model.layers[0].attn.W_O[1] = 0
    (row,) = head_weights(checkpoint, "0.1", n_rotations=3).table.to_dict("records")
    assert np.isnan([row["copying_score"], row["copying_p"]]).all()
    assert row["ov_norm"] == 0
    result = head_weights(checkpoint, "0.1", n_rotations=3)
    assert result.tables()[0].rows[0][:3] == ["0.1", "-", "-"]
    assert len(result.plot_eigenvalues()) == 2


def test_gains_belong_to_the_weights_and_means_to_nobody():
    checkpoint, before = checkpoint_of(), head_weights(checkpoint_of(), n_rotations=5).table
    for block in checkpoint.model.layers:
        for name in ("W_Q", "W_K", "W_V"):
            getattr(block.attn, name).mul_(block.ln1.gain[:, None])
        block.ln1.get_parameter("w").fill_(1)
        block.attn.W_O.add_(0.7)
        block.attn.W_V.add_(0.3)
    pd.testing.assert_frame_equal(head_weights(checkpoint, n_rotations=5).table, before, rtol=1e-4, atol=1e-5)


def test_heads_are_chosen_and_mistakes_are_one_line():
    checkpoint = checkpoint_of()
    chosen = head_weights(checkpoint, "L0H1,1.2", n_rotations=1).table
    assert list(zip(chosen["layer"], chosen["head"], strict=True)) == [(0, 1), (1, 2)]
    for heads, message in (("0.9", "there is no head 0.9"), ("1.mlp", "1.mlp is an MLP"), ([], "no heads are given")):
        with pytest.raises(UserError, match=message):
            head_weights(checkpoint, heads)


def test_figures_have_the_scores_and_the_eigenvalues(tmp_path):
    whole = head_weights(checkpoint_of(), n_rotations=3)
    copying, matching = whole.plot()
    for ax, score in ((copying, "copying_score"), (matching, "matching_score")):
        np.testing.assert_array_equal(ax.images[0].get_array(), whole.table[score].to_numpy().reshape(2, 4))
    assert len(whole.maps()) == 2
    some = head_weights(checkpoint_of(), "0.1,1.2", n_rotations=3)
    assert [bar.get_width() for bar in some.plot()[0].patches] == some.table["copying_score"].tolist()
    assert some.maps() == []
    axes = some.plot_eigenvalues()
    assert len(axes) == 4
    drawn = axes[0].lines[-1]
    np.testing.assert_array_equal(drawn.get_xdata() + 1j * drawn.get_ydata(), eigenvalues_of(some, 0, 1, "OV"))
    many = head_weights(checkpoint_of(n_layers=3), n_rotations=1)
    assert len(many.plot_eigenvalues()) == 16
    some.write(tmp_path)
    assert len(pd.read_csv(tmp_path / "head_weights.csv")) == 2
    assert len(pd.read_csv(tmp_path / "head_eigenvalues.csv")) == 2 * 2 * D_HEAD

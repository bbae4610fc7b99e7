import pytest
import torch
from torch import nn

from training.config.parse import from_preset
from training.loop.muon import Muon, as_matrix, as_parameter, orthogonal
from training.loop.state import new_state
from training.loop.trainer import train


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 16, 64), (2, 64, 16)])
def test_orthogonal_keeps_directions_and_brings_singular_values_near_one(shape, dtype, generator):
    matrices = torch.randn(*shape, generator=generator)
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    made = orthogonal(matrices, dtype)
    assert made.dtype == torch.float32
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.3
    assert values.max() < 1.3
    aligned = u.mT @ made @ v.mT
    off_diagonal = aligned - torch.diag_embed(aligned.diagonal(dim1=-2, dim2=-1))
    assert off_diagonal.abs().max() < (0.02 if dtype == torch.float32 else 0.04)
    assert (made - orthogonal(matrices)).norm() < 0.05 * made.norm()


def test_steps_are_those_of_torchs_muon(generator):
    """torch's takes 2-D parameters only and orthogonalises in bfloat16: agreement within its rounding."""
    start = torch.randn(16, 48, generator=generator)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    muon = Muon({"blocks.0.mlp.W_in": ours}, momentum=0.9, weight_decay=0.1)
    reference = torch.optim.Muon([theirs], lr=0.02, momentum=0.9, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(10):
        gradient = torch.randn(start.shape, generator=generator)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        muon.step(0.02)
        reference.step()
    moved = (theirs - start).norm()
    assert moved > 0.5
    assert (ours - theirs).norm() < 0.02 * moved


@pytest.mark.parametrize(("leaf", "shape"), [("W_Q", (4, 16, 3)), ("W_O", (4, 3, 16)), ("W_in", (16, 64))])
def test_a_matrix_acts_as_its_parameter_does(leaf, shape, generator):
    parameter = torch.randn(*shape, generator=generator)
    matrix = as_matrix(leaf, parameter)
    assert torch.equal(as_parameter(leaf, matrix, parameter.shape), parameter)
    if leaf == "W_Q":
        resid = torch.randn(16, generator=generator)
        per_head = torch.einsum("m,hmd->hd", resid, parameter)
        torch.testing.assert_close((resid @ matrix).view(4, 3), per_head)
    if leaf == "W_O":
        z = torch.randn(4, 3, generator=generator)
        torch.testing.assert_close(z.flatten() @ matrix, torch.einsum("hd,hdm->m", z, parameter))


def test_every_parameter_is_updated_once(quick_settings):
    config = from_preset("tiny", "mixed", 0, quick_settings[1::2], recipe="fast")
    state = new_state(config, "cpu")
    assert state.optimizer.muon is not None
    beside = [p for group in state.optimizer.inner.param_groups for p in group["params"]]
    covered = [id(p) for p in (*beside, *state.optimizer.muon.parameters.values())]
    assert sorted(covered) == sorted(id(p) for p in state.model.parameters())


@pytest.mark.slow
def test_a_muon_run_resumes_bit_for_bit(quick_settings, tmp_path, train_until):
    config = from_preset("tiny", "mixed", 0, quick_settings[1::2], recipe="fast")
    train(config, tmp_path / "whole")
    train_until(config, tmp_path / "cut", 30)
    assert train(config, tmp_path / "cut", resume=True) == 30
    assert (tmp_path / "cut" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()


def test_a_recipe_replaces_what_it_says_and_nothing_else():
    plain, fast = from_preset("tiny", "mixed", 0), from_preset("tiny", "mixed", 0, recipe="fast")
    assert fast.recipe.optimizer == "muon"
    assert (fast.recipe.steps, fast.recipe.threads) == (plain.recipe.steps, plain.recipe.threads)
    assert (fast.data, fast.seeds, fast.record) == (plain.data, plain.seeds, plain.record)
    authors = from_preset("paper", "mixed", 0)
    assert (authors.recipe.optimizer, authors.recipe.lr, authors.recipe.loss) == ("adam", 1e-4, "raw")
    assert (authors.model.init_std, authors.model.read_init) == (0.02, "linear")

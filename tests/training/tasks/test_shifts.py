import pytest
import torch

from training.common.errors import UserError
from training.config.parse import from_preset
from training.sampling import sample_prompts, shifted_queries
from training.tasks.shifts import SHIFTS, check_shift

CONFIG = from_preset("tiny", "mixed", 0)
N = 300
QUERY_SHIFTS = ("random_quadrants", "orthogonal_query", "repeated_query", "beyond:2")


def prompts(shift, name="linear"):
    return sample_prompts(CONFIG, name, torch.Generator().manual_seed(4), N, shift=shift)


def queries(shift, name="linear"):
    return shifted_queries(CONFIG, name, torch.Generator().manual_seed(4), N, shift=shift)


def test_no_shift_is_the_plain_draw():
    plain = sample_prompts(CONFIG, "cubic", torch.Generator().manual_seed(4), N)
    assert torch.equal(prompts("none", "cubic").ys, plain.ys)
    for k, asked in queries("none", "cubic").items():
        assert torch.equal(asked.xs, plain.xs[:, : k + 1])
        torch.testing.assert_close(asked.ys, plain.ys[:, : k + 1])


def test_scaling_x_or_w_scales_a_linear_y():
    plain = prompts("none")
    torch.testing.assert_close(prompts("scale_x:3").xs, 3 * plain.xs)
    torch.testing.assert_close(prompts("scale_x:3").ys, 3 * plain.ys)
    assert torch.equal(prompts("scale_w:0.5").xs, plain.xs)
    torch.testing.assert_close(prompts("scale_w:0.5").ys, plain.ys / 2)


def test_noise_has_the_stated_deviation_and_leaves_x_alone():
    noisy, plain = prompts("noise:0.7"), prompts("none")
    assert torch.equal(noisy.xs, plain.xs)
    assert (noisy.ys - plain.ys).std().item() == pytest.approx(0.7, rel=0.05)


def test_a_half_subspace_has_half_the_dimensions_of_each_prompt_and_keeps_lengths_on_average():
    xs = prompts("half_subspace").xs
    assert (torch.linalg.matrix_rank(xs, rtol=1e-4) == 2).all()
    assert xs.square().sum(-1).mean().item() == pytest.approx(4, rel=0.05)
    assert torch.linalg.matrix_rank(xs.flatten(0, 1)) == 4


def test_examples_in_one_quadrant_queries_anywhere():
    asked = queries("random_quadrants")[15]
    signs = asked.xs[:, :-1].sign()
    assert (signs == signs[:, :1]).all()
    leaves = (asked.xs[:, -1].sign() != signs[:, 0]).any(-1).float().mean().item()
    assert leaves == pytest.approx(15 / 16, abs=0.06)


def test_an_orthogonal_query_is_orthogonal_keeps_its_length_and_exists_before_d_examples():
    plain = prompts("none")
    asked = queries("orthogonal_query")
    assert list(asked) == [0, 1, 2, 3]
    for k, of_k in asked.items():
        inner = (of_k.xs[:, :-1] * of_k.xs[:, -1:]).sum(-1)
        assert not len(inner.flatten()) or inner.abs().max() < 1e-4
        torch.testing.assert_close(of_k.xs[:, -1].norm(dim=1), plain.xs[:, k].norm(dim=1), rtol=1e-4, atol=1e-4)


def test_a_repeated_query_has_its_examples_answer():
    asked = queries("repeated_query")
    assert list(asked) == list(range(1, 16))
    for of_k in asked.values():
        same = (of_k.xs[:, :-1] == of_k.xs[:, -1:]).all(-1)
        assert (same.sum(1) == 1).all()
        torch.testing.assert_close(of_k.ys[:, :-1][same], of_k.ys[:, -1])


def test_only_the_query_goes_beyond():
    plain = prompts("none")
    for k, of_k in queries("beyond:2").items():
        assert torch.equal(of_k.xs[:, :-1], plain.xs[:, :k])
        torch.testing.assert_close(of_k.xs[:, -1], 2 * plain.xs[:, k])
        torch.testing.assert_close(of_k.ys[:, -1], 2 * plain.ys[:, k])


@pytest.mark.parametrize("shift", QUERY_SHIFTS)
def test_query_shifts_ask_the_same_function(shift):
    """Recover w from the examples: the shifted answer is w·x too."""
    asked = queries(shift)
    k = max(asked)
    xs, ys = asked[k].xs.double(), asked[k].ys.double()
    w = torch.linalg.lstsq(prompts("none").xs.double(), prompts("none").ys.double()[..., None]).solution
    torch.testing.assert_close((xs @ w).squeeze(-1), ys, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("shift", "name", "message"),
    [
        ("tilt", "linear", r"unknown shift 'tilt' \(valid: none, scale_x"),
        ("scale_x", "linear", "needs its factor"),
        ("scale_w:2", "decision_tree", "whose weights have no scale"),
        ("scale_x:2", "markov_chain", "not a function of x"),
        ("noise:-1", "linear", "must be at least 0"),
        ("half_subspace:2", "linear", "takes no parameter"),
    ],
)
def test_a_shift_that_means_nothing_is_refused(shift, name, message):
    with pytest.raises(UserError, match=message):
        check_shift(shift, name)


def test_every_shift_applies_to_linear():
    for name in SHIFTS:
        check_shift(f"{name}:2" if name in ("scale_x", "scale_w", "noise") else name, "linear")

"""Every corruption does what its definition says, to the prompt and to nothing else."""

import pytest
import torch

from interp.names import CORRUPTION_NAMES
from interp.patching.prompt_pairs import CORRUPTIONS, parse_corruption, prompt_pairs
from training.checkpoints.checkpoint import load
from training.common.errors import UserError
from training.config.parse import from_preset
from training.evaluation.evaluate import evaluation_prompts

N = 40
EVERY = ["function", "inputs", "prompt", "class", "permuted", "pair", "pair:0", "noise"]


@pytest.fixture(scope="module")
def config():
    return load("zoo:mixed-0").config


def made(config, corruption, name="linear", n_prompts=N, seed=0, examples=None):
    return prompt_pairs(config, name, corruption, n_prompts=n_prompts, seed=seed, examples=examples)


def weights_of(xs, ys):
    """The w of noise-free linear examples, more of them than dims."""
    return torch.linalg.lstsq(xs, ys[..., None]).solution[..., 0]


def same(ones, others):
    """By prompt, whether the last axes are the same."""
    return (ones == others).flatten(1).all(1)


@pytest.mark.parametrize("corruption", EVERY)
@pytest.mark.parametrize("examples", [None, 6])
def test_both_sides_end_in_the_same_query(config, corruption, examples):
    pairs = made(config, corruption, examples=examples)
    k = examples or 15
    assert pairs.n_examples == k
    assert pairs.clean.xs.shape == pairs.corrupt.xs.shape == (N, k + 1, 4)
    assert torch.equal(pairs.clean.xs[:, -1], pairs.corrupt.xs[:, -1])
    assert torch.equal(pairs.answer, pairs.clean.ys[:, -1])
    test = evaluation_prompts(config, "linear", n_prompts=N, seed=0)
    assert torch.equal(pairs.clean.xs, test.xs[:, : k + 1])
    assert torch.equal(pairs.clean.ys, test.ys[:, : k + 1])
    evidence = torch.cat((pairs.clean.xs[:, :-1], pairs.clean.ys[:, :-1, None]), dim=2)
    other = torch.cat((pairs.corrupt.xs[:, :-1], pairs.corrupt.ys[:, :-1, None]), dim=2)
    assert not same(evidence, other).any(), "a corrupt prompt has the evidence of its clean partner"


@pytest.mark.parametrize("corruption", EVERY)
def test_a_seed_determines_everything(config, corruption):
    first, again, other = (made(config, corruption, seed=seed) for seed in (0, 0, 1))
    for ours, repeated, changed in zip(first, again, other, strict=True):
        assert torch.equal(ours.tokens, repeated.tokens)
        assert not torch.equal(ours.tokens, changed.tokens)


def test_function_keeps_every_x_and_takes_one_other_function(config):
    clean, corrupt = made(config, "function")
    assert torch.equal(clean.xs, corrupt.xs)
    w, other = weights_of(clean.xs, clean.ys), weights_of(corrupt.xs, corrupt.ys)
    assert ((w - other).norm(dim=1) > 0.1).all()
    residual = (corrupt.xs * other[:, None]).sum(-1) - corrupt.ys
    assert residual.abs().max() < 1e-4  # one function behind all of the corrupt ys, that of the query too


def test_class_keeps_every_x_and_takes_the_next_class(config):
    assert config.evaluated_classes == ("linear", "quadratic", "cubic")
    for name, following in (("linear", "quadratic"), ("quadratic", "cubic"), ("cubic", "linear")):
        clean, corrupt = made(config, "class", name)
        wanted = evaluation_prompts(config, following, n_prompts=N, seed=0)
        assert torch.equal(clean.xs, corrupt.xs)
        assert torch.equal(corrupt.ys, wanted.ys)


def test_inputs_keeps_the_function_and_the_query_alone(config):
    clean, corrupt = made(config, "inputs")
    assert not (clean.xs[:, :-1] == corrupt.xs[:, :-1]).all(-1).any()
    torch.testing.assert_close(
        weights_of(clean.xs[:, :-1], clean.ys[:, :-1]),
        weights_of(corrupt.xs[:, :-1], corrupt.ys[:, :-1]),
        rtol=1e-3,
        atol=1e-3,
    )
    assert torch.equal(clean.ys[:, -1], corrupt.ys[:, -1])  # so both runs have the same answer


def test_prompt_keeps_the_query_alone(config):
    clean, corrupt = made(config, "prompt")
    assert not (clean.xs[:, :-1] == corrupt.xs[:, :-1]).all(-1).any()
    w, other = (weights_of(side.xs[:, :-1], side.ys[:, :-1]) for side in (clean, corrupt))
    assert ((w - other).norm(dim=1) > 0.1).all()
    examples = evaluation_prompts(config, "linear", n_prompts=N, seed=0, stream="reference")
    assert torch.equal(corrupt.xs[:, :-1], examples.xs[:, :-1])
    assert torch.equal(corrupt.ys[:, :-1], examples.ys[:, :-1])


@pytest.mark.parametrize("examples", [2, 3, 15])
def test_permuted_moves_every_y_and_loses_none(config, examples):
    clean, corrupt = made(config, "permuted", n_prompts=200, examples=examples)
    assert torch.equal(clean.xs, corrupt.xs)
    assert torch.equal(clean.ys[:, -1], corrupt.ys[:, -1])
    known, moved = clean.ys[:, :-1], corrupt.ys[:, :-1]
    assert not (known == moved).any(), "a y stayed beside its x"
    assert torch.equal(known.sort(dim=1).values, moved.sort(dim=1).values)


def test_permuted_prefers_no_place(config):
    """Over many prompts every y goes to every other place equally often: 1 / (k - 1)."""
    clean, corrupt = made(config, "permuted", n_prompts=6000, examples=4)
    moved_to = (corrupt.ys[:, None, :4] == clean.ys[:, :4, None]).double().mean(0)  # from, to
    assert moved_to.diagonal().tolist() == [0] * 4
    off = moved_to[~torch.eye(4, dtype=torch.bool)]
    assert (off - 1 / 3).abs().max() < 4 * (2 / 9 / 6000) ** 0.5


@pytest.mark.parametrize(("corruption", "place"), [("pair", 14), ("pair:14", 14), ("pair:0", 0), ("pair:7", 7)])
def test_pair_changes_one_example_and_no_other(config, corruption, place):
    clean, corrupt = made(config, corruption)
    others = [i for i in range(16) if i != place]
    assert torch.equal(clean.xs[:, others], corrupt.xs[:, others])
    assert torch.equal(clean.ys[:, others], corrupt.ys[:, others])
    examples = evaluation_prompts(config, "linear", n_prompts=N, seed=0, stream="reference")
    assert torch.equal(corrupt.xs[:, place], examples.xs[:, place])
    assert torch.equal(corrupt.ys[:, place], examples.ys[:, place])


def test_noise_has_the_mean_and_variance_of_y_at_its_place_and_knows_nothing_of_it(config):
    """Cubic ys are no normal numbers (kurtosis far above 3), the noise is; each of 5 places has its own moments."""
    n = 6000
    clean, corrupt = made(config, "noise", "cubic", n_prompts=n, examples=5)
    assert torch.equal(clean.xs, corrupt.xs)
    assert torch.equal(clean.ys[:, -1], corrupt.ys[:, -1])
    known, drawn = clean.ys[:, :-1].double(), corrupt.ys[:, :-1].double()
    std = known.std(0)
    assert ((drawn.mean(0) - known.mean(0)).abs() < 4 * std / n**0.5).all()
    assert ((drawn.std(0) / std - 1).abs() < 4 / (2 * n) ** 0.5).all()
    normal, centred = (drawn - drawn.mean(0)) / drawn.std(0), (known - known.mean(0)) / std
    assert (normal.pow(4).mean(0) - 3).abs().max() < 4 * (24 / n) ** 0.5 < centred.pow(4).mean(0).min() - 3
    assert (normal * centred).mean(0).abs().max() < 4 / n**0.5


def test_instructions_tell_the_class_that_the_examples_are_of():
    settings = ["instruction.kind=one_hot", "model.n_ctx=33", "model.init_std=0.3"]
    config = from_preset("tiny", "mixed", 0, settings)
    for corruption in EVERY:
        clean, corrupt = made(config, corruption, "linear")
        assert clean.instruction is not None
        assert corrupt.instruction is not None
        told = {tuple(one.flatten().tolist()) for one in corrupt.instruction}
        assert len(told) == 1
        assert torch.equal(clean.instruction, corrupt.instruction) == (corruption != "class")
    wanted = evaluation_prompts(config, "quadratic", n_prompts=N, seed=0).instruction
    assert wanted is not None
    corrupt = made(config, "class", "linear").corrupt
    assert torch.equal(corrupt.instruction, wanted)  # type: ignore[arg-type]


def test_names_for_the_help_are_those_that_there_are():
    assert [name.partition(":")[0] for name in CORRUPTION_NAMES] == [*CORRUPTIONS]
    assert [name for name in CORRUPTION_NAMES if ":" in name] == [
        f"{name}:J" for name, one in CORRUPTIONS.items() if one.takes_argument
    ]
    assert parse_corruption("pair")[1] is None


@pytest.mark.parametrize(
    ("name", "corruption", "message"),
    [
        ("linear", "swap", r"unknown corrupt 'swap' \(valid: function, inputs, prompt, class, permuted, pair, noise"),
        ("linear", "", "unknown corrupt ''"),
        ("linear", "pair:", "only pair:J takes an argument"),
        ("linear", "pair:-1", "only pair:J takes an argument"),
        ("linear", "pair:15", "these prompts have examples 0-14"),
        ("linear", "class:2", "only pair:J takes an argument"),
        ("associative_recall", "inputs", r"not a function of x .*\(valid: permuted, pair:J, noise\)"),
        ("prototypes", "prompt", r"not a function of x .*\(valid: permuted, pair:J, noise\)"),
        ("prototypes", "function", r"in prototypes it changes the query too \(valid: permuted, pair:J, noise\)"),
    ],
)
def test_what_cannot_be_corrupted_is_refused(config, name, corruption, message):
    with pytest.raises(UserError, match=message):
        made(config, corruption, name)


@pytest.mark.parametrize("name", ["associative_recall", "prototypes", "markov_chain"])
@pytest.mark.parametrize("corruption", ["permuted", "pair:1", "noise"])
def test_what_is_called_valid_for_every_class_is(config, name, corruption):
    pairs = made(config, corruption, name)
    assert torch.equal(pairs.clean.xs[:, -1], pairs.corrupt.xs[:, -1])


def test_a_run_of_one_class_has_no_other():
    config = from_preset("tiny", "single:linear", 0, ["data.classes=linear"])
    with pytest.raises(UserError, match=r"corrupt class needs a second function class \(this run has only linear\)"):
        made(config, "class")
    assert torch.equal(
        made(config, "class", "quadratic").corrupt.ys, evaluation_prompts(config, "linear", n_prompts=N, seed=0).ys
    )


@pytest.mark.parametrize("name", ["linear", "sparse_parity", "decision_tree", "relu_network"])
@pytest.mark.parametrize("corruption", ["function", "inputs", "prompt"])
def test_functions_of_x_allow_every_corruption(config, name, corruption):
    pairs = made(config, corruption, name)
    assert torch.equal(pairs.clean.xs[:, -1], pairs.corrupt.xs[:, -1])

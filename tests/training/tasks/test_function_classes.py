import math

import pytest
import torch

from training.checkpoints.checkpoint import load
from training.common.errors import UserError
from training.common.output import records
from training.common.table_rows import where
from training.config.parse import from_preset
from training.evaluation.convergence import convergence
from training.evaluation.evaluate import error_curves
from training.loop.trainer import train
from training.tasks.function_classes import FAMILIES, FunctionOfX, function_class
from training.tasks.function_classes.base import SingleIndex
from training.tasks.function_classes.sequences import MarkovChain
from training.tasks.inputs import Gaussian
from training.tasks.prompts import Prompts
from training.tasks.second_moments import mean_scale, no_context_moment, robust_scale, second_moment, simulated

HERMITE = ("linear", "quadratic", "cubic", "quartic")
SPECS = [*FAMILIES, "sparse_linear:1", "noisy_linear:0", "leaky_relu:-1", "sinusoid:2.5", "relu_network:3",
         "decision_tree:1", "sparse_parity:3", "conjunction:1", "associative_recall:1", "prototypes:0.3",
         "markov_chain:7"]  # fmt: skip
OF_X = [spec for spec in SPECS if isinstance(function_class(spec), FunctionOfX)]
KINDS = ("standard", "unit")


def of_x(spec: str) -> FunctionOfX:
    drawn = function_class(spec)
    assert isinstance(drawn, FunctionOfX)
    return drawn


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("linear", lambda t: t),
        ("quadratic", lambda t: (t + (t**2 - 1) / math.sqrt(2)) / math.sqrt(2)),
        ("cubic", lambda t: (t + (t**2 - 1) / math.sqrt(2) + (t**3 - 3 * t) / math.sqrt(6)) / math.sqrt(3)),
        (
            "quartic",
            lambda t: (t + (t**2 - 1) / 2**0.5 + (t**3 - 3 * t) / 6**0.5 + (t**4 - 6 * t**2 + 3) / 24**0.5) / 2,
        ),
        ("leaky_relu:0.3", lambda t: torch.maximum(t, 0.3 * t)),
        ("sinusoid:2", lambda t: math.sqrt(2) * torch.sin(2 * t)),
        ("linear_classification", torch.sign),
    ],
)
def test_single_index_classes_are_their_formulas(name, formula, generator):
    xs, w = torch.randn(5, 7, 20, generator=generator), torch.randn(5, 20, generator=generator)
    t = torch.einsum("bpd,bd->bp", xs, w)
    torch.testing.assert_close(of_x(name).evaluate(xs, w), formula(t), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "moment"), [("linear", 20), ("quadratic", 330.25), ("cubic", 8933.095)])
def test_second_moment_at_20_dims_is_the_papers(name, moment):
    assert function_class(name).second_moment(20, "standard") == pytest.approx(moment, rel=1e-6)


@pytest.mark.sample(18)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SPECS)
def test_second_moment_is_the_average_of_many_draws(name, kind):
    drawn = mean_scale(simulated(function_class(name), Gaussian(), 4, kind, 0)["zero"])
    exact = function_class(name).second_moment(4, kind)
    assert abs(drawn.value - exact) <= 5 * drawn.error + 1e-9
    assert drawn.error < 0.1 * exact


def test_unit_weights_make_every_hermite_class_of_unit_scale():
    assert [function_class(name).second_moment(7, "unit") for name in HERMITE] == pytest.approx([1, 1, 1, 1])


@pytest.mark.sample(18)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OF_X)
def test_no_context_optimum_is_the_mean_of_y_given_x(name, kind, generator):
    n, x = 200_000, torch.tensor([0.6, -1.1, 0.4, 1.3])
    drawn = function_class(name)
    w = drawn.sample_weights(generator, n, 4, kind)
    _, ys = drawn.pairs(x.expand(n, 1, 4), w, generator)
    standard_error = ys.double().std().item() / math.sqrt(n)
    given = drawn.no_context(x[None, None], kind).item()
    assert abs(ys.double().mean().item() - given) < 5 * standard_error + 1e-6


def test_no_context_optima_are_the_papers_closed_forms(generator):
    xs = torch.randn(3, 5, 20, generator=generator)
    square = xs.square().sum(-1)
    for name, wanted in (
        ("linear", 0 * square),
        ("quadratic", (square - 1) / 2),
        ("cubic", (square - 1) / math.sqrt(6)),
    ):
        torch.testing.assert_close(function_class(name).no_context(xs, "standard"), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["associative_recall", "prototypes", "markov_chain"])
def test_the_first_y_of_a_sequence_task_has_mean_zero_whatever_x(name, generator):
    drawn = function_class(name)
    weights = drawn.sample_weights(generator, 100_000, 4, "unit")
    xs, ys = drawn.pairs(torch.randn(100_000, 3, 4, generator=generator), weights, generator)
    for feature in (torch.ones_like(ys[:, 0]), xs[:, 0, 0], xs[:, 0, 1].square()):
        products = (feature * ys[:, 0]).double()
        assert abs(products.mean().item()) < 5 * products.std().item() / math.sqrt(len(products))


@pytest.mark.sample(6)
@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind != "unit")) for kind in KINDS])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_own_baseline_learns_from_the_examples(name, kind, generator):
    drawn = function_class(name)
    weights = drawn.sample_weights(generator, 60, 4, kind)
    prompts = Prompts(*drawn.pairs(torch.randn(60, 64, 4, generator=generator), weights, generator))
    own = drawn.baseline(kind)
    error = (own.predict(prompts) - prompts.ys).square()
    without = (drawn.no_context(prompts.xs, kind) - prompts.ys).square()
    assert error[:, -8:].mean() < 0.9 * without[:, -8:].mean(), own.name


def test_sparse_weights_have_that_many_nonzero_coordinates(generator):
    w = function_class("sparse_linear:2").sample_weights(generator, 1000, 5, "unit")
    assert ((w != 0).sum(1) == 2).all()
    assert ((w != 0).float().mean(0) - 2 / 5).abs().max() < 0.08


@pytest.mark.parametrize("n_used", [2, 3, 5, 20])
def test_sparse_weights_are_among_the_dimensions_in_use(generator, n_used):
    """At 5 of 20 dimensions E[y²] is 3, as in the code of Garg et al., and no prompt has y = 0 throughout."""
    w = function_class("sparse_linear:3").sample_weights_within(generator, 4000, 20, "standard", n_used)
    assert ((w != 0).sum(1) == min(3, n_used)).all()
    assert (w[:, n_used:] == 0).all()
    assert ((w[:, :n_used] != 0).float().mean(0) - min(3, n_used) / n_used).abs().max() < 0.05
    xs = torch.randn(4000, 8, 20, generator=generator)
    xs[..., n_used:] = 0
    ys = of_x("sparse_linear:3").evaluate(xs, w)
    assert ys.square().mean() == pytest.approx(min(3, n_used), rel=0.1)
    assert (ys != 0).any(1).all()


def test_a_tree_asks_coordinates_and_answers_with_leaves():
    tree = of_x("decision_tree:2")
    asked, leaves = torch.tensor([[0, 1, 2]]), torch.tensor([[10.0, 20.0, 30.0, 40.0]])
    xs = torch.tensor([[[-1.0, -1.0, 9.0], [-1.0, 1.0, -9.0], [1.0, 1.0, -1.0], [1.0, -1.0, 1.0]]])
    assert tree.evaluate(xs, (asked, leaves)).tolist() == [[10.0, 20.0, 30.0, 40.0]]


def test_boolean_classes_on_points_computed_by_hand():
    xs = torch.tensor([[[1.0, -2.0, 3.0], [-1.0, -2.0, 3.0], [1.0, 2.0, -3.0]]])
    members = torch.tensor([[0, 1]])
    assert of_x("sparse_parity:2").evaluate(xs, members).tolist() == [[-1.0, 1.0, 1.0]]
    wanted = torch.tensor([[1.0, -1.0]])
    assert of_x("conjunction:2").evaluate(xs, (members, wanted)).tolist() == [[1.0, -1.0, -1.0]]


def test_recall_asks_only_keys_and_every_key_keeps_its_value(generator):
    recall = function_class("associative_recall:3")
    raw, values = torch.randn(50, 12, 4, generator=generator), recall.sample_weights(generator, 50, 4, "unit")
    xs, ys = recall.pairs(raw, values, generator)
    for prompt in range(50):
        for x, y in zip(xs[prompt], ys[prompt], strict=True):
            (key,) = [k for k in range(3) if torch.equal(x, raw[prompt, k])]
            assert y == values[prompt, key]


def test_markov_chain_follows_its_matrix(generator):
    chain = MarkovChain(3)
    matrix = torch.tensor([[0.7, 0.2, 0.1], [0.0, 0.5, 0.5], [0.3, 0.3, 0.4]])
    xs, ys = chain.pairs(torch.zeros(4000, 20, 4), matrix.expand(4000, 3, 3), generator)
    distances = (xs[:, :, None] - chain.embeddings(4)).norm(dim=-1)
    symbols, following = distances.argmin(-1), (ys[..., None] - chain.values()).abs().argmin(-1)
    assert distances.min(-1).values.max() < 1e-6
    assert torch.equal(symbols[:, 1:], following[:, :-1])
    for symbol in range(3):
        rows = following[symbols == symbol]
        assert (torch.bincount(rows, minlength=3) / len(rows) - matrix[symbol]).abs().max() < 0.02


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sine", r"unknown function class 'sine' \(valid: linear, quadratic, cubic, quartic, sparse_linear"),
        ("linear:2", "'linear:2': linear takes no parameter"),
        ("sparse_linear:x", "nonzero has to be a whole number"),
        ("sparse_linear:1.5", "nonzero has to be a whole number"),
        ("sparse_linear:0", "sparse_linear:0: must be at least 1"),
        ("sinusoid:0", "must be above 0"),
        ("noisy_linear:nan", "noise has to be a number"),
        ("linear_classification:2", "takes no parameter"),
    ],
)
def test_what_is_no_class_is_refused(spec, message):
    with pytest.raises(UserError, match=message):
        function_class(spec)


def test_scales_say_how_they_were_found():
    assert second_moment("cubic", "gaussian", 4, "unit", 0).how == "exact"
    uniform = second_moment("linear", "uniform", 4, "standard", 0)
    assert uniform.how == "estimated"
    assert abs(uniform.value - 4) < 5 * uniform.error
    heavy = second_moment("linear", "student_t:4", 4, "standard", 0)  # E[x²] = df / (df - 2) = 2 per coordinate
    assert heavy.how == "estimated"
    assert abs(heavy.value - 8) < 5 * heavy.error


@pytest.mark.parametrize(
    ("name", "inputs"), [("cubic", "student_t:4"), ("linear", "cauchy"), ("linear", "student_t:2")]
)
def test_where_the_mean_square_is_infinite_the_scale_is_robust(name, inputs):
    assert second_moment(name, inputs, 4, "unit", 0).how == "robust"


def test_the_robust_scale_of_a_normal_is_its_variance():
    values = 3 * torch.randn(100_000, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scale = robust_scale(values.square())
    assert abs(scale.value - 9) < 5 * scale.error


class Doubled(SingleIndex):
    """y = 2 w·x."""

    growth = 1

    def link(self, t):
        return 2 * t

    def second_moment(self, n_dims, kind):
        return 4.0 * (n_dims if kind == "standard" else 1)


class Halved(Doubled):
    """y = w·x / 2."""

    def link(self, t):
        return t / 2

    def second_moment(self, n_dims, kind):
        return super().second_moment(n_dims, kind) / 16


def test_an_entry_in_the_registry_is_enough_to_train_load_and_evaluate(tmp_path, monkeypatch, quick_settings):
    monkeypatch.setitem(FAMILIES, "doubled", Doubled)
    settings = ["data.classes=doubled,linear", *quick_settings[1::2]]
    train(from_preset("tiny", "single:doubled", 0, settings), tmp_path, progress=False)
    curves = error_curves(load(tmp_path), ["doubled"], n_prompts=1024, seed=0)
    last = {row["predictor"]: row["error"] for row in records(where(curves, examples=15))}
    assert last["least_squares"] < 1e-6
    assert last["zero"] == pytest.approx(1, abs=0.2)  # the unit is that of the class
    assert last["zero"] == last["no_context"] != last["model"]
    assert convergence(tmp_path)["function_class"].tolist() == ["doubled", "linear"]


def test_another_class_under_the_same_name_has_a_scale_of_its_own(monkeypatch):
    """A notebook's cell is edited and run again: NMSE must not be in the unit of what stood there before."""
    scales = {}
    for drawn in (Doubled, Halved):
        monkeypatch.setitem(FAMILIES, "edited", drawn)
        scales[drawn] = [
            moment("edited", inputs, 4, "unit", 0).value
            for moment in (second_moment, no_context_moment)
            for inputs in ("gaussian", "uniform")
        ]
    assert scales[Doubled] == pytest.approx([16 * value for value in scales[Halved]])

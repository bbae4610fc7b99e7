"""The hand-written circuits compute what they should, and every removal does what their docstrings say.

In two steps, so that neither hides behind sampling error: the models agree prompt by prompt with formulas, and the
formulas have the known effects on many more prompts than the models see.

How far the models are from their formulas, and why, is told in `circuits`.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import NamedTuple

import pytest
import torch
from circuits import (
    CLIP,
    COPIES,
    ERASER,
    EXAMPLES,
    SELF_REPAIRING,
    SPREAD,
    WRITER,
    redundant_effect,
    self_repairing_effect,
)
from jaxtyping import Float
from torch import Tensor

from interp.model.heads import Head, HeadSet
from training.checkpoints.checkpoint import Checkpoint
from training.evaluation.evaluate import evaluation_prompts
from training.model.sites import Edit, Edits, site_names
from training.tasks.prompts import Prompts, last_quarter

MODES = ("zero", "mean", "resample")
QUICK_MODES = ("zero", *(pytest.param(mode, marks=pytest.mark.slow) for mode in MODES[1:]))
TAIL = last_quarter(16)
GROUP = 512  # prompts that share a mean; the models see one such group
TOTALS = {"writer": (WRITER,), "eraser": (ERASER,), "both": (WRITER, ERASER)}
SETS_OF_COPIES = [(), COPIES[:1], COPIES[1:], COPIES]

Predictions = Float[Tensor, "batch point"]
"""At the last quarter of the points."""


class Run(NamedTuple):
    """A model on test prompts, and all that it computes on them and on other prompts of the class."""

    checkpoint: Checkpoint
    prompts: Prompts
    others: Prompts
    own: Mapping[str, Tensor]
    other: Mapping[str, Tensor]

    def predict(self, edits: Edits | None = None) -> Predictions:
        return self.checkpoint.model(self.prompts.tokens, edits)[:, ::2][:, TAIL]

    def without(self, heads: HeadSet, mode: str) -> dict[str, Edit]:
        """The edits of z that remove heads."""

        def remove(site: str) -> Edit:
            numbers = [head.number for head in heads if z_of(head) == site]

            def edit(z: Tensor) -> Tensor:
                z = z.clone()
                z[:, :, numbers] = replacement(self.other[site], mode)[:, :, numbers]
                return z

            return edit

        return {site: remove(site) for site in map(z_of, heads)}

    def without_direct(self, head: Head, mode: str) -> dict[str, Edit]:
        """The edit that exchanges what a head wrote in the last residual stream, and nowhere before."""
        model, site = self.checkpoint.model, z_of(head)
        change = (replacement(self.other[site], mode) - self.own[site])[:, :, head.number]
        written = change @ model.layers[head.layer].attn.W_O[head.number]
        return {f"blocks.{len(model.layers) - 1}.hook_resid_post": lambda resid: resid + written}

    def as_intact(self, *sites: str) -> dict[str, Edit]:
        """The edits that put back what these sites hold in the intact run."""

        def put_back(site: str) -> Edit:
            return lambda _: self.own[site]

        return {site: put_back(site) for site in sites}


def z_of(head: Head) -> str:
    return f"blocks.{head.layer}.attn.hook_z"


def replacement(activation: Tensor, mode: str) -> Tensor:
    """What a mode makes of an activation on other prompts."""
    if mode == "resample":
        return activation
    mean = activation.mean(0, keepdim=True).expand_as(activation)
    return mean if mode == "mean" else torch.zeros_like(activation)


def record(checkpoint: Checkpoint, prompts: Prompts) -> dict[str, Tensor]:
    """z and LayerNorm's scale, wherever there is one."""
    seen: dict[str, Tensor] = {}

    def keep(site: str) -> Edit:
        return lambda activation: seen.setdefault(site, activation)

    sites = site_names(checkpoint.config.model.n_layers)
    checkpoint.model(prompts.tokens, {site: keep(site) for site in sites if site.endswith(("hook_z", "hook_scale"))})
    return seen


def groups_of_prompts(checkpoint: Checkpoint, n_groups: int) -> Iterator[tuple[Prompts, Prompts]]:
    """Test prompts and others, `GROUP` at a time."""
    streams = [
        evaluation_prompts(checkpoint.config, "linear", n_prompts=n_groups * GROUP, seed=0, stream=stream)
        for stream in ("test", "reference")
    ]
    for start in range(0, n_groups * GROUP, GROUP):
        rows = slice(start, start + GROUP)
        test, reference = (prompts._replace(xs=prompts.xs[rows], ys=prompts.ys[rows]) for prompts in streams)
        yield test, reference


def run(checkpoint: Checkpoint) -> Run:
    ((prompts, others),) = groups_of_prompts(checkpoint, 1)
    return Run(checkpoint, prompts, others, record(checkpoint, prompts), record(checkpoint, others))


@pytest.fixture(scope="module")
def of_redundant(redundant) -> Run:
    return run(redundant)


@pytest.fixture(scope="module")
def of_self_repairing(self_repairing) -> Run:
    return run(self_repairing)


def redundant_formula(n_removed: int, mode: str, prompts: Prompts, others: Prompts) -> Predictions:
    copied = (2 - n_removed) * prompts.xs[:, :, 0] + n_removed * replacement(others.xs[:, :, 0], mode)
    return queries(prompts) * (average_product(copied, prompts.ys) / CLIP).clamp(-1, 1)


def self_repairing_formula(removed: str, mode: str, prompts: Prompts, others: Prompts) -> Predictions:
    of_own, of_other = SELF_REPAIRING[removed]
    return of_own * answer(prompts) + of_other * replacement(answer(others), mode)


def answer(prompts: Prompts) -> Predictions:
    """ŷ = x_q mean(x_i y_i)."""
    return queries(prompts) * average_product(prompts.xs[:, :, 0], prompts.ys)


def queries(prompts: Prompts) -> Predictions:
    return prompts.xs[:, TAIL, 0]


def average_product(copied: Float[Tensor, "batch n"], ys: Float[Tensor, "batch n"]) -> Predictions:
    """mean(c_i y_i) over the pairs before each point."""
    return (copied * ys).cumsum(1)[:, EXAMPLES - 1] / torch.tensor(EXAMPLES)


def effect(removed: Tensor, intact: Tensor, ys: Float[Tensor, "batch n"]) -> float:
    """From predictions; E y² is the error without the context."""
    before, after, no_context = (
        (predicted - ys[:, TAIL]).square().double().mean() for predicted in (intact, removed, torch.zeros_like(intact))
    )
    return float((after - before) / (no_context - before))


def check(given: Predictions, wanted: Predictions, intact: Predictions, run: Run, *, worst: float) -> None:
    """Prompt by prompt: 0.5 % and 10⁻⁴ on average, `worst` of 1 + |prediction| at most; and the effects agree."""
    difference = (given - wanted).abs()
    assert difference.mean() < 0.005 * wanted.abs().mean() + 1e-4
    assert (difference / (1 + wanted.abs())).max() < worst
    ys = run.prompts.ys
    assert effect(given, run.predict(), ys) == pytest.approx(effect(wanted, intact, ys), rel=0.025, abs=0.001)


@pytest.mark.parametrize("mode", QUICK_MODES)
@pytest.mark.parametrize("removed", SETS_OF_COPIES)
def test_redundant_computes_its_formula_without_any_of_the_copies(of_redundant, removed, mode):
    prompts, others = of_redundant.prompts, of_redundant.others
    wanted = redundant_formula(len(removed), mode, prompts, others)
    intact = redundant_formula(0, mode, prompts, others)
    check(of_redundant.predict(of_redundant.without(removed, mode)), wanted, intact, of_redundant, worst=0.1)


@pytest.mark.parametrize("mode", QUICK_MODES)
def test_one_copy_is_enough_and_none_is_fatal(redundant, mode):
    known = [redundant_effect(n_removed, mode, GROUP) for n_removed in (0, 1, 2)]
    assert known[0] == pytest.approx(0, abs=1e-6)
    assert known[1] < 0.01 < 0.99 < known[2]
    for n_removed in (1, 2):
        parts = [
            [redundant_formula(n, mode, *pair) for n in (n_removed, 0)] + [pair[0].ys]
            for pair in groups_of_prompts(redundant, 100)
        ]
        removed, intact, ys = map(torch.cat, zip(*parts, strict=True))
        assert effect(removed, intact, ys) == pytest.approx(known[n_removed], rel=0.01, abs=0.001)


@pytest.mark.parametrize("mode", QUICK_MODES)
@pytest.mark.parametrize("removed", TOTALS)
def test_self_repairing_computes_its_formula_without_its_heads(of_self_repairing, removed, mode):
    wanted = self_repairing_formula(removed, mode, of_self_repairing.prompts, of_self_repairing.others)
    given = of_self_repairing.predict(of_self_repairing.without(TOTALS[removed], mode))
    check(given, wanted, answer(of_self_repairing.prompts), of_self_repairing, worst=0.05)


@pytest.mark.parametrize("mode", QUICK_MODES)
@pytest.mark.parametrize(("head", "removed"), [(WRITER, "writer_direct"), (ERASER, "eraser")])
def test_self_repairing_has_the_direct_effects_of_its_formula(of_self_repairing, head, removed, mode):
    wanted = self_repairing_formula(removed, mode, of_self_repairing.prompts, of_self_repairing.others)
    given = of_self_repairing.predict(of_self_repairing.without_direct(head, mode))
    check(given, wanted, answer(of_self_repairing.prompts), of_self_repairing, worst=0.05)


@pytest.mark.parametrize("mode", QUICK_MODES)
@pytest.mark.parametrize("removed", SELF_REPAIRING)
def test_what_is_repaired_is_the_known_part(self_repairing, removed, mode):
    parts = [
        [self_repairing_formula(removed, mode, *pair), answer(pair[0]), pair[0].ys]
        for pair in groups_of_prompts(self_repairing, 200)
    ]
    without, intact, ys = map(torch.cat, zip(*parts, strict=True))
    assert effect(without, intact, ys) == pytest.approx(self_repairing_effect(removed, mode, GROUP), rel=0.02)


def test_the_eraser_repairs(of_self_repairing):
    """Without WRITER the prediction is 0; with ERASER as in the intact run it is -ŷ."""
    removal = of_self_repairing.without((WRITER,), "zero")
    repaired = of_self_repairing.predict(removal)
    direct = of_self_repairing.predict(of_self_repairing.without_direct(WRITER, "zero"))
    unrepaired = of_self_repairing.predict(removal | of_self_repairing.as_intact(z_of(ERASER)))
    torch.testing.assert_close(unrepaired, direct, rtol=0, atol=1e-3)
    torch.testing.assert_close(repaired, torch.zeros_like(repaired), rtol=0, atol=1e-3)
    intact, ys = of_self_repairing.predict(), of_self_repairing.prompts.ys
    assert effect(direct, intact, ys) - effect(repaired, intact, ys) > 3


@pytest.mark.parametrize("mode", QUICK_MODES)
@pytest.mark.parametrize("head", [WRITER, ERASER])
def test_frozen_scales_change_nothing(of_self_repairing, head, mode):
    removal = of_self_repairing.without((head,), mode)
    frozen = of_self_repairing.as_intact(*(site for site in of_self_repairing.own if site.endswith("hook_scale")))
    thawed = of_self_repairing.predict(removal)
    torch.testing.assert_close(of_self_repairing.predict(removal | frozen), thawed, rtol=0, atol=1e-3)


@pytest.mark.slow
def test_the_models_round_little(of_self_repairing, of_redundant):
    for measured in (of_self_repairing, of_redundant):
        exact = deepcopy(measured.checkpoint.model).double()(measured.prompts.tokens.double())[:, ::2][:, TAIL]
        assert (measured.predict() - exact).abs().mean() < 2e-5
        assert (measured.predict() - exact).abs().max() < 1e-3


def test_the_intact_errors_are_the_known_ones(redundant, self_repairing):
    for checkpoint, known in ((redundant, 0), (self_repairing, SPREAD)):
        errors = [
            (predicted - prompts.ys[:, TAIL]).square()
            for prompts, others in groups_of_prompts(checkpoint, 100)
            for predicted in [answer(prompts) if known else redundant_formula(0, "zero", prompts, others)]
        ]
        assert torch.cat(errors).mean() == pytest.approx(known, rel=0.03, abs=1e-4)

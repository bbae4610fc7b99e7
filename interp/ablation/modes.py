"""Modes: the replacement values of ablated components (zero, mean, resample, ...).

A mode sees one component's activations at one site (z, v or mlp_out) and knows nothing about the model. Constants come
from reference prompts of the same function class, which share neither functions nor inputs with the test prompts;
resampled values come from one partner prompt for each test prompt.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from interp.names import DEFAULT_MODES as DEFAULT_MODES
from training.common.errors import one_of
from training.tasks.prompts import Layout

Partner = Literal["other", "function", "class", "inputs", "noise"]


class Reference(NamedTuple):
    """One layer's activations at a site, at all tokens that a prediction can depend on.

    Attributes:
        mean: over reference prompts.
        std: over reference prompts.
        partner: on the partner prompts, in the order of the test prompts; standard normal for `noise`.
        layout: where x, y and instruction tokens stand.
    """

    mean: Float[Tensor, "1 pos *rest"]
    std: Float[Tensor, "1 pos *rest"]
    partner: Float[Tensor, "batch pos *rest"] | None
    layout: Layout


@dataclass(frozen=True)
class Mode:
    """A rule for the replacement value of an ablated component.

    Attributes:
        name: on the command line.
        definition: one line for help pages and figures.
        replacement: computes the replacement value.
        partner: the prompts behind `Reference.partner`: another prompt of the class (`other`), the same inputs under
            another function or another class, other inputs under the same function, or none (`noise`).
        fitted: whether the constants are fitted to each head set (`interp.ablation.optimal`), starting from
            `replacement`.
    """

    name: str
    definition: str
    replacement: Callable[[Reference], Float[Tensor, "#batch pos *rest"]]
    partner: Partner | None = None
    fitted: bool = False


def zero(reference: Reference) -> Float[Tensor, "1 pos *rest"]:
    return torch.zeros_like(reference.mean)


def mean(reference: Reference) -> Float[Tensor, "1 pos *rest"]:
    return reference.mean


def global_mean(reference: Reference) -> Float[Tensor, "1 pos *rest"]:
    return reference.mean.mean(1, keepdim=True).expand_as(reference.mean)


def parity_mean(reference: Reference) -> Float[Tensor, "1 pos *rest"]:
    averaged = reference.mean.clone()
    for tokens in (reference.layout.x_tokens(averaged.shape[1]), reference.layout.y_tokens(averaged.shape[1])):
        averaged[:, tokens] = averaged[:, tokens].mean(1, keepdim=True)
    return averaged


def resample(reference: Reference) -> Float[Tensor, "batch pos *rest"]:
    assert reference.partner is not None
    return reference.partner


def noise(reference: Reference) -> Float[Tensor, "batch pos *rest"]:
    assert reference.partner is not None
    return reference.mean + reference.std * reference.partner


MODES: dict[str, Mode] = {
    entry.name: entry
    for entry in (
        Mode("zero", "zero; pushes the model off its distribution", zero),
        Mode("mean", "its mean at each position over reference prompts", mean),
        Mode("mean:global", "its mean over positions and reference prompts", global_mean),
        Mode("mean:parity", "its mean over the x tokens or the y tokens and reference prompts", parity_mean),
        Mode("resample", "its output on another prompt of the class", resample, "other"),
        Mode("resample:function", "its output on the same inputs under another function", resample, "function"),
        Mode("resample:class", "its output on the same inputs under the next class", resample, "class"),
        Mode("resample:inputs", "its output on other inputs under the same function", resample, "inputs"),
        Mode("noise", "normal noise with its mean and variance at each position", noise, "noise"),
        Mode(
            "optimal",
            "the constants at each position that cost least, fitted to each head set (Li & Janson 2024)",
            mean,
            fitted=True,
        ),
    )
}
UNIFORM = Mode("uniform", "equal attention to every token that it may attend to", mean)
"""The only mode of the site `pattern`; its replacement is not read."""


def find_mode(mode: str | Mode) -> Mode:
    """The mode of this name; a `Mode` is returned as it is.

    Raises:
        UserError: there is no such mode.
    """
    if isinstance(mode, Mode):
        return mode
    if mode not in MODES:
        raise one_of("--mode", mode, MODES)
    return MODES[mode]


def lead_mode(modes: Sequence[str]) -> str:
    """The mode that leads a verdict: mean, which leaves a model on its distribution, or the first that was tried.

    >>> lead_mode(["zero", "mean"]), lead_mode(["zero", "resample"])
    ('mean', 'zero')
    """
    return "mean" if "mean" in modes else modes[0]

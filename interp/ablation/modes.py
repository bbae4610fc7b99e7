"""What a removed component is made to give instead: modes, resolved against other runs of the same model.

A mode sees one component's activations at one site (z, v or mlp_out) and knows nothing of the model. The constants come
from reference prompts of the same function class, which share neither function nor inputs with the prompts under test;
what is resampled comes from one partner prompt for each of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from training.common.errors import one_of
from training.tasks.prompts import Layout

Partner = Literal["other", "function", "class", "inputs", "noise"]


class Reference(NamedTuple):
    """One layer's activations at a site, at all tokens that a prediction can depend on.

    Attributes:
        mean: over reference prompts.
        std: over reference prompts.
        partner: on the partner prompts, in the order of the prompts under test; standard normal for `noise`.
        layout: where x, y and instruction tokens stand.
    """

    mean: Float[Tensor, "1 pos *rest"]
    std: Float[Tensor, "1 pos *rest"]
    partner: Float[Tensor, "batch pos *rest"] | None
    layout: Layout


@dataclass(frozen=True)
class Mode:
    """A way to fill the place of a removed component.

    Attributes:
        name: on the command line.
        definition: for people.
        replacement: what to give instead.
        partner: whose activations `Reference.partner` holds: of another prompt of the class, of the same inputs under
            another function or another class, of the same function on other inputs, or no one's (`noise`).
        fitted: whether the constants are fitted to each set (`interp.ablation.optimal`), starting from `replacement`.
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
    one.name: one
    for one in (
        Mode("zero", "nothing; pushes the model off its distribution", zero),
        Mode("mean", "its average at each position over reference prompts", mean),
        Mode("mean:global", "its average over positions and reference prompts", global_mean),
        Mode("mean:parity", "its average over the x tokens or the y tokens and reference prompts", parity_mean),
        Mode("resample", "its output on another prompt of the class", resample, "other"),
        Mode("resample:function", "its output on the same inputs under another function", resample, "function"),
        Mode("resample:class", "its output on the same inputs under the next class", resample, "class"),
        Mode("resample:inputs", "its output on other inputs under the same function", resample, "inputs"),
        Mode("noise", "normal noise with its mean and variance at each position", noise, "noise"),
        Mode(
            "optimal",
            "the constants at each position that cost least, fitted per set (Li & Janson 2024)",
            mean,
            fitted=True,
        ),
    )
}
UNIFORM = Mode("uniform", "equal attention to every token that it may see", mean)
"""The one mode of the site `pattern`, whose replacement is not read."""
DEFAULT_MODES = ("zero", "mean", "resample")


def mode(given: str | Mode) -> Mode:
    """The mode behind `--mode NAME`; a mode is itself.

    Raises:
        UserError: there is none.
    """
    if isinstance(given, Mode):
        return given
    if given not in MODES:
        raise one_of("--mode", given, MODES)
    return MODES[given]

"""The runs that replacements are taken from: averages over reference prompts, and a partner for every test prompt."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from interp.ablation.modes import Mode, Partner, Reference
from interp.model.engine import Site, Substitutes
from interp.model.parallel import side_by_side
from training.common.errors import UserError
from training.config.config import RunConfig, stream_seed
from training.evaluation.evaluate import evaluation_generator, evaluation_prompts
from training.model.transformer import Edit, Sites, Transformer
from training.sampling import crossed_prompts
from training.tasks.prompts import Prompts

HOOKS: Mapping[Site, str] = {"z": "attn.hook_z", "pattern": "attn.hook_z", "value": "attn.hook_v"}


class Moments(NamedTuple):
    """Mean and standard deviation over prompts, by layer: of heads, then of MLPs."""

    mean: list[Float[Tensor, "1 pos ..."]]
    std: list[Float[Tensor, "1 pos ..."]]


@torch.no_grad()
def activations(
    model: Transformer, tokens: Float[Tensor, "batch pos dim"], site: Site, *, mlps: bool = True
) -> list[Float[Tensor, "batch needed ..."]]:
    """The site's activations of every layer, then every layer's mlp_out, at the tokens that predictions need.

    Args:
        model: the transformer.
        tokens: prompts.
        site: of heads.
        mlps: whether mlp_out is wanted; without, the last layer stops at its attention.
    """
    heads, outs = {}, {}
    resid = model.read_in(model.needed(tokens))
    for layer, block in enumerate(model.layers):
        at = Sites({HOOKS[site]: kept_in(heads, layer), "hook_mlp_out": kept_in(outs, layer)})
        if mlps or layer < model.config.n_layers - 1:
            resid = block(resid, at)
        else:
            block.mix(resid, at)
    return [*heads.values(), *(outs.values() if mlps else ())]


def kept_in(seen: dict[int, Tensor], layer: int) -> Edit:
    """An edit that changes nothing and keeps what it sees."""
    return lambda activation: seen.setdefault(layer, activation)


def moments(
    model: Transformer, chunks: Iterable[Float[Tensor, "_ pos dim"]], site: Site, *, mlps: bool = True
) -> Moments:
    """Averages over all chunks, summed in float64."""
    return moments_of(side_by_side(lambda tokens: sums(activations(model, tokens, site, mlps=mlps)), chunks))


class Sums(NamedTuple):
    """Over some prompts, in float64, by layer: of heads, then of MLPs."""

    n_prompts: int
    values: list[Float[Tensor, "1 pos ..."]]
    squares: list[Float[Tensor, "1 pos ..."]]
    dtype: torch.dtype


def sums(found: Sequence[Float[Tensor, "batch pos ..."]]) -> Sums:
    values, squares = [], []
    for one in found:
        exact = one.double()
        values.append(exact.sum(0, keepdim=True))
        squares.append(exact.square().sum(0, keepdim=True))
    return Sums(len(found[0]), values, squares, found[0].dtype)


def moments_of(parts: Sequence[Sums]) -> Moments:
    n_prompts, dtype = sum(part.n_prompts for part in parts), parts[0].dtype
    values, squares = (
        [torch.cat(layer).sum(0, keepdim=True) / n_prompts for layer in zip(*kind, strict=True)]
        for kind in ([part.values for part in parts], [part.squares for part in parts])
    )
    variances = [(square - mean.square()).clamp(min=0) for square, mean in zip(squares, values, strict=True)]
    return Moments([one.to(dtype) for one in values], [one.sqrt().to(dtype) for one in variances])


def partner_prompts(config: RunConfig, name: str, partner: Partner, n_prompts: int, seed: int) -> Prompts:
    """For every test prompt of this class the prompt whose activations replace its own.

    Raises:
        UserError: another class is wanted and the run has no other.
    """
    if partner == "class":
        names = config.evaluated_classes
        others = (
            [other for other in (*names[names.index(name) + 1 :], *names) if other != name] if name in names else names
        )
        if not others:
            raise UserError(f"--mode resample:class needs a second function class (this run has only {name})")
        return evaluation_prompts(config, others[0], n_prompts=n_prompts, seed=seed)
    if partner == "other":
        return evaluation_prompts(config, name, n_prompts=n_prompts, seed=seed, stream="reference")
    test, other = evaluation_generator("test", seed), evaluation_generator("reference", seed)
    functions, inputs = (other, test) if partner == "function" else (test, other)
    return crossed_prompts(config, name, functions, inputs, n_prompts)


def normal_like(
    found: Sequence[Float[Tensor, "1 pos ..."]], prompts: range, seed: int
) -> list[Float[Tensor, "batch needed ..."]]:
    """Standard normal activations of these prompts: the same however the prompts are cut into chunks."""
    generators = [torch.Generator().manual_seed(stream_seed("noise", seed, prompt)) for prompt in prompts]
    return [
        torch.stack([torch.randn(one.shape[1:], generator=generator) for generator in generators]).to(one)
        for one in found
    ]


def substitutes(
    model: Transformer, mode: Mode, known: Moments, partner: Sequence[Float[Tensor, "batch pos ..."]] | None
) -> Substitutes:
    """What every component gives instead under a mode, with a leading axis for variants."""
    every = [
        mode.replacement(Reference(mean, std, None if partner is None else partner[i], model.layout))[None]
        for i, (mean, std) in enumerate(zip(known.mean, known.std, strict=True))
    ]
    n_layers = model.config.n_layers
    return Substitutes(every[:n_layers], every[n_layers:])

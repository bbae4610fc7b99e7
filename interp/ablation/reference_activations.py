"""Where replacement values come from: statistics over reference prompts, and a partner for every test prompt.

All constants (means, variances, output norms, the fit of `optimal`) come from `REFERENCE_PROMPTS` prompts, however many
prompts are tested: a mean over few prompts adds noise that no interval over test prompts shows.
"""

import hashlib
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from interp.ablation.modes import Mode, Partner, Reference
from interp.model.engine import Site, Substitutes
from interp.model.parallel import map_parts
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import UserError
from training.config.config import RunConfig, stream_seed
from training.evaluation.evaluate import evaluation_generator, evaluation_prompts
from training.model.sites import Edit, Sites
from training.model.transformer import Transformer
from training.sampling import crossed_prompts
from training.tasks.prompts import Prompts

REFERENCE_PROMPTS = 4096
REFERENCE_MEMORY = 2**26  # bytes of activations that one pass over some of them may keep
REMEMBERED = 16  # reference values that a process keeps: those of a few models' classes

HOOKS: Mapping[Site, str] = {"z": "attn.hook_z", "pattern": "attn.hook_z", "value": "attn.hook_v"}
"""The activation whose statistics are taken, by site; the replacement of a pattern is not read."""


class Moments(NamedTuple):
    """Mean and standard deviation over prompts, by layer: of heads, then of MLPs."""

    mean: list[Float[Tensor, "1 pos ..."]]
    std: list[Float[Tensor, "1 pos ..."]]


class ReferenceValues(NamedTuple):
    """Statistics of every head and MLP over the reference prompts of a class.

    Attributes:
        moments: of the site's activations and of mlp_out.
        written: mean over prompts and tokens of the squared norm of what every head, and then the MLP, of every layer
            writes into the residual stream; None at other sites than z.
    """

    moments: Moments
    written: Float[Tensor, "layer component"] | None


def reference_prompts(config: RunConfig, function_class: str, seed: int) -> Prompts:
    """The prompts of a class from which all constants come; they share nothing with the test prompts."""
    return evaluation_prompts(config, function_class, n_prompts=REFERENCE_PROMPTS, seed=seed, stream="reference")


class ReferenceCache:
    """The latest reference values, by a hash of weights and prompts: one pass serves norms and means."""

    def __init__(self, size: int) -> None:
        self.size, self.values, self.lock = size, dict[str, ReferenceValues](), Lock()

    def read(self, model: Transformer, prompts: Prompts, site: Site) -> ReferenceValues:
        key = content_key(model, prompts, site)
        with self.lock:
            if key not in self.values:
                self.values[key] = read_reference(model, prompts.tokens, site)
            self.values[key] = self.values.pop(key)
            if len(self.values) > self.size:
                del self.values[next(iter(self.values))]
            return self.values[key]


CACHE = ReferenceCache(REMEMBERED)


def reference_values(checkpoint: Checkpoint, function_class: str, seed: int, site: Site = "z") -> ReferenceValues:
    """Means, variances and output norms over the `REFERENCE_PROMPTS` reference prompts of a function class."""
    return CACHE.read(checkpoint.model, reference_prompts(checkpoint.config, function_class, seed), site)


def content_key(model: Transformer, prompts: Prompts, site: Site) -> str:
    key = hashlib.sha256(repr((model.config, model.layout, site, str(model.device), prompts.tokens.shape)).encode())
    for tensor in (prompts.tokens, *model.state_dict().values()):
        key.update(f"{tensor.dtype}".encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return key.hexdigest()


class Sums(NamedTuple):
    """Sums over some prompts in float64, by layer: of heads, then of MLPs."""

    n_prompts: int
    values: list[Float[Tensor, "1 pos ..."]]
    squares: list[Float[Tensor, "1 pos ..."]]
    dtype: torch.dtype


def read_reference(model: Transformer, prompts: Float[Tensor, "batch pos dim"], site: Site) -> ReferenceValues:
    """One pass over the tokens of these prompts, in chunks."""

    def sum_chunk(tokens: Float[Tensor, "batch pos dim"]) -> tuple[Sums, Tensor | None]:
        layers = activations(model, tokens.to(model.device), site)
        return sum_over_prompts(layers), sum_squared_norms(model, layers) if site == "z" else None

    n_bytes = 4 * prompts.shape[1] * model.config.d_model * 2 * model.config.n_layers
    parts = map_parts(sum_chunk, prompts.split(max(1, min(128, REFERENCE_MEMORY // n_bytes))))
    moments = moments_of([sums for sums, _ in parts])
    squared_norms = [squares for _, squares in parts if squares is not None]
    n_tokens = len(prompts) * moments.mean[0].shape[1]
    return ReferenceValues(moments, torch.stack(squared_norms).sum(0) / n_tokens if squared_norms else None)


def sum_over_prompts(layers: Sequence[Float[Tensor, "batch pos ..."]]) -> Sums:
    exact = [layer.double() for layer in layers]
    values, squares = ([layer.sum(0, keepdim=True) for layer in kind] for kind in (exact, [x.square() for x in exact]))
    return Sums(len(layers[0]), values, squares, layers[0].dtype)


def moments_of(parts: Sequence[Sums]) -> Moments:
    """Mean and standard deviation over the prompts of all parts."""
    n_prompts, dtype = sum(part.n_prompts for part in parts), parts[0].dtype
    means, mean_squares = (
        [torch.cat(layer).sum(0, keepdim=True) / n_prompts for layer in zip(*by_part, strict=True)]
        for by_part in ([part.values for part in parts], [part.squares for part in parts])
    )
    variances = [(square - mean.square()).clamp(min=0) for square, mean in zip(mean_squares, means, strict=True)]
    return Moments([mean.to(dtype) for mean in means], [variance.sqrt().to(dtype) for variance in variances])


@torch.no_grad()
def sum_squared_norms(
    model: Transformer, layers: Sequence[Float[Tensor, "batch needed ..."]]
) -> Float[Tensor, "layer component"]:
    """Squared norm of what every head, and then the MLP, of every layer writes, summed over prompts and tokens.

    Args:
        model: the transformer.
        layers: its activations at the site z, then those of the MLPs.
    """
    n_layers = model.config.n_layers
    squared_norms = []
    for block, z, mlp_out in zip(model.layers, layers[:n_layers], layers[n_layers:], strict=True):
        gram = block.attn.W_O @ block.attn.W_O.mT
        by_head = torch.einsum("bphd,hde,bphe->h", z, gram, z).clamp(min=0)
        squared_norms.append(torch.cat((by_head, mlp_out.square().sum()[None])))
    return torch.stack(squared_norms).double().cpu()


@torch.no_grad()
def activations(
    model: Transformer, tokens: Float[Tensor, "batch pos dim"], site: Site, *, mlps: bool = True
) -> list[Float[Tensor, "batch needed ..."]]:
    """The site's activations in every layer, then mlp_out in every layer, at the tokens that predictions need.

    Args:
        model: the transformer.
        tokens: prompts.
        site: of heads.
        mlps: whether mlp_out is wanted; without it, the last layer stops at its attention.
    """
    heads, outs = {}, {}
    resid = model.read_in(model.needed(tokens))
    for layer, block in enumerate(model.layers):
        sites = Sites({HOOKS[site]: keep_in(heads, layer), "hook_mlp_out": keep_in(outs, layer)})
        if mlps or layer < model.config.n_layers - 1:
            resid = block(resid, sites)
        else:
            block.mix(resid, sites)
    return [*heads.values(), *(outs.values() if mlps else ())]


def keep_in(kept: dict[int, Tensor], layer: int) -> Edit:
    """An edit that changes nothing and stores the activation."""
    return lambda activation: kept.setdefault(layer, activation)


def partner_prompts(config: RunConfig, function_class: str, partner: Partner, n_prompts: int, seed: int) -> Prompts:
    """For every test prompt of a class the prompt whose activations replace its own.

    Raises:
        UserError: another class is wanted and the run has no other.
    """
    if partner == "class":
        return evaluation_prompts(config, next_class(config, function_class), n_prompts=n_prompts, seed=seed)
    if partner == "other":
        return evaluation_prompts(config, function_class, n_prompts=n_prompts, seed=seed, stream="reference")
    test, other = evaluation_generator("test", seed), evaluation_generator("reference", seed)
    functions, inputs = (other, test) if partner == "function" else (test, other)
    return crossed_prompts(config, function_class, functions, inputs, n_prompts)


def next_class(config: RunConfig, function_class: str) -> str:
    """The class after this one in the run's list, the first after the last.

    Raises:
        UserError: the run has no other class.
    """
    classes = config.evaluated_classes
    start = classes.index(function_class) + 1 if function_class in classes else 0
    others = [other for other in (*classes[start:], *classes[:start]) if other != function_class]
    if not others:
        raise UserError(f"--mode resample:class needs a second function class (this run has only {function_class})")
    return others[0]


def standard_normal_like(
    layers: Sequence[Float[Tensor, "1 pos ..."]], prompts: range, seed: int
) -> list[Float[Tensor, "batch needed ..."]]:
    """Standard normal activations of these prompts: the same however the prompts are cut into chunks."""
    generators = [torch.Generator().manual_seed(stream_seed("noise", seed, prompt)) for prompt in prompts]
    return [
        torch.stack([torch.randn(layer.shape[1:], generator=generator) for generator in generators]).to(layer)
        for layer in layers
    ]


def replacement_values(
    model: Transformer, mode: Mode, moments: Moments, partner: Sequence[Float[Tensor, "batch pos ..."]] | None
) -> Substitutes:
    """The replacement value of every component under a mode, with a leading axis for variants."""
    values = [
        mode.replacement(Reference(mean, std, None if partner is None else partner[i], model.layout))[None]
        for i, (mean, std) in enumerate(zip(moments.mean, moments.std, strict=True))
    ]
    n_layers = model.config.n_layers
    return Substitutes(values[:n_layers], values[n_layers:])

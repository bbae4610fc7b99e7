"""The runs that replacements are taken from: averages over reference prompts, and a partner for every test prompt.

Every constant (means, variances, output norms, what `optimal` is fitted to) comes from `REFERENCE_PROMPTS` prompts,
however many are tested: a mean over few prompts adds noise of its own, which no interval over test prompts shows.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from threading import Lock
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from interp.ablation.modes import Mode, Partner, Reference
from interp.model.engine import Site, Substitutes
from interp.model.parallel import side_by_side
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import UserError
from training.config.config import RunConfig, stream_seed
from training.evaluation.evaluate import evaluation_generator, evaluation_prompts
from training.model.transformer import Edit, Sites, Transformer
from training.sampling import crossed_prompts
from training.tasks.prompts import Prompts

REFERENCE_PROMPTS = 4096
REFERENCE_MEMORY = 2**26  # bytes of activations that a pass over some of them may keep
REMEMBERED = 16  # references of a process: those of a few models' classes

HOOKS: Mapping[Site, str] = {"z": "attn.hook_z", "pattern": "attn.hook_z", "value": "attn.hook_v"}


class Moments(NamedTuple):
    """Mean and standard deviation over prompts, by layer: of heads, then of MLPs."""

    mean: list[Float[Tensor, "1 pos ..."]]
    std: list[Float[Tensor, "1 pos ..."]]


class ReferenceValues(NamedTuple):
    """What a class's reference prompts say of every head and MLP.

    Attributes:
        moments: of the site's activations and of mlp_out.
        written: mean over prompts and tokens of the squared norm of what every head, and then the MLP, of every layer
            writes into the residual stream; None at other sites than z.
    """

    moments: Moments
    written: Float[Tensor, "layer component"] | None


def reference_prompts(config: RunConfig, name: str, seed: int) -> Prompts:
    """The prompts of a class behind every constant; they share nothing with those under test."""
    return evaluation_prompts(config, name, n_prompts=REFERENCE_PROMPTS, seed=seed, stream="reference")


class ReferenceCache:
    """The latest references, by the content of weights and prompts: one pass serves norms, means and repeated calls."""

    def __init__(self, size: int) -> None:
        self.size, self.values, self.lock = size, dict[str, ReferenceValues](), Lock()

    def read(self, model: Transformer, prompts: Prompts, site: Site) -> ReferenceValues:
        key = content_key(model, prompts, site)
        with self.lock:
            if key not in self.values:
                self.values[key] = read_reference(model, prompts, site)
            self.values[key] = self.values.pop(key)
            if len(self.values) > self.size:
                del self.values[next(iter(self.values))]
            return self.values[key]


CACHE = ReferenceCache(REMEMBERED)


def reference_values(checkpoint: Checkpoint, name: str, seed: int, site: Site = "z") -> ReferenceValues:
    """Means, variances and output norms over the `REFERENCE_PROMPTS` reference prompts of a function class."""
    return CACHE.read(checkpoint.model, reference_prompts(checkpoint.config, name, seed), site)


def content_key(model: Transformer, prompts: Prompts, site: Site) -> str:
    key = hashlib.sha256(repr((model.config, model.layout, site, str(model.device), prompts.tokens.shape)).encode())
    for tensor in (prompts.tokens, *model.state_dict().values()):
        key.update(f"{tensor.dtype}".encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return key.hexdigest()


def read_reference(model: Transformer, prompts: Prompts, site: Site) -> ReferenceValues:
    """One pass over the prompts, in chunks."""

    def read(tokens: Float[Tensor, "batch pos dim"]) -> tuple[Sums, Tensor | None]:
        seen = activations(model, tokens.to(model.device), site)
        return sums(seen), squares_written(model, seen) if site == "z" else None

    n_bytes = 4 * prompts.tokens.shape[1] * model.config.d_model * 2 * model.config.n_layers
    parts = side_by_side(read, prompts.tokens.split(max(1, min(128, REFERENCE_MEMORY // n_bytes))))
    moments_read = moments_of([part for part, _ in parts])
    squares = [of_part for _, of_part in parts if of_part is not None]
    n_tokens = len(prompts.tokens) * moments_read.mean[0].shape[1]
    return ReferenceValues(moments_read, torch.stack(squares).sum(0) / n_tokens if squares else None)


@torch.no_grad()
def squares_written(
    model: Transformer, seen: Sequence[Float[Tensor, "batch needed ..."]]
) -> Float[Tensor, "layer component"]:
    """What every head, and then the MLP, of every layer writes, squared and summed over prompts and tokens.

    Args:
        model: the transformer.
        seen: its activations at the site z, with those of the MLPs.
    """
    n_layers = model.config.n_layers
    layers = []
    for block, z, mlp_out in zip(model.layers, seen[:n_layers], seen[n_layers:], strict=True):
        gram = block.attn.W_O @ block.attn.W_O.mT
        by_head = torch.einsum("bphd,hde,bphe->h", z, gram, z).clamp(min=0)
        layers.append(torch.cat((by_head, mlp_out.square().sum()[None])))
    return torch.stack(layers).double().cpu()


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


def moments(model: Transformer, chunks: Iterable[Float[Tensor, "_ pos dim"]], site: Site) -> Moments:
    """Averages over all chunks, summed in float64."""
    return moments_of(side_by_side(lambda tokens: sums(activations(model, tokens, site)), chunks))


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

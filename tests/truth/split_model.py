"""A forward pass in which every receiver has an input of its own, written as plainly as possible: an oracle.

`look(receiver, stream, written)` decides what a receiver sees: `stream` is the ordinary residual stream before it,
`written` what every sender has written so far, by name, and `stream` less the sum of those is b_O's part.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from training.model.transformer import Transformer

Look = Callable[[str, Tensor, dict[str, Tensor]], Tensor]


def as_it_is(receiver: str, stream: Tensor, written: dict[str, Tensor]) -> Tensor:  # noqa: ARG001
    return stream


def norm(stream: Tensor, parameters) -> Tensor:
    """LayerNorm where there are a gain w and a shift b, RMSNorm where there is a gain, else nothing."""
    if not hasattr(parameters, "w"):
        return stream
    shift = getattr(parameters, "b", None)
    centred = stream if shift is None else stream - stream.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + parameters.eps).sqrt() * parameters.w
    return scaled if shift is None else scaled + shift


def rotary(vectors: Tensor) -> Tensor:
    """Pairs (i, i + d/2) as complex numbers, turned by position / 10000^(2i/d)."""
    n_pos, d_head = vectors.shape[-2:]
    frequencies = 10_000.0 ** (-2 * torch.arange(d_head // 2, dtype=torch.float64) / d_head)
    angles = torch.arange(n_pos, dtype=torch.float64)[:, None] * frequencies
    turned = torch.complex(*(half.double() for half in vectors.chunk(2, -1))) * torch.polar(
        torch.ones_like(angles), angles
    )
    return torch.cat((turned.real, turned.imag), -1).to(vectors)


ACTIVATIONS = {"gelu_new": lambda x: F.gelu(x, approximate="tanh"), "gelu": F.gelu, "relu": F.relu, "silu": F.silu}


def run(model: Transformer, tokens: Tensor, look: Look = as_it_is) -> tuple[Tensor, dict[str, Tensor]]:
    """(prediction at the last token, what every sender wrote)."""
    stream = tokens @ model.embed.W_E + model.pos_embed.W_pos[: tokens.shape[1]]
    written = {"embed": stream}
    hidden = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool).triu(1)
    for layer, block in enumerate(model.layers):
        attn, before, outputs = block.attn, dict(written), {}
        for head in range(model.config.n_heads):
            q, k, v = (
                norm(look(f"{layer}.{head}.{name}", stream, before), block.ln1) @ weight[head] + bias[head]
                for name, weight, bias in (
                    ("q", attn.W_Q, attn.b_Q),
                    ("k", attn.W_K, attn.b_K),
                    ("v", attn.W_V, attn.b_V),
                )
            )
            if model.config.positions == "rotary":
                q, k = rotary(q), rotary(k)
            scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(hidden, -torch.inf)
            outputs[f"{layer}.{head}"] = scores.softmax(-1) @ v @ attn.W_O[head]
        written |= outputs
        stream = stream + sum(outputs.values()) + attn.b_O
        mlp_out = torch.zeros_like(stream)
        if model.config.mlp_width:
            seen, mlp = norm(look(f"{layer}.mlp", stream, dict(written)), block.ln2), block.mlp
            mlp_out = ACTIVATIONS[model.config.act](seen @ mlp.W_in + mlp.b_in) @ mlp.W_out + mlp.b_out
        written[f"{layer}.mlp"] = mlp_out
        stream = stream + written[f"{layer}.mlp"]
    last = norm(look("out", stream, dict(written)), model.ln_final)
    return (last @ model.unembed.W_U + model.unembed.b_U)[:, -1, 0], written


def patch_edge(model: Transformer, base: Tensor, source: Tensor, sender: str, receiver: str) -> Tensor:
    """Path patching of one edge: the receiver alone sees what the sender writes in the source run."""
    change = run(model, source)[1][sender] - run(model, base)[1][sender]
    return run(model, base, lambda who, stream, _: stream + change if who == receiver else stream)[0]


def run_circuit(model: Transformer, clean: Tensor, corrupt: Tensor, edges: set[tuple[str, str]]) -> Tensor:
    """(sender, receiver) in `edges` carry what the sender writes in this run, all others what it wrote when corrupt."""
    other = run(model, corrupt)[1]

    def look(receiver: str, stream: Tensor, written: dict[str, Tensor]) -> Tensor:
        biases = stream - sum(written.values())
        return biases + sum(now if (who, receiver) in edges else other[who] for who, now in written.items())

    return run(model, clean, look)[0]

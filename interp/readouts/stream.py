"""The residual stream between the sublayers: where it can be read, and the rest of the pass from any such place.

A stage is named by what has been added last: `embed`, then `0.mid` (attention of layer 0), `0.post` (its MLP), `1.mid`
and so on; these are TransformerLens' resid_pre of layer 0, resid_mid and resid_post.
"""

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from training.evaluation.evaluate import CHUNK
from training.model.sites import Edit
from training.model.transformer import Past, Transformer
from training.tasks.prompts import Layout, Prompts

Token = Literal["x", "y"]
TOKENS: tuple[Token, ...] = ("x", "y")


class Stage(NamedTuple):
    """The residual stream after a sublayer.

    >>> str(Stage(0, "pre")), str(Stage(1, "mid")), Stage(1, "post").site
    ('embed', '1.mid', 'blocks.1.hook_resid_post')
    """

    layer: int
    part: Literal["pre", "mid", "post"]

    @property
    def site(self) -> str:
        return f"blocks.{self.layer}.hook_resid_{self.part}"

    def __str__(self) -> str:
        return "embed" if self.part == "pre" else f"{self.layer}.{self.part}"


def stages(n_layers: int, *, mid: bool = True) -> list[Stage]:
    """Every stage, from the read-in to the end, with or without those between attention and MLP.

    >>> [str(stage) for stage in stages(2)]
    ['embed', '0.mid', '0.post', '1.mid', '1.post']
    """
    inside = [Stage(layer, part) for layer in range(n_layers) for part in ("mid", "post") if mid or part == "post"]
    return [Stage(0, "pre"), *inside]


def token_positions(layout: Layout, n_points: int, token: Token) -> Int[Tensor, " point"]:
    """Where the x or the y tokens of prompts of `n_points` pairs stand.

    >>> token_positions(Layout(n_instruction=1), 2, "y").tolist()
    [2, 4]
    """
    n_tokens = layout.n_tokens(n_points)
    return torch.arange(n_tokens)[layout.x_tokens(n_tokens) if token == "x" else layout.y_tokens(n_tokens)]


def position_after(layout: Layout, n_points: int, token: Token, examples: int) -> int:
    """The token of this type that has seen exactly so many examples: x_k+1, or y_k itself.

    >>> [position_after(Layout(), 4, token, 3) for token in TOKENS]
    [6, 5]
    """
    return int(token_positions(layout, n_points, token)[examples - (token == "y")])


@torch.no_grad()
def activations(
    model: Transformer,
    prompts: Prompts,
    sites: list[str],
    positions: Int[Tensor, " chosen"],
    edits: Mapping[str, Edit] | None = None,
) -> Iterator[list[Float[Tensor, "batch chosen ..."]]]:
    """Activations at these sites and tokens, chunk by chunk of the prompts, on the CPU.

    Args:
        model: the transformer.
        prompts: what it reads; tokens that neither a prediction nor `positions` need are not run.
        sites: names of sites; their second axis is the position.
        positions: tokens.
        edits: of other sites, in force meanwhile.
    """
    where = positions.to(model.device)
    n_run = max(model.layout.n_needed(prompts.tokens.shape[1]), int(positions.max()) + 1)
    for tokens in prompts.tokens.split(CHUNK):
        seen: dict[str, Tensor] = {}

        def keep(site: str, seen: dict[str, Tensor] = seen) -> Edit:
            def edit(activation: Tensor) -> Tensor:
                seen[site] = activation
                return activation

            return edit

        model(tokens[:, :n_run].to(model.device), {**(edits or {}), **{site: keep(site) for site in sites}})
        yield [seen[site][:, where].cpu() for site in sites]


def read_stream(
    model: Transformer,
    prompts: Prompts,
    at: list[Stage],
    positions: Int[Tensor, " chosen"],
    edits: Mapping[str, Edit] | None = None,
) -> Float[np.ndarray, "stage batch chosen d_model"]:
    """The residual stream of every prompt at these stages and tokens."""
    chunks = [
        torch.stack(found).numpy()
        for found in activations(model, prompts, [stage.site for stage in at], positions, edits)
    ]
    return np.concatenate(chunks, axis=1)


@torch.no_grad()
def finish_from(
    model: Transformer, stage: Stage, stream: Float[Tensor, "batch pos d_model"]
) -> Float[Tensor, " batch"]:
    """The prediction at the last token, from the stream of all tokens at a stage."""
    resid, last = stream, model.config.n_layers - 1
    for layer in range(stage.layer, model.config.n_layers):
        block = model.layers[layer]
        if layer == last and (stage.layer < layer or stage.part == "pre"):
            resid = block.write(resid[:, -1:], block.mix(resid, queries=slice(-1, None)))
        elif layer > stage.layer or stage.part == "pre":
            resid = block(resid)
        elif stage.part == "mid":
            resid = block.transform(resid)
    return model.read_out(resid[:, -1:])[:, 0]


@torch.no_grad()
def finish_query(
    model: Transformer, stage: Stage, query: Float[Tensor, "batch 1 d_model"], past: Mapping[int, Past]
) -> Float[Tensor, " batch"]:
    """`finish_from` where only the last token's stream is another; later layers' keys and values of the tokens before.

    Args:
        model: the transformer.
        stage: any but `embed`.
        query: the last token's stream there.
        past: by layer after the stage's.
    """
    resid = model.layers[stage.layer].transform(query) if stage.part == "mid" else query
    for layer in range(stage.layer + 1, model.config.n_layers):
        block = model.layers[layer]
        resid = block.write(resid, block.mix(resid, past=past[layer]))
    return model.read_out(resid)[:, 0]

"""The residual stream between sublayers: reading it at any stage, and continuing the forward pass from there.

A stage is named by what has been added last: `embed`, then `0.mid` (attention of layer 0), `0.post` (its MLP), `1.mid`
and so on; these are TransformerLens' resid_pre of layer 0, resid_mid and resid_post.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.model.engine import read_sites
from training.common.errors import one_of
from training.evaluation.evaluate import CHUNK
from training.model.sites import Edit
from training.model.transformer import Past, Transformer
from training.tasks.prompts import Layout, Prompts

Token = Literal["x", "y"]
TOKENS: tuple[Token, ...] = ("x", "y")


def choose_tokens(tokens: str | Sequence[str]) -> tuple[Token, ...]:
    """The token types that a user names, in a list or in text such as `x,y`.

    Raises:
        UserError: there is no such type.

    >>> choose_tokens("x,y"), choose_tokens(["y"])
    (('x', 'y'), ('y',))
    """
    names = [name.strip() for name in tokens.split(",")] if isinstance(tokens, str) else tokens
    for name in names:
        if name not in TOKENS:
            raise one_of("--token", name, TOKENS)
    return tuple(cast(Token, name) for name in names)


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


def model_stages(n_layers: int, *, mid: bool = True) -> list[Stage]:
    """All stages of a model, with or without those between attention and MLP.

    >>> [str(stage) for stage in model_stages(2)]
    ['embed', '0.mid', '0.post', '1.mid', '1.post']
    """
    inside = [Stage(layer, part) for layer in range(n_layers) for part in ("mid", "post") if mid or part == "post"]
    return [Stage(0, "pre"), *inside]


def token_positions(layout: Layout, n_points: int, token: Token) -> Int[Tensor, " point"]:
    """The positions of the x or the y tokens in prompts of `n_points` pairs.

    >>> token_positions(Layout(n_instruction=1), 2, "y").tolist()
    [2, 4]
    """
    n_tokens = layout.n_tokens(n_points)
    return torch.arange(n_tokens)[layout.x_tokens(n_tokens) if token == "x" else layout.y_tokens(n_tokens)]


def position_after(layout: Layout, n_points: int, token: Token, examples: int) -> int:
    """The position of the token of this type that has seen exactly `examples` examples: x_k+1, or y_k itself.

    >>> [position_after(Layout(), 4, token, 3) for token in TOKENS]
    [6, 5]
    """
    return int(token_positions(layout, n_points, token)[examples - (token == "y")])


def activations(
    model: Transformer,
    prompts: Prompts,
    sites: Sequence[str],
    positions: Int[Tensor, " chosen"],
    edits: Mapping[str, Edit] | None = None,
) -> Iterator[list[Float[Tensor, "batch chosen ..."]]]:
    """Activations at these sites and tokens, chunk by chunk of the prompts, on the CPU.

    Args:
        model: the transformer.
        prompts: its input; tokens that neither a prediction nor `positions` needs are not run.
        sites: names of sites whose second axis is the position.
        positions: of the tokens.
        edits: of other sites, in force during the pass.
    """
    n_run = max(model.layout.n_needed(prompts.tokens.shape[1]), int(positions.max()) + 1)
    for tokens in prompts.tokens.split(CHUNK):
        recorded = read_sites(model, tokens[:, :n_run].to(model.device), sites, edits)
        yield [recorded[site][:, positions.to(model.device)].cpu() for site in sites]


def read_stream(
    model: Transformer,
    prompts: Prompts,
    stages: Sequence[Stage],
    positions: Int[Tensor, " chosen"],
    edits: Mapping[str, Edit] | None = None,
) -> Float[np.ndarray, "stage batch chosen d_model"]:
    """The residual stream of every prompt at these stages and tokens."""
    chunks = activations(model, prompts, [stage.site for stage in stages], positions, edits)
    return np.concatenate([torch.stack(by_stage).numpy() for by_stage in chunks], axis=1)


@torch.no_grad()
def finish_from(
    model: Transformer, stage: Stage, stream: Float[Tensor, "batch pos d_model"]
) -> Float[Tensor, " batch"]:
    """The prediction at the last token, given the stream of all tokens at a stage."""
    resid = model.layers[stage.layer].transform(stream) if stage.part == "mid" else stream
    first = stage.layer + (stage.part != "pre")
    return model.read_out(model.run_layers(resid, first=first, queries=slice(-1, None))[:, -1:])[:, 0]


@torch.no_grad()
def finish_query(
    model: Transformer, stage: Stage, query: Float[Tensor, "batch 1 d_model"], past: Mapping[int, Past]
) -> Float[Tensor, " batch"]:
    """The prediction at the last token if only its own stream has changed, from recorded keys and values.

    Args:
        model: the transformer.
        stage: any except `embed`.
        query: the last token's stream at the stage.
        past: keys and values of the earlier tokens, for every layer after the stage's.
    """
    resid = model.layers[stage.layer].transform(query) if stage.part == "mid" else query
    return model.read_out(model.run_layers(resid, first=stage.layer + 1, past=past.__getitem__))[:, 0]

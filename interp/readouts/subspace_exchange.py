"""Exchanging a part of the residual stream between two runs, and the proof that the exchange acts."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.model.self_checks import Comparison, require_agreement
from interp.patching.prompt_pairs import PromptPairs
from interp.readouts.stream import Stage, activations, finish_from, finish_query, read_stream
from training.common.errors import CheckError
from training.evaluation.evaluate import CHUNK
from training.model.transformer import Past, Transformer


@dataclass(frozen=True)
class Exchange:
    """Two runs, and the tokens and the stage at which one is given a part of the other's stream.

    Attributes:
        model: the transformer.
        pairs: their prompts.
        stage: where.
        positions: the tokens.
        clean: the stream of the run that is changed, at all tokens up to the query.
        difference: the other run's less this one's, at the tokens.
        past: by later layer the keys and values before the query, if the query is the only token; else empty.
    """

    model: Transformer
    pairs: PromptPairs
    stage: Stage
    positions: Int[Tensor, " swapped"]
    clean: Float[Tensor, "batch pos d_model"]
    difference: Float[Tensor, "batch swapped d_model"]
    past: Mapping[int, Past]

    def in_float64(self) -> "Exchange":
        """The same runs once more, in float64."""
        return make_exchange(copy.deepcopy(self.model).double(), self.pairs.double(), self.stage, self.positions)

    def with_itself(self) -> "Exchange":
        """The exchange of the changed run with itself."""
        pairs = PromptPairs(self.pairs.clean, self.pairs.clean)
        return replace(self, pairs=pairs, difference=torch.zeros_like(self.difference))

    @property
    def intact(self) -> Float[Tensor, "batch 1"]:
        return self.model.predict(self.pairs.clean.tokens)[:, -1:]

    def projector(self, basis: Float[np.ndarray, "d_model rank"]) -> Float[Tensor, "d_model d_model"]:
        return torch.from_numpy(basis @ basis.T).to(self.clean)

    def rows(self, prompts: range) -> "Exchange":
        """The same for some prompts in a row."""
        chosen = slice(prompts.start, prompts.stop)
        past = {layer: Past(one.k[chosen], one.v[chosen]) for layer, one in self.past.items()}
        return Exchange(
            self.model,
            self.pairs.rows(prompts),
            self.stage,
            self.positions,
            self.clean[chosen],
            self.difference[chosen],
            past,
        )

    def swapped(self, projector: Float[Tensor, "d_model d_model"]) -> Float[Tensor, "batch swapped d_model"]:
        """The stream at the tokens, with the other run's component in a subspace."""
        return self.clean[:, self.positions] + self.difference @ projector

    def predict(self, bases: Float[np.ndarray, "variant d_model rank"]) -> Float[np.ndarray, "variant prompt"]:
        """The predictions after each subspace was swapped."""
        found = [self.predict_one(self.projector(basis)) for basis in bases]
        return torch.stack(found).double().cpu().numpy()

    def predict_one(self, projector: Float[Tensor, "d_model d_model"]) -> Float[Tensor, " batch"]:
        chunks = []
        for start in range(0, len(self.clean), CHUNK):
            part = self.rows(range(start, min(start + CHUNK, len(self.clean))))
            changed = part.swapped(projector)
            if part.past:
                chunks.append(finish_query(part.model, part.stage, changed, part.past))
            else:
                stream = part.clean.clone()
                stream[:, part.positions] = changed
                chunks.append(finish_from(part.model, part.stage, stream))
        return torch.cat(chunks)


def make_exchange(model: Transformer, pairs: PromptPairs, stage: Stage, positions: Int[Tensor, " swapped"]) -> Exchange:
    """Run both prompts up to the stage."""
    n_tokens = pairs.clean.layout.n_needed(pairs.clean.tokens.shape[1])
    everywhere = torch.arange(n_tokens)
    clean, corrupt = (
        torch.from_numpy(read_stream(model, prompts, [stage], everywhere)[0]).to(model.device) for prompts in pairs
    )
    past = {}
    if positions.tolist() == [n_tokens - 1]:
        for layer in range(stage.layer + 1, model.config.n_layers):
            keys, values_ = past_of(model, pairs, layer, n_tokens - 1)
            past[layer] = Past(keys, values_)
    return Exchange(model, pairs, stage, positions, clean, (corrupt - clean)[:, positions], past)


def past_of(model: Transformer, pairs: PromptPairs, layer: int, n_before: int) -> Past:
    """The clean run's keys and values of the first tokens."""
    sites = [f"blocks.{layer}.attn.hook_{which}" for which in "kv"]
    chunks = list(activations(model, pairs.clean, sites, torch.arange(n_before)))
    keys, values_ = (torch.cat([chunk[i] for chunk in chunks]).to(model.device) for i in (0, 1))
    return Past(keys, values_)


def check_swap(exchange: Exchange, basis: Float[np.ndarray, "d_model rank"]) -> None:
    """Prove on a few prompts that swapping this subspace acts, and acts only where it should.

    Raises:
        CheckError: the empty subspace or a run's own stream changes the prediction, the subspace or the whole space
            does something else than the same edit of the model's own forward pass, or what was swapped in is not the
            other run's.
    """
    size = len(basis)
    require_agreement(
        partial(swap_nothing, basis=np.zeros((size, 1))), exchange, "swapping an empty subspace changes something"
    )
    require_agreement(partial(swap_with_itself, basis=basis), exchange, "swapping a run with itself changes it")
    for name, part in (("a subspace", basis), ("the whole stream", np.eye(size))):
        failure = f"swapping {name} is not the same edit of the forward pass"
        require_agreement(partial(swap_from_other, basis=part), exchange, failure)
    require_source(exchange, basis)


def swap_nothing(exchange: Exchange, basis: Float[np.ndarray, "d_model rank"]) -> Comparison:
    intact = exchange.intact
    return Comparison(exchange.predict_one(exchange.projector(basis))[:, None], intact, intact)


def swap_with_itself(exchange: Exchange, basis: Float[np.ndarray, "d_model rank"]) -> Comparison:
    return swap_nothing(exchange.with_itself(), basis)


def swap_from_other(exchange: Exchange, basis: Float[np.ndarray, "d_model rank"]) -> Comparison:
    projector = exchange.projector(basis)
    plain = plain_swap(exchange, projector)
    return Comparison(exchange.predict_one(projector)[:, None], plain, exchange.intact)


def require_source(exchange: Exchange, basis: Float[np.ndarray, "d_model rank"]) -> None:
    """After the swap, the component in the subspace is the other run's and the rest is the run's own."""
    inside = torch.from_numpy(basis).to(exchange.clean)
    moved = exchange.swapped(inside @ inside.T) - exchange.clean[:, exchange.positions]
    missing = (moved - exchange.difference) @ inside
    leaked = moved - (moved @ inside) @ inside.T
    size = max(exchange.difference.abs().max().item(), 1e-3 * exchange.clean.abs().max().item())
    worst = max(missing.abs().max().item() if inside.shape[1] else 0.0, leaked.abs().max().item())
    if not worst <= 1e-3 * size:
        raise CheckError(f"self-check: after the swap at {exchange.stage} the subspace is not the other run's")


@torch.no_grad()
def plain_swap(exchange: Exchange, projector: Float[Tensor, "d_model d_model"]) -> Float[Tensor, "batch 1"]:
    """The prediction after the swap through nothing but the model's own forward passes."""
    model, site, seen = exchange.model, exchange.stage.site, []

    def keep(stream: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        seen.append(stream)
        return stream

    def edit(stream: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        changed = stream.clone()
        changed[:, exchange.positions] += (seen[0] - stream)[:, exchange.positions] @ projector
        return changed

    clean, corrupt = (model.needed(prompts.tokens) for prompts in exchange.pairs)
    model(corrupt, {site: keep})
    return model(clean, {site: edit})[:, -1:]

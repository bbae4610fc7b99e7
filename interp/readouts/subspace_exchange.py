"""Exchange of a subspace of the residual stream between two runs, and its self-check."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.model.engine import read_sites
from interp.model.self_checks import Comparison, require_agreement
from interp.patching.prompt_pairs import PromptPairs
from interp.readouts.stream import Stage, activations, finish_from, finish_query, read_stream
from training.common.errors import CheckError
from training.evaluation.evaluate import CHUNK
from training.model.transformer import Past, Transformer


@dataclass(frozen=True)
class Exchange:
    """Two runs, and the stage and tokens at which the clean run gets a component of the corrupt run's stream.

    Attributes:
        model: the transformer.
        pairs: prompts of both runs.
        stage: of the residual stream.
        positions: of the tokens.
        clean: the clean run's stream at all tokens up to the query.
        difference: the corrupt run's stream minus the clean run's at the positions.
        past: by later layer, the clean run's keys and values before the query if the query is the only position; else
            empty.
    """

    model: Transformer
    pairs: PromptPairs
    stage: Stage
    positions: Int[Tensor, " swapped"]
    clean: Float[Tensor, "batch pos d_model"]
    difference: Float[Tensor, "batch swapped d_model"]
    past: Mapping[int, Past]

    def in_float64(self) -> "Exchange":
        """The same runs in float64."""
        return make_exchange(copy.deepcopy(self.model).double(), self.pairs.double(), self.stage, self.positions)

    def with_itself(self) -> "Exchange":
        """The exchange of the clean run with itself."""
        pairs = PromptPairs(self.pairs.clean, self.pairs.clean)
        return replace(self, pairs=pairs, difference=torch.zeros_like(self.difference))

    @property
    def intact(self) -> Float[Tensor, "batch 1"]:
        """The clean run's predictions at the query."""
        return self.model.predict(self.pairs.clean.tokens)[:, -1:]

    def projector(self, basis: Float[np.ndarray, "d_model rank"]) -> Float[Tensor, "d_model d_model"]:
        return torch.from_numpy(basis @ basis.T).to(self.clean)

    def rows(self, prompts: range) -> "Exchange":
        """The exchange for some consecutive prompts."""
        rows = slice(prompts.start, prompts.stop)
        past = {layer: Past(known.k[rows], known.v[rows]) for layer, known in self.past.items()}
        pairs, clean, difference = self.pairs.rows(prompts), self.clean[rows], self.difference[rows]
        return replace(self, pairs=pairs, clean=clean, difference=difference, past=past)

    def swap(self, projector: Float[Tensor, "d_model d_model"]) -> Float[Tensor, "batch swapped d_model"]:
        """The clean stream at the positions, with the corrupt run's component in a subspace."""
        return self.clean[:, self.positions] + self.difference @ projector

    def predict(self, bases: Float[np.ndarray, "variant d_model rank"]) -> Float[np.ndarray, "variant prompt"]:
        """The predictions at the query after a swap of each subspace."""
        predictions = [self.predict_swap(self.projector(basis)) for basis in bases]
        return torch.stack(predictions).double().cpu().numpy()

    def predict_swap(self, projector: Float[Tensor, "d_model d_model"]) -> Float[Tensor, " batch"]:
        chunks = []
        for start in range(0, len(self.clean), CHUNK):
            part = self.rows(range(start, min(start + CHUNK, len(self.clean))))
            changed = part.swap(projector)
            if part.past:
                chunks.append(finish_query(part.model, part.stage, changed, part.past))
            else:
                stream = part.clean.clone()
                stream[:, part.positions] = changed
                chunks.append(finish_from(part.model, part.stage, stream))
        return torch.cat(chunks)


def make_exchange(model: Transformer, pairs: PromptPairs, stage: Stage, positions: Int[Tensor, " swapped"]) -> Exchange:
    """Run both prompts and record what the exchange needs."""
    n_tokens = pairs.clean.layout.n_needed(pairs.clean.tokens.shape[1])
    everywhere = torch.arange(n_tokens)
    clean, corrupt = (
        torch.from_numpy(read_stream(model, prompts, [stage], everywhere)[0]).to(model.device) for prompts in pairs
    )
    past = {}
    if positions.tolist() == [n_tokens - 1]:
        for layer in range(stage.layer + 1, model.config.n_layers):
            sites = [f"blocks.{layer}.attn.hook_{which}" for which in "kv"]
            chunks = list(activations(model, pairs.clean, sites, torch.arange(n_tokens - 1)))
            past[layer] = Past(*(torch.cat(parts).to(model.device) for parts in zip(*chunks, strict=True)))
    return Exchange(model, pairs, stage, positions, clean, (corrupt - clean)[:, positions], past)


def check_swap(exchange: Exchange, basis: Float[np.ndarray, "d_model rank"]) -> None:
    """Check on a few prompts that swapping this subspace acts, and acts only where it should.

    Raises:
        CheckError: swapping an empty subspace or a run with itself changes the prediction, swapping the subspace or the
            whole stream differs from the same edit of the model's own forward pass, or the swapped component is not the
            corrupt run's.
    """
    size = len(basis)
    empty, itself = partial(compare_without_change, basis=np.zeros((size, 1))), exchange.with_itself()
    require_agreement(empty, exchange, "swapping an empty subspace changes something")
    require_agreement(partial(compare_without_change, basis=basis), itself, "swapping a run with itself changes it")
    for name, part in (("a subspace", basis), ("the whole stream", np.eye(size))):
        failure = f"swapping {name} is not the same edit of the forward pass"
        require_agreement(partial(compare_with_plain_swap, basis=part), exchange, failure)
    require_source(exchange, basis)


def compare_without_change(exchange: Exchange, basis: Float[np.ndarray, "d_model rank"]) -> Comparison:
    intact = exchange.intact
    return Comparison(exchange.predict_swap(exchange.projector(basis))[:, None], intact, intact)


def compare_with_plain_swap(exchange: Exchange, basis: Float[np.ndarray, "d_model rank"]) -> Comparison:
    projector = exchange.projector(basis)
    return Comparison(exchange.predict_swap(projector)[:, None], plain_swap(exchange, projector), exchange.intact)


def require_source(exchange: Exchange, basis: Float[np.ndarray, "d_model rank"]) -> None:
    """Require that a swap moves the component in the subspace to the corrupt run's, and nothing else.

    Raises:
        CheckError: it does not.
    """
    inside = torch.from_numpy(basis).to(exchange.clean)
    moved = exchange.swap(inside @ inside.T) - exchange.clean[:, exchange.positions]
    missing = (moved - exchange.difference) @ inside
    leaked = moved - (moved @ inside) @ inside.T
    size = max(exchange.difference.abs().max().item(), 1e-3 * exchange.clean.abs().max().item())
    worst = max(missing.abs().max().item() if inside.shape[1] else 0.0, leaked.abs().max().item())
    if not worst <= 1e-3 * size:
        raise CheckError(f"self-check: after the swap at {exchange.stage} the subspace is not the other run's")


@torch.no_grad()
def plain_swap(exchange: Exchange, projector: Float[Tensor, "d_model d_model"]) -> Float[Tensor, "batch 1"]:
    """The prediction after the swap by the model's own forward passes."""
    model, site = exchange.model, exchange.stage.site
    clean, corrupt = (model.needed(prompts.tokens) for prompts in exchange.pairs)
    source = read_sites(model, corrupt, [site])[site]

    def edit(stream: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        changed = stream.clone()
        changed[:, exchange.positions] += (source - stream)[:, exchange.positions] @ projector
        return changed

    return model(clean, {site: edit})[:, -1:]

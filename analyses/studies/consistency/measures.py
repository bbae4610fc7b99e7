"""Where the heads of a model and of its untrained twin look: retrospective scores by prompt, and mean patterns."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from analyses.studies.consistency.matching import Pattern, descriptions, halves
from interp.model.parallel import map_parts
from interp.scores.kinds import SCORES
from interp.scores.score import weigh, weighted_attention
from interp.scores.weightings import WEIGHTINGS
from training.checkpoints.checkpoint import Checkpoint
from training.config.config import RunConfig
from training.evaluation.evaluate import evaluation_prompts
from training.model.transformer import Transformer
from training.tasks.prompts import Prompts

FLOATS = 2**20  # of attention held at a time by each core: what its cache holds, twice as fast as 2**22


@dataclass(frozen=True)
class Looks:
    """Where one model's heads look.

    Attributes:
        scores: retrospective, on the prompts that judge.
        again: the same averaged over other prompts, those that choose.
        chosen: mean pattern over these.
        judged: mean pattern over those.
    """

    scores: Float[np.ndarray, "prompt class layer head"]
    again: Float[np.ndarray, "class layer head"]
    chosen: Pattern
    judged: Pattern

    @cached_property
    def choosing(self) -> Float[np.ndarray, "layer_head entry"]:
        """Heads described by the pairs and prompts that choose a matching."""
        return descriptions(self.chosen, halves(self.chosen.n_points)[0])

    @cached_property
    def judging(self) -> Float[np.ndarray, "layer_head entry"]:
        """Heads described by the pairs and prompts that judge it."""
        return descriptions(self.judged, halves(self.judged.n_points)[1])

    @property
    def maps(self) -> Float[np.ndarray, "class layer_head"]:
        """One map per class."""
        mean = self.scores.mean(0)
        return mean.reshape(len(mean), -1)


def initial_model(checkpoint: Checkpoint) -> Transformer:
    """The model of the run at step 0: its initialisation, drawn again from its seed."""
    config = checkpoint.config
    model = Transformer(config.model, torch.Generator().manual_seed(config.seeds.init), config.layout)
    return model.requires_grad_(False).eval().to(checkpoint.model.device)


def look(
    model: Transformer, config: RunConfig, classes: Sequence[str], *, n_prompts: int, n_choosing: int, seed: int
) -> Looks:
    """Read a model's attention on prompts of each class.

    Args:
        model: trained or not.
        config: of the run, whose prompts it reads.
        classes: function classes.
        n_prompts: per class, of the stream `test`.
        n_choosing: per class, of the stream `selection`.
        seed: of the prompts.
    """
    prompts = [evaluation_prompts(config, name, n_prompts=n_prompts, seed=seed) for name in classes]
    scores, judged = zip(*(attention(model, one) for one in prompts), strict=True)
    prompts = [
        evaluation_prompts(config, name, n_prompts=n_choosing, seed=seed, stream="selection") for name in classes
    ]
    again, chosen = zip(*(attention(model, one) for one in prompts), strict=True)
    return Looks(
        np.stack(scores, axis=1),
        np.stack([one.mean(0) for one in again]),
        Pattern(np.mean(chosen, axis=0), config.layout),
        Pattern(np.mean(judged, axis=0), config.layout),
    )


def attention(
    model: Transformer, prompts: Prompts
) -> tuple[Float[np.ndarray, "prompt layer head"], Float[np.ndarray, "layer head query_pos key_pos"]]:
    """The retrospective score of every head on every prompt, and its mean pattern."""
    weights = SCORES["retrospective"].weights(prompts.xs, prompts.layout).to(model.device)
    n_at_once = max(1, FLOATS // (prompts.tokens.shape[1] ** 2 * model.config.n_heads))

    @torch.no_grad()
    def read(tokens: Float[Tensor, "batch pos dim"]) -> tuple[Tensor, Tensor]:
        layers = [
            (weigh(layer, weights), layer.sum(0, dtype=torch.float64))
            for layer in weighted_attention(model, tokens.to(model.device), WEIGHTINGS["pattern"])
        ]
        scores, patterns = zip(*layers, strict=True)
        return torch.stack(scores, dim=1).double().cpu(), torch.stack(patterns).cpu()

    scores, patterns = zip(*map_parts(read, prompts.tokens.split(n_at_once)), strict=True)
    return torch.cat(scores).numpy(), (torch.stack(patterns).sum(0) / len(prompts.tokens)).numpy()


def comparable(one: RunConfig, other: RunConfig) -> bool:
    """Whether two models have as many heads in as many layers and read the same prompts."""

    def reads(config: RunConfig) -> tuple[object, ...]:
        model, data = config.model, config.data
        prompts = (model.n_dims, data.inputs[0], data.rotation, data.n_points, data.weights)
        return model.n_layers, model.n_heads, *prompts, config.instruction, config.told_apart

    return reads(one) == reads(other)

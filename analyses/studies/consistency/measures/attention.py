"""Attention of a model and of its untrained twin: retrospective scores by prompt, and mean attention patterns."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from analyses.studies.consistency.measures.matching import Pattern, describe_heads, halves
from interp.ablation.size_classes import ATTENDS
from interp.model.heads import HeadSet, heads_above
from interp.model.parallel import map_parts
from interp.scores.kinds import SCORES
from interp.scores.score import weigh, weighted_attention
from interp.scores.weightings import WEIGHTINGS
from training.checkpoints.checkpoint import Checkpoint
from training.config.config import RunConfig, stream_seed
from training.evaluation.evaluate import evaluation_prompts
from training.model.transformer import Transformer
from training.tasks.prompts import Prompts

FLOATS = 2**20  # of attention held at a time by each core: what its cache holds, twice as fast as 2**22
Row = dict[str, Any]


@dataclass(frozen=True)
class HeadAttention:
    """The attention of one model's heads, on two streams of prompts: `selection` chooses matchings, `test` judges them.

    Attributes:
        scores: retrospective, on the test prompts.
        selection_scores: the same on the selection prompts, averaged over them.
        selection_pattern: mean attention over the selection prompts.
        test_pattern: mean attention over the test prompts.
    """

    scores: Float[np.ndarray, "prompt class layer head"]
    selection_scores: Float[np.ndarray, "class layer head"]
    selection_pattern: Pattern
    test_pattern: Pattern

    @cached_property
    def selection_descriptions(self) -> Float[np.ndarray, "layer_head entry"]:
        """Heads described by the pairs and prompts that choose a matching."""
        return describe_heads(self.selection_pattern, halves(self.selection_pattern.n_points)[0])

    @cached_property
    def test_descriptions(self) -> Float[np.ndarray, "layer_head entry"]:
        """Heads described by the pairs and prompts that judge it."""
        return describe_heads(self.test_pattern, halves(self.test_pattern.n_points)[1])

    @property
    def maps(self) -> Float[np.ndarray, "class layer_head"]:
        """The mean scores of each class."""
        mean = self.scores.mean(0)
        return mean.reshape(len(mean), -1)


@dataclass(frozen=True)
class Model:
    """One of the models under study.

    Attributes:
        checkpoint: trained.
        label: its name where space is short.
        seed: models with the same number share a stream of random numbers.
        trained: its attention.
        untrained: that of its initialisation, the untrained twin.
    """

    checkpoint: Checkpoint
    label: str
    seed: int
    trained: HeadAttention
    untrained: HeadAttention

    @property
    def curriculum(self) -> str:
        return self.checkpoint.config.curriculum

    @property
    def columns(self) -> Row:
        """The columns that name it in every table."""
        return {
            "checkpoint": self.checkpoint.name,
            "step": self.checkpoint.step,
            "curriculum": self.curriculum,
            "seed_group": self.seed,
        }

    @property
    def retrospective_heads(self) -> HeadSet:
        """The heads above one half on any class."""
        return heads_above(ATTENDS, self.trained.scores.mean(0).max(0))

    @property
    def retrospective_mask(self) -> Bool[np.ndarray, "layer head"]:
        """Which heads these are."""
        mask = np.zeros(self.trained.scores.shape[2:], dtype=bool)
        for head in self.retrospective_heads:
            mask[head] = True
        return mask


def initial_model(checkpoint: Checkpoint) -> Transformer:
    """The model of the run at step 0: its initialisation, drawn again from its seed."""
    config = checkpoint.config
    seed = config.seeds.init
    if seed is None:
        seed = stream_seed("untrained", str(checkpoint.directory.resolve()))
    model = Transformer(config.model, torch.Generator().manual_seed(seed), config.layout)
    return model.requires_grad_(False).eval().to(checkpoint.model.device)


def read_attention(
    model: Transformer, config: RunConfig, classes: Sequence[str], *, n_prompts: int, n_choosing: int, seed: int
) -> HeadAttention:
    """The attention of a model on prompts of each class.

    Args:
        model: trained or not.
        config: of the run, whose prompts it reads.
        classes: function classes.
        n_prompts: per class, of the stream `test`.
        n_choosing: per class, of the stream `selection`.
        seed: of the prompts.
    """
    prompts = [evaluation_prompts(config, name, n_prompts=n_prompts, seed=seed) for name in classes]
    scores, patterns = zip(*(scores_and_pattern(model, class_prompts) for class_prompts in prompts), strict=True)
    prompts = [
        evaluation_prompts(config, name, n_prompts=n_choosing, seed=seed, stream="selection") for name in classes
    ]
    choosing = [scores_and_pattern(model, class_prompts) for class_prompts in prompts]
    return HeadAttention(
        np.stack(scores, axis=1),
        np.stack([by_prompt.mean(0) for by_prompt, _ in choosing]),
        Pattern(np.mean([pattern for _, pattern in choosing], axis=0), config.layout),
        Pattern(np.mean(patterns, axis=0), config.layout),
    )


def scores_and_pattern(
    model: Transformer, prompts: Prompts
) -> tuple[Float[np.ndarray, "prompt layer head"], Float[np.ndarray, "layer head query_pos key_pos"]]:
    """The retrospective score of every head on every prompt, and its mean attention pattern."""
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


def comparable(first: RunConfig, second: RunConfig) -> bool:
    """Whether two models have as many heads in as many layers and read the same prompts."""

    def key(config: RunConfig) -> tuple[object, ...]:
        model, data = config.model, config.data
        prompts = (model.n_dims, data.inputs[0], data.rotation, data.n_points, data.weights)
        return model.n_layers, model.n_heads, *prompts, config.instruction, config.instruction_values

    return key(first) == key(second)

"""Attention-pattern scores: where a head looks, with the level that no preference at all would reach."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from interp.engine import read_sites
from interp.heads import all_heads
from training.checkpoint import Checkpoint
from training.config import stream_seed
from training.errors import one_of
from training.evaluate import CHUNK, evaluation_prompts
from training.intervals import mean_interval
from training.prompts import PLAIN, Layout
from training.transformer import Transformer


@dataclass(frozen=True)
class ScoreKind:
    """A weighting of the attention from each y_i to its own x_i.

    Attributes:
        name: on the command line.
        definition: for people.
        n_pairs: how many pairs are read, from the first; None reads all.
        best: the value of a head that only ever looks at its own x.
    """

    name: str
    definition: str
    n_pairs: int | None
    best: float

    def value(self, own_attention: Float[Tensor, "*lead point"]) -> Float[Tensor, "*lead"]:
        return self.best * own_attention[..., : self.n_pairs].mean(-1)

    def chance(self, n_points: int, layout: Layout = PLAIN) -> float:
        """The value under uniform causal attention: y_i sees itself and every token before it, 2i without instruction.

        >>> round(SCORES["paper"].chance(100), 3), round(SCORES["retrospective"].chance(100), 3)
        (0.102, 0.026)
        """
        n_tokens = layout.n_tokens(n_points)
        seen = torch.arange(1, n_tokens + 1, dtype=torch.float64)[layout.y_tokens(n_tokens)]
        return self.value(1 / seen).item()


SCORES = {
    kind.name: kind
    for kind in (
        ScoreKind("retrospective", "mean attention from y_i to x_i over all pairs, maximum 1", None, 1.0),
        ScoreKind("paper", "the published heat maps': sum over the first six pairs / 12, maximum 0.5", 6, 0.5),
    )
}


def score_kind(name: str) -> ScoreKind:
    """The definition behind `--score NAME`.

    Raises:
        UserError: there is none.
    """
    if name not in SCORES:
        raise one_of("score", name, SCORES)
    return SCORES[name]


@dataclass(frozen=True)
class HeadScores:
    """One score of every head on every class.

    Attributes:
        kind: its definition.
        chance: its value under uniform causal attention.
        values: by class, the mean over prompts.
        ci_low: by class, lower end of the 95 % interval over prompts.
        ci_high: upper end.
    """

    kind: ScoreKind
    chance: float
    values: dict[str, Float[np.ndarray, "layer head"]]
    ci_low: dict[str, Float[np.ndarray, "layer head"]]
    ci_high: dict[str, Float[np.ndarray, "layer head"]]

    def mean(self, classes: Sequence[str]) -> Float[np.ndarray, "layer head"]:
        """The average over classes, by which heads are ranked."""
        return np.mean([self.values[name] for name in classes], axis=0)

    def table(self) -> pd.DataFrame:
        """One row per function class and head."""
        rows = []
        for name, values in self.values.items():
            for head in all_heads(*values.shape):
                numbers = (float(array[head]) for array in (values, self.ci_low[name], self.ci_high[name]))
                rows.append((name, str(head), *head, self.kind.name, *numbers, self.chance))
        columns = [
            "function_class",
            "name",
            "layer",
            "head",
            "score_kind",
            "score",
            "ci_low",
            "ci_high",
            "chance",
        ]
        return pd.DataFrame(rows, columns=columns)


def score(
    checkpoint: Checkpoint,
    classes: Sequence[str] | None = None,
    *,
    kind: str = "retrospective",
    n_prompts: int = 1024,
    seed: int = 0,
    stream: str = "test",
) -> HeadScores:
    """Score every head on prompts of each class.

    Args:
        checkpoint: a loaded run (`interp.load`).
        classes: function classes; None takes those of the run.
        kind: `retrospective` or `paper`, see `SCORES`.
        n_prompts: per class.
        seed: of the prompts.
        stream: `selection` gives other prompts than `test`, so that heads can be chosen on one and tested on the other.

    Raises:
        UserError: unknown class or score.

    >>> from interp import load
    >>> bool(score(load("zoo:mixed-0"), ["linear"], n_prompts=64).values["linear"].max() > 0.5)
    True
    """
    chosen = score_kind(kind)
    values, lows, highs = {}, {}, {}
    for name in classes or checkpoint.config.evaluated_classes:
        prompts = evaluation_prompts(checkpoint.config, name, n_prompts=n_prompts, seed=seed, stream=stream)
        by_prompt = chosen.value(own_attention(checkpoint.model, prompts.tokens)).double().numpy()
        values[name] = by_prompt.mean(0)
        lows[name], highs[name] = mean_interval(by_prompt, np.random.default_rng(stream_seed("score", seed, name)))
    return HeadScores(
        chosen, chosen.chance(checkpoint.config.data.n_points, checkpoint.config.layout), values, lows, highs
    )


def own_attention(
    model: Transformer, tokens: Float[Tensor, "batch pos dim"]
) -> Float[Tensor, "batch layer head point"]:
    """The attention that each y_i pays to its own x_i, on the CPU."""
    sites = [f"blocks.{layer}.attn.hook_pattern" for layer in range(model.config.n_layers)]
    chunks = []
    for chunk in tokens.split(CHUNK):
        patterns = read_sites(model, chunk.to(model.device), sites)
        chunks.append(torch.stack([y_to_own_x(patterns[site], model.layout) for site in sites], dim=1).cpu())
    return torch.cat(chunks)


def y_to_own_x(
    pattern: Float[Tensor, "batch head pos pos"], layout: Layout = PLAIN
) -> Float[Tensor, "batch head point"]:
    """Query y_i, key x_i: neighbours, unless an instruction stands between them."""
    n_pos = pattern.shape[-1]
    return pattern[:, :, layout.y_tokens(n_pos)][..., layout.x_tokens(n_pos)].diagonal(dim1=-2, dim2=-1)

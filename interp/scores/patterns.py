"""Attention patterns of heads on real prompts, token by token."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float

from interp.display.result import Axes, Result
from interp.model.engine import read_sites
from interp.model.heads import MLP, HeadSet
from interp.model.opened import opens_models
from interp.model.positions import parse_points, token_names
from interp.scores.head_choice import HeadChoice, resolve_sets
from interp.scores.kinds import SCORES, chance
from interp.scores.score import selection_scores, weigh
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import UserError
from training.evaluation.evaluate import CHUNK, evaluation_prompts
from training.evaluation.own_prompts import OwnPrompts
from training.evaluation.own_run import open_own
from training.model.transformer import Transformer
from training.tasks.prompts import Prompts


@dataclass(frozen=True, repr=False, eq=False)
class Patterns(Result):
    """The attention of some heads in one prompt, or its mean over several.

    Attributes:
        checkpoint: the model's name.
        step: of its training.
        function_class: of the prompts.
        heads: whose attention.
        values: attention of each token to itself and to every token before it.
        tokens: names of the tokens, x0 y0 x1 …
        scores: by name, each head's score on these prompts, then the chance level.
        n_prompts: how many were averaged.
        seed: of the prompts.
    """

    checkpoint: str
    step: int | None
    function_class: str
    heads: HeadSet
    values: Float[np.ndarray, "head query_pos key_pos"]
    tokens: tuple[str, ...]
    scores: Mapping[str, Float[np.ndarray, " head_and_chance"]]
    n_prompts: int
    seed: int

    def plot(self, points: str | int | None = None) -> list[Axes]:
        """A panel per head, rows query and columns key; colours grow with the square root of attention.

        Args:
            points: the pairs to show, such as `0-7`; None shows all.

        Raises:
            UserError: these prompts do not have them, or it is not one range.
        """
        return self.view("plot", self.span(points))

    def span(self, points: str | int | None) -> slice:
        """The tokens from the first of these pairs to the last."""
        if points is None:
            return slice(0, len(self.tokens))
        chosen, *more = parse_points(str(points))
        n_points = sum(name.startswith("x") for name in self.tokens)
        if more or chosen.stop > n_points:
            raise UserError(f"points {points}: one range of the pairs 0-{n_points - 1} is needed")
        first, last = (self.tokens.index(name) for name in (f"x{chosen.start}", f"y{chosen.stop - 1}"))
        return slice(first, last + 1)


@opens_models
def patterns(
    checkpoint: Checkpoint,
    heads: HeadChoice = "top:1",
    name: str | None = None,
    *,
    n_prompts: int = 1,
    seed: int = 0,
    inputs: str | None = None,
    shift: str = "none",
    prompts: OwnPrompts | None = None,
) -> Patterns:
    """The attention of heads, token by token.

    Args:
        checkpoint: a loaded run (`interp.load`).
        heads: see `interp.scores.head_choice.HeadChoice`; `top:K` and `above:SCORE` score on other prompts.
        name: function class; None takes the run's first.
        n_prompts: over which attention is averaged.
        seed: of the prompts; another seed gives another prompt.
        inputs: input distribution; None is the run's first.
        shift: a change of the prompts (`training.tasks.shifts`).
        prompts: of your own, in the place of a class (`interp.OwnPrompts`); heads are chosen on a random half of them.

    Raises:
        UserError: unknown heads, class, inputs or shift, or an MLP, which has no attention.

    >>> from interp import load
    >>> result = patterns(load("zoo:mixed-0"), "0.1", "linear")
    >>> result.tokens[3], result.tokens[2], bool(result.values[0, 3, 2] > 0.9)
    ('y1', 'x1', True)
    """
    checkpoint, n_prompts = open_own(checkpoint, prompts, name, n_prompts, is_split=True)
    config, chosen = checkpoint.config, choose_heads(checkpoint, heads)
    name = name or config.evaluated_classes[0]
    drawn = evaluation_prompts(config, name, n_prompts=n_prompts, seed=seed, inputs=inputs, shift=shift)
    values = mean_patterns(checkpoint.model, drawn, chosen)
    attention, scores = torch.from_numpy(values)[None], {}
    for score_name, kind in SCORES.items():
        weights = kind.weights(drawn.xs, config.layout).mean(0, keepdim=True)
        scores[score_name] = np.append(weigh(attention, weights)[0].numpy(), chance(weights.double()).item())
    tokens = tuple(token_names(config.layout, config.data.n_points))
    return Patterns(checkpoint.name, checkpoint.step, name, chosen, values, tokens, scores, n_prompts, seed)


def choose_heads(checkpoint: Checkpoint, heads: HeadChoice) -> HeadSet:
    """The heads, each once, in the order in which they are named.

    Raises:
        UserError: there are no such heads, or an MLP is among them.
    """
    model = checkpoint.config.model
    sets = resolve_sets(heads, model.n_layers, model.n_heads, partial(selection_scores, checkpoint))
    chosen = tuple(dict.fromkeys(head for members in sets for head in members))
    if any(head.number == MLP for head in chosen):
        raise UserError(f"heads {heads}: an MLP attends to nothing; name heads such as 0.1")
    return chosen


def mean_patterns(model: Transformer, prompts: Prompts, heads: HeadSet) -> Float[np.ndarray, "head query_pos key_pos"]:
    """Their attention, averaged over prompts in float64."""
    sites = {layer: f"blocks.{layer}.attn.hook_pattern" for layer in sorted({head.layer for head in heads})}
    total = 0.0
    for tokens in prompts.tokens.to(model.device).split(CHUNK):
        with torch.no_grad():
            by_site = read_sites(model, tokens, list(sites.values()))
        total = total + torch.stack([by_site[sites[layer]][:, number].double().sum(0) for layer, number in heads])
    return (total / len(prompts.tokens)).cpu().numpy()  # type: ignore[union-attr]

"""Attention scores of any model: the mean attention between tokens of certain roles, with its chance level."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.any_model.attention import read_patterns
from interp.any_model.examples import Examples
from interp.any_model.judge import rows_by_condition
from interp.any_model.task import Task
from interp.any_model.token_roles import KINDS, Roles, kind_called, role_weights
from interp.model.heads import MLP, HeadSet, parse_heads
from interp.scores.kinds import ScoreKind, chance
from interp.scores.patterns import Patterns
from interp.scores.score import HeadScores, weigh
from training.common.bootstrap import mean_interval
from training.common.errors import UserError
from training.config.config import stream_seed


def score(task: Task, kind: str | ScoreKind | None = None, *, seed: int = 0) -> HeadScores:
    """One score of every head on the examples under test.

    Args:
        task: the model and its examples.
        kind: a name in `interp.any_model.token_roles.KINDS`, or a score of your own; None is the task's.
        seed: of the bootstrap.

    Raises:
        UserError: no such score, or roles, ids or attention patterns that it needs are not known.
    """
    chosen = kind_called(kind or task.kind)
    heads, chances = example_scores(task, task.examples, task.roles[0], task.n_examples, chosen)
    rows_of = rows_by_condition(task.conditions, task.n_examples)
    values, lows, highs = {}, {}, {}
    for condition, rows in rows_of.items():
        values[condition] = heads[rows].mean(0)
        rng = np.random.default_rng(stream_seed("score", seed, condition))
        lows[condition], highs[condition] = mean_interval(heads[rows], rng)
    return HeadScores(
        task.name,
        None,
        chosen,
        "pattern",
        "examples",
        "none",
        slice(0, task.network.n_pos),
        values,
        lows,
        highs,
        {condition: float(chances[rows].mean()) for condition, rows in rows_of.items()},
        task.n_examples,
        seed,
    )


def selection_scores(task: Task, kind: str | ScoreKind | None = None) -> Float[np.ndarray, "layer head"]:
    """The scores by which heads are chosen: on the reference examples, which no test shares."""
    heads, _ = example_scores(task, task.reference, task.roles[1], task.n_reference, kind_called(kind or task.kind))
    return heads.mean(0)


def example_scores(
    task: Task, examples: Examples, roles: Roles, n_examples: int, kind: ScoreKind
) -> tuple[Float[np.ndarray, "example layer head"], Float[np.ndarray, " example"]]:
    """The score of every head on every example, and that of uniform attention."""
    heads, chances = [], []
    for rows in task.chunks(n_examples):
        weights = role_weights(kind, roles.rows(rows))
        patterns = read_patterns(task.network, task.rows(examples, rows), task.qkv)
        check_positions(patterns[0], weights)
        heads.append(torch.stack([weigh(pattern, weights) for pattern in patterns], dim=1).double().cpu())
        chances.append(uniform(patterns, weights.double()).expand(len(rows)))
    return torch.cat(heads).numpy(), torch.cat(chances).numpy()


def check_positions(pattern: Tensor, weights: Tensor) -> None:
    if pattern.shape[-1] != weights.shape[-1]:
        raise UserError(f"attention is over {pattern.shape[-1]} tokens, and roles are of {weights.shape[-1]}")


def uniform(
    patterns: Sequence[Float[Tensor, "example head query_pos key_pos"]],
    weights: Float[Tensor, "#example query_pos key_pos"],
) -> Float[Tensor, " _"]:
    """The score of uniform attention: to all tokens where any layer attends forwards, else causal."""
    if any(bool(pattern.triu(1).any()) for pattern in patterns):
        return weights.sum((1, 2)) / weights.shape[-1]
    return chance(weights)


def patterns(task: Task, heads: str | HeadSet = "top:1", *, n_examples: int = 1) -> Patterns:
    """The attention of heads, token by token.

    Args:
        task: the model and its examples.
        heads: whose; `top:K` and `above:SCORE` by the task's score on the reference examples.
        n_examples: 1 for the first example, more for the mean over the first ones.

    Raises:
        UserError: no such heads, or the model gives no attention patterns.
    """
    network = task.network
    named = (
        [heads]
        if not isinstance(heads, str)
        else parse_heads(heads, network.n_layers, network.n_heads, lambda: selection_scores(task))
    )
    chosen = tuple(dict.fromkeys(head for heads in named for head in heads))
    if any(head.number == MLP for head in chosen):
        raise UserError(f"heads {heads}: an MLP has no attention")
    rows = range(min(n_examples, task.n_examples))
    layers = read_patterns(network, task.rows(task.examples, rows), task.qkv)
    values = torch.stack([layers[layer][:, number].double().mean(0) for layer, number in chosen]).cpu().numpy()
    kinds = usable_kinds(task)
    scores = {}
    for kind in kinds:
        weights = role_weights(kind, task.roles[0].rows(rows)).mean(0, keepdim=True)
        own = weigh(torch.from_numpy(values)[None], weights)[0].numpy()
        scores[kind.name] = np.append(own, uniform(layers, weights.double()).item())
    names = tuple(f"{letter}{i}" for i, letter in enumerate(letters(task.roles[0])))
    return Patterns(task.name, None, "examples", chosen, values, names, scores, len(rows), task.seed)


def letters(roles: Roles) -> list[str]:
    """What every token is called: x, y, or t for any other."""
    if not roles.are_given:
        return ["t"] * len(roles.is_x)
    kinds = zip(roles.is_x.tolist(), roles.is_y.tolist(), strict=True)
    return ["x" if is_x else "y" if is_y else "t" for is_x, is_y in kinds]


def usable_kinds(task: Task) -> list[ScoreKind]:
    """The scores for which the roles or ids of tokens are known."""
    roles = task.roles[0]
    needs = {
        "induction": roles.ids is not None,
        "duplicate_token": roles.ids is not None,
        "retrospective": roles.are_given,
    }
    return [kind for name, kind in KINDS.items() if needs.get(name, True)]

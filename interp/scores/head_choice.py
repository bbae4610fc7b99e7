"""Heads as users name them (text, a head, a set, or several sets), resolved for one model."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
from jaxtyping import Float

from interp.model.heads import (
    MLP,
    Head,
    HeadSet,
    Scores,
    all_heads,
    check_head,
    head_set,
    parse_heads,
    refuse_absent_mlps,
    show,
)
from interp.scores.score import selection_scores
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import UserError
from training.options import DEFAULT_PROMPTS

HeadChoice = str | Head | Sequence[Head] | Sequence[HeadSet] | Sequence[str]
"""Text such as `0.1,1.2` or `above:0.5` (`interp.model.heads.SYNTAX`); a `Head`; heads, as one set; several sets, each
of heads or as text."""


def choose_sets(
    checkpoint: Checkpoint,
    heads: HeadChoice,
    *,
    n_prompts: int = DEFAULT_PROMPTS,
    seed: int = 0,
    scores: Float[np.ndarray, "layer head"] | None = None,
) -> list[HeadSet]:
    """The head sets that a choice stands for.

    Args:
        checkpoint: the model.
        heads: see `HeadChoice`.
        n_prompts: per class, for `top:K` and `above:SCORE`, which score on prompts of the stream `selection`.
        seed: of these prompts.
        scores: retrospective scores on selection prompts, if they have been computed.

    Raises:
        UserError: the choice is malformed or empty, or this model has no such head.

    >>> from interp import load
    >>> choose_sets(load("zoo:mixed-0"), Head(0, 1))
    [(Head(layer=0, number=1),)]
    """
    model = checkpoint.config.model
    get_scores = partial(selection_scores, checkpoint, n_prompts, seed) if scores is None else lambda: scores
    sets = resolve_sets(heads, model.n_layers, model.n_heads, get_scores)
    refuse_absent_mlps(sets, model)
    return sets


def choose_heads(checkpoint: Checkpoint, heads: HeadChoice | None) -> HeadSet:
    """The attention heads of all sets that a choice stands for, each once; None takes every head.

    Raises:
        UserError: the choice is malformed or empty, there is no such head, or it is an MLP.

    >>> from interp import load
    >>> show(choose_heads(load("zoo:mixed-0"), "layer:1")), len(choose_heads(load("zoo:mixed-0"), None))
    ('1.0,1.1,1.2,1.3,1.4,1.5,1.6,1.7', 24)
    """
    model = checkpoint.config.model
    if heads is None:
        return all_heads(model.n_layers, model.n_heads)
    chosen = head_set(head for members in choose_sets(checkpoint, heads) for head in members)
    for head in chosen:
        if head.number == MLP:
            raise UserError(f"{head} is an MLP, which has no weights of attention: name heads such as {head.layer}.0")
    return chosen


def resolve_sets(
    heads: HeadChoice, n_layers: int, n_heads: int, get_scores: Callable[[], Scores] | None = None
) -> list[HeadSet]:
    """The head sets that a choice stands for in any model of this size; see `choose_sets`.

    Raises:
        UserError: the choice is malformed or empty, or there is no such head.
    """
    if isinstance(heads, str):
        return parse_heads(heads, n_layers, n_heads, get_scores)
    sets = sets_of(heads, n_layers, n_heads, get_scores)
    if not sets or not all(sets):
        raise UserError("no heads are given: name them as text such as '0.1,1.2', or as sets of Head")
    for members in sets:
        for head in members:
            check_head(head, show(members), n_layers, n_heads)
    return sets


def is_head(value: Any) -> bool:
    """
    Raises:
        UserError: a `Head` without whole numbers, such as `Head("a", 1)`.
    """
    if isinstance(value, Head) and not all(isinstance(number, Integral) for number in value):
        raise UserError(f"{value!r}: layer and head are whole numbers from 0")
    return isinstance(value, Head)


def sets_of(heads: Any, n_layers: int, n_heads: int, get_scores: Callable[[], Scores] | None) -> list[HeadSet]:
    """The sets behind a `Head`, heads, or sets of heads or of text.

    Raises:
        UserError: it is none of these.
    """
    if is_head(heads):
        return [(heads,)]
    if not isinstance(heads, Iterable):
        raise not_heads(heads)
    members = list(heads)
    if members and all(is_head(member) for member in members):
        return [head_set(members)]
    sets: list[HeadSet] = []
    for member in members:
        if isinstance(member, str):
            sets += parse_heads(member, n_layers, n_heads, get_scores)
        elif isinstance(member, Sequence) and all(is_head(head) for head in member):
            sets.append(head_set(member))
        else:
            raise not_heads(member)
    return sets


def not_heads(given: object) -> UserError:
    return UserError(f"heads={given!r}: heads are named as text such as '0.1,1.2', or as Head(LAYER, HEAD)")

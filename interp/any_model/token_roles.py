"""Attention scores stated by roles of tokens: which token is an x or a y, of which pair, and which token ids it holds.

Models over pairs have roles (`xy` repeated), language models have ids; a score names the (query, key) pairs that it
reads from either (`interp.scores.kinds`).
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.scores.kinds import ScoreKind, Tokens, first, key_at, own_x
from training.common.errors import UserError, one_of


class Roles(NamedTuple):
    """What stands where in every example.

    Attributes:
        ids: token ids; None where tokens are no ids.
        is_x: which tokens are an x; all of them where no roles are told.
        is_y: which are a y.
        pair: of every token, counted from 0; -1 before the first.
        are_given: whether x and y were told apart.
    """

    ids: Int[Tensor, "example pos"] | None
    is_x: Bool[Tensor, " pos"]
    is_y: Bool[Tensor, " pos"]
    pair: Int[Tensor, " pos"]
    are_given: bool

    def rows(self, rows: range) -> "Roles":
        """Those of some examples."""
        return self if self.ids is None else self._replace(ids=self.ids[rows.start : rows.stop])


def roles_of(text: str | None, n_pos: int, ids: Int[Tensor, "example pos"] | None) -> Roles:
    """The roles that a text names, a letter per token: x, y, or anything else for neither; repeated to the end.

    Raises:
        UserError: it names no pair, or is longer than the examples.

    >>> roles_of("-xy", 6, None).pair.tolist(), roles_of("xy", 4, None).is_y.tolist()
    ([-1, 0, 0, 0, 1, 1], [False, True, False, True])
    """
    if text is None:
        everywhere = torch.ones(n_pos, dtype=torch.bool)
        return Roles(ids, everywhere, ~everywhere, torch.full((n_pos,), -1), False)
    if not {"x", "y"} <= set(text) or len(text) > n_pos:
        raise UserError(f"roles '{text}': a letter per token is needed, with an x and a y, at most {n_pos} of them")
    letters = np.array(list((text * n_pos)[:n_pos]))
    is_x, is_y = (torch.from_numpy(letters == letter) for letter in "xy")
    return Roles(ids, is_x, is_y, is_x.long().cumsum(0) - 1, True)


def induction(tokens: Tokens) -> Bool[Tensor, "batch query_pos key_pos"]:
    """mean attention from a token to the one that followed its last occurrence, maximum 1"""
    last = last_occurrence(ids_in(tokens))
    return torch.nn.functional.pad(last, (1, -1))  # the key after it


def duplicate_token(tokens: Tokens) -> Bool[Tensor, "batch query_pos key_pos"]:
    """mean attention from a token to its last occurrence, maximum 1"""
    return last_occurrence(ids_in(tokens))


def previous_token(tokens: Tokens) -> Bool[Tensor, "1 query_pos key_pos"]:
    """mean attention to the token before; queries: all but the first token"""
    return key_at(-1)(tokens)


def itself(tokens: Tokens) -> Bool[Tensor, "1 query_pos key_pos"]:
    """mean attention of a token to itself; queries: all but the first token"""
    return key_at(0)(tokens)


def first_token(tokens: Tokens) -> Bool[Tensor, "1 query_pos key_pos"]:
    """mean attention to the first token; queries: all after it"""
    return first(tokens)


def retrospective(tokens: Tokens) -> Bool[Tensor, "1 query_pos key_pos"]:
    """mean attention from y_i to x_i, maximum 1"""
    return own_x(tokens)


def ids_in(tokens: Tokens) -> Int[Tensor, "batch pos"]:
    """The token ids.

    Raises:
        UserError: there are none.
    """
    if tokens.ids is None:
        raise UserError("this score reads token ids, and the examples hold none: tell them, tokens=TENSOR")
    return tokens.ids


def last_occurrence(ids: Int[Tensor, "batch pos"]) -> Bool[Tensor, "batch query_pos key_pos"]:
    """Of every token, where the same token last stood before it.

    >>> last_occurrence(torch.tensor([[7, 5, 7, 7]]))[0].int().tolist()
    [[0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0]]
    """
    same = (ids[:, :, None] == ids[:, None, :]).tril(-1)
    later = same.flip(-1).cumsum(-1).flip(-1)  # occurrences from here to the query
    return same & (later == 1)


KINDS = {
    kind.name: kind
    for kind in (
        ScoreKind("induction", induction),
        ScoreKind("duplicate_token", duplicate_token),
        ScoreKind("retrospective", retrospective),
        ScoreKind("previous_token", previous_token),
        ScoreKind("self", itself),
        ScoreKind("first_token", first_token),
    )
}
"""The scores of models that are no checkpoints."""


def kind_called(given: str | ScoreKind) -> ScoreKind:
    """The score of this name; a score is itself.

    Raises:
        UserError: there is none.
    """
    if isinstance(given, ScoreKind):
        return given
    if given not in KINDS:
        raise one_of("score", given, KINDS)
    return KINDS[given]


def role_weights(kind: ScoreKind, roles: Roles) -> Float[Tensor, "#batch query_pos key_pos"]:
    """What to multiply the attention with before summing it: 1 / number of queries wherever it counts.

    Raises:
        UserError: the score needs roles or ids that are not known, or an example has no query.
    """
    if kind.name == "retrospective" and not roles.are_given:
        raise UserError("the score retrospective reads attention from y to x: tell which tokens they are, roles='xy'")
    xs = torch.zeros(1, 1, 1)
    tokens = Tokens(xs, roles.pair, roles.is_x, roles.is_y, roles.ids)
    mask = kind.targets(tokens)
    n_queries = mask.any(-1).sum(-1)
    if not n_queries.all():
        n_without = int((n_queries == 0).sum())
        raise UserError(f"the score {kind.name} has no query in {n_without} of {len(mask)} examples")
    return kind.best * mask / n_queries[:, None, None]

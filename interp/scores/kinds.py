"""Definitions of attention scores: for each, the (query, key) pairs of a prompt whose attention is averaged."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.model.positions import check_points, show_points
from interp.names import SCORE_DEFINITIONS
from interp.scores.measured import MEASURED, MeasuredScore, measured_score
from training.common.docstrings import docstring
from training.common.errors import UserError, one_of
from training.tasks.prompts import PLAIN, Layout


class Tokens(NamedTuple):
    """The roles of the tokens in prompts of one length.

    Attributes:
        xs: the inputs, by which a key can be chosen.
        pair: index of every token's pair, from 0; -1 for an instruction token.
        is_x: which tokens are an x.
        is_y: which tokens are a y.
        ids: token ids, of models that read them.
    """

    xs: Float[Tensor, "batch point dim"]
    pair: Int[Tensor, " pos"]
    is_x: Bool[Tensor, " pos"]
    is_y: Bool[Tensor, " pos"]
    ids: Int[Tensor, "batch pos"] | None = None


def tokens_of(xs: Float[Tensor, "batch point dim"], layout: Layout = PLAIN) -> Tokens:
    """The roles of the tokens in these prompts.

    >>> tokens_of(torch.zeros(1, 2, 3), Layout(n_instruction=1)).pair.tolist()
    [-1, 0, 0, 1, 1]
    """
    n_points = xs.shape[1]
    n_pos = layout.n_tokens(n_points)
    pair = torch.full((n_pos,), -1, device=xs.device)
    is_x, is_y = (torch.zeros(n_pos, dtype=torch.bool, device=xs.device) for _ in "xy")
    for mask, positions in ((is_x, layout.x_tokens(n_pos)), (is_y, layout.y_tokens(n_pos))):
        mask[positions] = True
        pair[positions] = torch.arange(n_points, device=xs.device)
    return Tokens(xs, pair, is_x, is_y)


Targets = Callable[[Tokens], Bool[Tensor, "#batch query_pos key_pos"]]


def own_x(tokens: Tokens) -> Bool[Tensor, "1 query_pos key_pos"]:
    return (tokens.is_y[:, None] & tokens.is_x & (tokens.pair[:, None] == tokens.pair))[None]


def key_at(offset: int) -> Targets:
    """The token at this offset from each x and y token but the first."""

    def targets(tokens: Tokens) -> Bool[Tensor, "1 query_pos key_pos"]:
        position = torch.arange(len(tokens.pair), device=tokens.pair.device)
        return (later_tokens(tokens)[:, None] & (position == position[:, None] + offset))[None]

    return targets


def first(tokens: Tokens) -> Bool[Tensor, "1 query_pos key_pos"]:
    is_first = torch.arange(len(tokens.pair), device=tokens.pair.device) == 0
    return (later_tokens(tokens)[:, None] & is_first)[None]


def later_tokens(tokens: Tokens) -> Bool[Tensor, " pos"]:
    """All x and y tokens but the first token: those that can attend to anything but themselves."""
    return (tokens.is_x | tokens.is_y) & (torch.arange(len(tokens.pair), device=tokens.pair.device) > 0)


def earlier(query: str, key: str) -> Targets:
    """From the x or y of each pair to all x or y of earlier pairs."""

    def targets(tokens: Tokens) -> Bool[Tensor, "1 query_pos key_pos"]:
        role = {"x": tokens.is_x, "y": tokens.is_y}
        return (role[query][:, None] & role[key] & (tokens.pair < tokens.pair[:, None]))[None]

    return targets


def nearest_y(tokens: Tokens) -> Bool[Tensor, "batch query_pos key_pos"]:
    """From each x to the y of the earlier x at the smallest Euclidean distance; to all of them if there are several."""
    n_points = tokens.xs.shape[1]
    before = torch.ones(n_points, n_points, dtype=torch.bool, device=tokens.xs.device).tril(-1)
    distance = torch.cdist(tokens.xs, tokens.xs, compute_mode="donot_use_mm_for_euclid_dist")  # equal x at exactly 0
    distance = distance.where(before, torch.inf)
    nearest = before & (distance == distance.amin(-1, keepdim=True))
    return earlier("x", "y")(tokens) & nearest[:, tokens.pair][:, :, tokens.pair]


def check_mask(kind: "ScoreKind", mask: Any, n_prompts: int, n_tokens: int) -> Tensor:
    """The keys that a score marks.

    Raises:
        UserError: its targets are no mask [batch or 1, query_pos, key_pos].
    """
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        given = str(mask.dtype).removeprefix("torch.") if isinstance(mask, Tensor) else type(mask).__name__
        raise UserError(f"the targets of the score {kind.name} are {given}: a tensor of bool is needed")
    if mask.ndim != 3 or mask.shape[0] not in (1, n_prompts) or mask.shape[1:] != (n_tokens, n_tokens):
        raise UserError(
            f"the targets of the score {kind.name} are {list(mask.shape)}: [prompts or 1, {n_tokens}, {n_tokens}] "
            "(prompt, query, key) is needed"
        )
    return mask


@dataclass(frozen=True)
class ScoreKind:
    """A score: the mean over queries of the attention that each pays to all of its keys.

    Attributes:
        name: on the command line.
        targets: by query, which keys count; queries without such keys are left out of the mean.
        best: the value of a head that attends only to those keys.
        n_pairs: for a score that is defined on the first pairs only and takes no other range.
    """

    name: str
    targets: Targets
    best: float = 1.0
    n_pairs: int | None = None

    @property
    def definition(self) -> str:
        """In words; for a score of your own, the first line of the docstring of its targets."""
        return SCORE_DEFINITIONS.get(self.name, docstring(self.targets).partition("\n")[0])

    def weights(
        self, xs: Float[Tensor, "batch point dim"], layout: Layout = PLAIN, points: slice | None = None
    ) -> Float[Tensor, "#batch query_pos key_pos"]:
        """Weights by which attention is multiplied and summed: `best` / number of queries where a key counts.

        Args:
            xs: the prompts' inputs.
            layout: where they stand in the token stream.
            points: the pairs, counted from 0, whose tokens are queries; None takes all.

        Raises:
            UserError: no token of these pairs is a query.

        >>> SCORES["retrospective"].weights(torch.zeros(1, 2, 3))[0].tolist()[1]
        [0.5, 0.0, 0.0, 0.0]
        """
        tokens = tokens_of(xs, layout)
        chosen = points_in(self, points, xs.shape[1])
        counts = (tokens.pair >= chosen.start) & (tokens.pair < chosen.stop)
        mask = check_mask(self, self.targets(tokens), len(xs), len(counts)) & counts[:, None]
        n_queries = mask.any(-1).sum(-1)
        if not n_queries.all():
            raise UserError(
                f"--points {show_points(chosen)}: the score {self.name} has no query there (it starts at pair 1)"
            )
        return self.best * mask / n_queries[:, None, None]

    def chance(self, n_points: int, layout: Layout = PLAIN, points: slice | None = None) -> float:
        """The value under uniform causal attention, in prompts whose x all differ.

        >>> round(SCORES["paper"].chance(100), 3), round(SCORES["retrospective"].chance(100), 3)
        (0.102, 0.026)
        """
        xs = torch.arange(n_points, dtype=torch.float64)[None, :, None]
        return chance(self.weights(xs, layout, points)).item()


def chance(weights: Float[Tensor, "batch query_pos key_pos"]) -> Float[Tensor, " batch"]:
    """The score of uniform causal attention, to a query itself and every token before it."""
    return (weights * uniform_attention(weights.shape[-1]).to(weights)).sum((1, 2))


def uniform_attention(n_pos: int) -> Float[Tensor, "pos pos"]:
    """
    >>> uniform_attention(2).tolist()
    [[1.0, 0.0], [0.5, 0.5]]
    """
    visible = torch.ones(n_pos, n_pos, dtype=torch.float64).tril()
    return visible / visible.sum(-1, keepdim=True)


SCORES = {
    kind.name: kind
    for kind in (
        ScoreKind("retrospective", own_x),
        ScoreKind("paper", own_x, best=0.5, n_pairs=6),
        ScoreKind("previous_token", key_at(-1)),
        ScoreKind("self", key_at(0)),
        ScoreKind("first_token", first),
        ScoreKind("x_to_earlier_x", earlier("x", "x")),
        ScoreKind("x_to_earlier_y", earlier("x", "y")),
        ScoreKind("lookup", nearest_y),
        ScoreKind("y_to_earlier_y", earlier("y", "y")),
    )
}


def score_kind(kind: str | ScoreKind | MeasuredScore) -> ScoreKind | MeasuredScore:
    """The score of this name; a definition is returned as it is.

    Raises:
        UserError: there is no such score.
    """
    if not isinstance(kind, str):
        return kind
    if kind in MEASURED:
        return measured_score(kind)
    if kind not in SCORES:
        raise one_of("score", kind, [*SCORES, *MEASURED])
    return SCORES[kind]


def points_in(kind: ScoreKind | MeasuredScore, points: slice | None, n_points: int) -> slice:
    """The pairs that a score reads in prompts of `n_points` pairs.

    Raises:
        UserError: the prompts do not have them all, or the score is defined on fixed pairs.
    """
    if kind.n_pairs is not None:
        if points is not None:
            raise UserError(f"the score {kind.name} reads the first {kind.n_pairs} pairs: it takes no --points")
        return slice(0, min(kind.n_pairs, n_points))
    return slice(0, n_points) if points is None else check_points(points, n_points)

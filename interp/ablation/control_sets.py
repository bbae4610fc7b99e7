"""The random sets that a head set is judged against.

A null set is any other set of the same shape, also one that shares heads with the set under test. Only then is p
uniform if the set was picked at random: against disjoint sets alone, every set that happens to hold one important head
would look special (tests/interp/ablation/test_control_sets.py counts how often). What removal costs without any of the
tested heads is reported beside p.

Only layer-matched sets test the heads rather than their layers. A rule that knows which layer matters, and nothing of
its heads, is rejected too often against the other two (tests/interp/ablation/test_control_sets.py).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Literal

import numpy as np

from interp.model.heads import MLP, Head, HeadSet, head_set

Match = Literal["layer", "size", "norm"]
MATCHES: Mapping[Match, str] = {
    "layer": "as many heads in every layer",
    "size": "as many heads",
    "norm": "as many heads, each with an output norm within a factor of 1.5",
}
CALIPER = 1.5
ENUMERABLE = 100_000
TRIES = 20  # per set

Norms = Mapping[Head, float]
Pool = tuple[Sequence[Head], int]


@dataclass(frozen=True)
class NullSets:
    """The sets that a head set is judged against.

    Attributes:
        sets: distinct; none is the set under test.
        exact: whether these are all the sets there are, so that p needs no sampling.
    """

    sets: tuple[HeadSet, ...]
    exact: bool

    @property
    def smallest_p(self) -> float:
        """The p-value of a set that beats every other: what this null can show at best."""
        return 1 / (len(self.sets) + 1)


def matched_sets(heads: HeadSet, norms: Norms, *, match: Match, n_sets: int, rng: np.random.Generator) -> NullSets:
    """Random sets like `heads`: all of them if there are at most `n_sets`, else a sample without replacement.

    Args:
        heads: the set under test; MLPs are matched with MLPs.
        norms: the output norm of every head and MLP of the model (`interp.ablation.ablate.output_norms`).
        match: see `MATCHES`.
        n_sets: how many to draw.
        rng: draws them.

    >>> norms = {Head(layer, number): 1.0 for layer in range(2) for number in range(4)}
    >>> null = matched_sets((Head(0, 0),), norms, match="layer", n_sets=9, rng=np.random.default_rng(0))
    >>> [str(head) for (head,) in null.sets], null.exact
    (['0.1', '0.2', '0.3'], True)
    """
    pools = pools_for(heads, norms, match)
    n_products = math.prod(math.comb(len(pool), size) for pool, size in pools)
    if n_products <= (ENUMERABLE if match == "norm" else n_sets + 1):
        others = [one for one in dict.fromkeys(enumerate_sets(pools, len(heads))) if one != heads]
        if len(others) <= n_sets:
            return NullSets(tuple(others), exact=True)
        chosen = rng.choice(len(others), n_sets, replace=False)
        return NullSets(tuple(others[i] for i in sorted(chosen)), exact=False)
    drawn: dict[HeadSet, None] = {}
    for _ in range(TRIES * n_sets):  # pools of norms can overlap so much that few sets of distinct heads exist
        one = draw_set(pools, rng)
        if len(one) == len(heads) and one != heads:
            drawn[one] = None
        if len(drawn) == n_sets:
            break
    return NullSets(tuple(drawn), exact=False)


def pools_for(heads: HeadSet, norms: Norms, match: Match) -> list[Pool]:
    """Where the members of a null set come from, and how many from each pool."""
    if match == "norm":
        return [([other for other in norms if alike(head, other, norms)], 1) for head in heads]
    kinds = {kind_of(head, match): 0 for head in heads}
    for head in heads:
        kinds[kind_of(head, match)] += 1
    return [([head for head in norms if kind_of(head, match) == kind], size) for kind, size in kinds.items()]


def kind_of(head: Head, match: Match) -> tuple[bool, int]:
    """Heads of one kind may stand for one another."""
    return head.number == MLP, head.layer if match == "layer" else 0


def alike(head: Head, other: Head, norms: Norms) -> bool:
    same = (head.number == MLP) == (other.number == MLP)
    return same and norms[head] <= CALIPER * norms[other] and norms[other] <= CALIPER * norms[head]


def enumerate_sets(pools: Sequence[Pool], size: int) -> Iterator[HeadSet]:
    for parts in product(*(combinations(pool, count) for pool, count in pools)):
        one = head_set(head for part in parts for head in part)
        if len(one) == size:
            yield one


def draw_set(pools: Sequence[Pool], rng: np.random.Generator) -> HeadSet:
    chosen = [pool[i] for pool, size in pools for i in rng.choice(len(pool), size, replace=False)]
    return head_set(chosen)

"""Control sets: the random head sets with which a head set is compared.

A control set is any other set of the same shape, including those that share heads with the set under test. Only then
is p uniform if that set was picked at random: against disjoint sets alone, every set that happens to contain the one
important head would look special (tests/interp/ablation/test_control_sets.py counts how often). The mean effect of the
disjoint control sets is reported beside p.

Only layer-matched sets test the heads rather than their layers. A rule that knows which layer matters, but nothing
about its heads, is rejected too often against the other two (same file).
"""

import math
from collections import Counter
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
"""Interchangeable components, and how many of them a control set contains."""


@dataclass(frozen=True)
class ControlSets:
    """The control sets of one head set under one matching.

    Attributes:
        sets: distinct; the set under test is not among them.
        exact: whether these are all the sets there are, so that p involves no sampling.
    """

    sets: tuple[HeadSet, ...]
    exact: bool

    @property
    def smallest_p(self) -> float:
        """The p-value of a set whose effect exceeds those of all control sets."""
        return 1 / (len(self.sets) + 1)


def draw_control_sets(
    heads: HeadSet, norms: Norms, *, match: Match, n_sets: int, rng: np.random.Generator
) -> ControlSets:
    """All sets that match `heads` if there are at most `n_sets`, else a random sample without replacement.

    Args:
        heads: the set under test; MLPs are matched with MLPs.
        norms: the output norm of every head and MLP of the model (`interp.ablation.ablate.output_norms`).
        match: see `MATCHES`.
        n_sets: how many to draw.
        rng: draws them.

    >>> norms = {Head(layer, number): 1.0 for layer in range(2) for number in range(4)}
    >>> controls = draw_control_sets((Head(0, 0),), norms, match="layer", n_sets=9, rng=np.random.default_rng(0))
    >>> [str(head) for (head,) in controls.sets], controls.exact
    (['0.1', '0.2', '0.3'], True)
    """
    pools = pools_for(heads, norms, match)
    n_products = math.prod(math.comb(len(pool), size) for pool, size in pools)
    if n_products <= (ENUMERABLE if match == "norm" else n_sets + 1):
        others = [control for control in dict.fromkeys(enumerate_sets(pools, len(heads))) if control != heads]
        if len(others) <= n_sets:
            return ControlSets(tuple(others), exact=True)
        chosen = rng.choice(len(others), n_sets, replace=False)
        return ControlSets(tuple(others[i] for i in sorted(chosen)), exact=False)
    drawn: dict[HeadSet, None] = {}
    for _ in range(TRIES * n_sets):  # pools of norms can overlap so much that few sets of distinct heads exist
        control = head_set(pool[i] for pool, size in pools for i in rng.choice(len(pool), size, replace=False))
        if len(control) == len(heads) and control != heads:
            drawn[control] = None
        if len(drawn) == n_sets:
            break
    return ControlSets(tuple(drawn), exact=False)


def pools_for(heads: HeadSet, norms: Norms, match: Match) -> list[Pool]:
    """Where the members of a control set come from, and how many from each pool."""
    if match == "norm":
        return [([other for other in norms if is_norm_match(head, other, norms)], 1) for head in heads]
    sizes = Counter(matching_group(head, match) for head in heads)
    return [([head for head in norms if matching_group(head, match) == group], size) for group, size in sizes.items()]


def matching_group(head: Head, match: Match) -> tuple[bool, int]:
    return head.number == MLP, head.layer if match == "layer" else 0


def is_norm_match(head: Head, other: Head, norms: Norms) -> bool:
    same_kind = (head.number == MLP) == (other.number == MLP)
    return same_kind and norms[head] <= CALIPER * norms[other] and norms[other] <= CALIPER * norms[head]


def enumerate_sets(pools: Sequence[Pool], size: int) -> Iterator[HeadSet]:
    for parts in product(*(combinations(pool, count) for pool, count in pools)):
        control = head_set(head for part in parts for head in part)
        if len(control) == size:
            yield control

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from interp.ablation.control_sets import CALIPER, ControlSets, draw_control_sets
from interp.model.heads import MLP, Head, all_heads, head_set
from interp.statistics.effects import permutation_p
from interp.statistics.seeds import null_means

COMPONENTS = [*all_heads(3, 4), *(Head(layer, MLP) for layer in range(3))]
NORMS = {head: 1.0 + 0.13 * place for place, head in enumerate(COMPONENTS)}


@given(
    heads=st.sets(st.sampled_from(COMPONENTS), min_size=1, max_size=5),
    match=st.sampled_from(["layer", "size", "norm"]),
    n_sets=st.integers(0, 40),
    seed=st.integers(0, 99),
)
@settings(deadline=None)
def test_null_sets_are_distinct_matched_and_never_the_set_itself(heads, match, n_sets, seed):
    heads = head_set(heads)
    null = draw_control_sets(heads, NORMS, match=match, n_sets=n_sets, rng=np.random.default_rng(seed))
    assert len(set(null.sets)) == len(null.sets) <= n_sets
    assert heads not in null.sets
    for control in null.sets:
        assert len(set(control)) == len(heads)
        assert sum(head.number == MLP for head in control) == sum(head.number == MLP for head in heads)
        if match == "layer":
            assert [head.layer for head in control] == [head.layer for head in heads]


def test_layer_matched_sets_of_the_papers_seven_heads():
    """arXiv 2404.03558, figure 2: four heads of layer 4, two of layer 5, one of layer 6, of eight each."""
    seven = head_set([Head(3, h) for h in (0, 4, 5, 7)] + [Head(4, 3), Head(4, 7), Head(5, 6)])
    norms = dict.fromkeys(all_heads(12, 8), 1.0)
    null = draw_control_sets(seven, norms, match="layer", n_sets=20_000, rng=np.random.default_rng(0))
    assert null.exact
    assert len(null.sets) == math.comb(8, 4) * math.comb(8, 2) * 8 - 1
    assert sum(not set(one) & set(seven) for one in null.sets) == 1 * 15 * 7


@pytest.mark.parametrize("match", ["layer", "size", "norm"])
def test_all_heads_have_no_matched_set(match):
    norms = {head: norm for head, norm in NORMS.items() if head.number != MLP}
    null = draw_control_sets(all_heads(3, 4), norms, match=match, n_sets=10, rng=np.random.default_rng(0))
    assert null.sets == ()


def test_norm_matched_heads_lie_within_the_caliper():
    (head,) = chosen = (Head(1, 1),)
    null = draw_control_sets(chosen, NORMS, match="norm", n_sets=100, rng=np.random.default_rng(0))
    alike = {
        other
        for other in NORMS
        if other != head and other.number != MLP and 1 / CALIPER <= NORMS[other] / NORMS[head] <= CALIPER
    }
    assert null.exact
    assert {other for (other,) in null.sets} == alike
    assert 0 < len(alike) < 11


def matched(heads, norms, match, n_sets):
    return draw_control_sets(head_set(heads), norms, match=match, n_sets=n_sets, rng=np.random.default_rng(0))


def test_a_head_at_the_edge_of_the_caliper_is_alike():
    norms = {Head(0, number): norm for number, norm in enumerate([3.0, 2.0, 4.5, 1.99, 4.51])}
    assert [str(other) for (other,) in matched([Head(0, 0)], norms, "norm", 9).sets] == ["0.1", "0.2"]


@pytest.mark.parametrize(
    ("match", "size", "n_others"), [("layer", 1, 3), ("size", 1, 11), ("size", 2, 65), ("norm", 2, 65)]
)
def test_all_sets_are_taken_where_there_are_no_more_than_asked_for(match, size, n_others):
    """Twelve heads of one norm in three layers: two alike heads can be drawn in 144 ways, which are 66 sets."""
    norms = dict.fromkeys(all_heads(3, 4), 1.0)
    heads = all_heads(3, 4)[:size]
    every = matched(heads, norms, match, n_others)
    assert (len(set(every.sets)), every.exact) == (n_others, True)
    one_less = matched(heads, norms, match, n_others - 1)
    assert (len(set(one_less.sets)), one_less.exact) == (n_others - 1, False)
    assert matched(heads, norms, match, n_others + 1) == every


def test_nothing_is_matched_with_nothing():
    assert matched([], NORMS, "layer", 5) == matched([], NORMS, "norm", 5) == ControlSets((), exact=True)


def test_sets_that_leave_out_one_head_in_eight_are_found():
    heads = [head for head in all_heads(2, 8) if head.number != 3]
    null = matched(heads, dict.fromkeys(all_heads(2, 8), 1.0), "layer", 20)
    assert len(set(null.sets)) == 20
    assert {len(one) for one in null.sets} == {14}


def test_sampled_sets_are_uniform():
    norms = dict.fromkeys(all_heads(1, 5), 1.0)
    rng = np.random.default_rng(0)
    counts: dict[object, int] = {}
    for _ in range(4000):
        (control,) = draw_control_sets((Head(0, 0),), norms, match="layer", n_sets=1, rng=rng).sets
        counts[control] = counts.get(control, 0) + 1
    assert len(counts) == 4
    assert all(abs(count - 1000) < 5 * math.sqrt(1000 * 0.75) for count in counts.values())


def p_of_random_sets(effects, size, disjoint, repeats=600):
    """p-values of target sets that were drawn at random, in a model whose heads have these effects (which add up)."""
    rng = np.random.default_rng(1)
    heads = list(effects)
    norms = dict.fromkeys(heads, 1.0)
    p_values = []
    for _ in range(repeats):
        target = head_set(heads[i] for i in rng.choice(len(heads), size, replace=False))
        null = draw_control_sets(target, norms, match="size", n_sets=99, rng=rng).sets
        if disjoint:
            null = [one for one in null if not set(one) & set(target)]
        cost = lambda one: sum(effects[head] for head in one)  # noqa: E731
        p_values.append(permutation_p(cost(target), np.array([cost(one) for one in null])))
    return np.array(p_values)


@pytest.mark.slow
def test_p_of_a_random_set_is_uniform_and_would_not_be_against_disjoint_sets():
    """One head of twenty-four that matters: a random set of four holds it every sixth time."""
    rng = np.random.default_rng(0)
    effects = {head: 0.01 * rng.normal() for head in all_heads(3, 8)}
    effects[Head(0, 1)] = 1.0
    p_values = p_of_random_sets(effects, 4, disjoint=False)
    for level in (0.05, 0.1, 0.2, 0.5):
        assert abs((p_values <= level).mean() - level) < 4 * math.sqrt(level * (1 - level) / len(p_values))
    wrong = p_of_random_sets(effects, 4, disjoint=True)
    assert (wrong <= 0.05).mean() > 0.12


def rejected_by_a_rule_that_knows_the_layer(rng, n_models: int) -> dict[str, bool]:
    """Layer 0 matters and its heads do alike; two of them are picked blindly, in every one of some models."""
    heads = all_heads(3, 8)
    own, null, by_size = {}, {}, []
    for model in range(n_models):
        cost = {head: rng.exponential() * (3.0 if head.layer == 0 else 1.0) for head in heads}
        target = head_set(Head(0, int(number)) for number in rng.choice(8, 2, replace=False))
        norms = dict.fromkeys(heads, 1.0)
        sets = {
            match: draw_control_sets(target, norms, match=match, n_sets=99, rng=rng).sets for match in ("layer", "size")
        }
        effects = {match: np.array([sum(cost[head] for head in other) for other in sets[match]]) for match in sets}
        own[model], null[model] = sum(cost[head] for head in target), effects["layer"]
        by_size.append(permutation_p(own[model], effects["size"]) <= 0.05)
    mean = float(np.mean(list(own.values())))
    pooled = permutation_p(mean, null_means([[model] for model in own], null, own, rng)) <= 0.05
    return {"layer": permutation_p(own[0], null[0]) <= 0.05, "size": by_size[0], "pooled": pooled}


@pytest.mark.slow
def test_only_layer_matched_sets_hold_their_level_where_the_rule_knows_the_layer(rng):
    cases = [rejected_by_a_rule_that_knows_the_layer(rng, n_models=3) for _ in range(400)]
    rates = {key: np.mean([case[key] for case in cases]) for key in cases[0]}
    most = binom.ppf(0.9999, 400, 0.05) / 400
    assert rates["layer"] <= most
    assert rates["pooled"] <= most
    assert rates["size"] > 2 * 0.05

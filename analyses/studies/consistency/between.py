"""Do two models have the same heads - by number, and by function?

1. By number: heads above one half that have the same layer and number, against numbering heads anew within layers.
2. By function: heads matched by attention (`analyses.studies.consistency.matching`), judged at other pairs of other
   prompts, against random matchings and against the untrained twins of the same two models.
3. Beyond kinds: the same against models put together from heads of others (`analyses.studies.consistency.kinds`), and
   without the heads above one half.
4. Models that share a stream of random numbers share their heads by number: such pairs stand apart and are no evidence.

Intervals over models are jackknifed, a seed at a time (`interp.statistics.seed_intervals`).
"""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from analyses.studies.consistency.kinds import likeness_to, matched_with_kinds
from analyses.studies.consistency.matching import WITHIN, Within, blocks, compare, likeness
from analyses.studies.consistency.measures import comparable
from analyses.studies.consistency.within import Model, Row
from interp.statistics.agreement import coincidence_p
from interp.statistics.seed_intervals import NOTHING, Estimate, jackknife
from training.common.output import records
from training.common.table_rows import where
from training.config.config import stream_seed

COLUMNS = ("by_index", "matched", "chance", "p_index", "p_matched")
EVERYONE, FOUND = "all", "above one half"
Unit = tuple[str, int]  # curriculum and independent seed


def pairs_of(models: Sequence[Model]) -> list[tuple[int, int]]:
    """The pairs that can be compared."""
    places = combinations(range(len(models)), 2)
    return [(a, b) for a, b in places if comparable(models[a].checkpoint.config, models[b].checkpoint.config)]


def pairs_table(models: Sequence[Model], seed: int) -> pd.DataFrame:
    """One row per pair of models, `within` (matches sought in the layer or the whole model) and state.

    Columns: `same_stream`; `n_found`, `n_found_other`, the heads above one half of the trained models; of `n_possible`
    that could, how many have the same number, `n_coincide`, how many would by chance, `expected`, and how many are
    matched with one another, `n_matched`; `by_index`, `matched`, `chance`, `p_index` and `p_matched`
    (`analyses.studies.consistency.matching.Matched`); `kinds`, how alike they are to models put together from heads of
    others (trained models), and `rest_excess`, `matched` less `chance` without the heads above one half.
    """
    return pd.DataFrame([row for a, b in pairs_of(models) for row in pair_rows(models[a], models[b], models, seed)])


def pair_rows(one: Model, other: Model, models: Sequence[Model], seed: int) -> list[Row]:
    names = (one.checkpoint.name, other.checkpoint.name)
    n_layers, n_heads = one.trained.scores.shape[2:]
    rng = np.random.default_rng(stream_seed("matching", seed, *names))
    ours, theirs = found_mask(one), found_mask(other)
    about = {
        "checkpoint": names[0],
        "other": names[1],
        "curriculum": one.curriculum,
        "other_curriculum": other.curriculum,
        "seed_group": one.seed,
        "other_seed_group": other.seed,
        "same_stream": one.seed == other.seed,
        "n_found": int(ours.sum()),
        "n_found_other": int(theirs.sum()),
        "n_possible": int(np.minimum(ours.sum(1), theirs.sum(1)).sum()),
        "n_coincide": int((ours & theirs).sum()),
        "expected": float((ours.sum(1) * theirs.sum(1)).sum() / n_heads),
    }
    rows, kinds = [], matched_kinds(one, other, models, seed)
    for state, a, b in (("trained", one.trained, other.trained), ("untrained", one.untrained, other.untrained)):
        chosen, judged = likeness(a.choosing, b.choosing), likeness(a.judging, b.judging)
        for within in WITHIN:
            found = compare(chosen, judged, blocks(n_layers, n_heads, within), rng)
            n_matched = int((ours.ravel() & theirs.ravel()[found.match]).sum())
            measured = {"n_matched": n_matched} | {name: getattr(found, name) for name in COLUMNS}
            measured["kinds"] = kinds[within] if state == "trained" else math.nan
            measured["rest_excess"] = rest_excess(judged, found.match, ours, theirs, blocks(n_layers, n_heads, within))
            rows.append(about | {"state": state, "within": within} | measured)
    return rows


def matched_kinds(one: Model, other: Model, models: Sequence[Model], seed: int) -> dict[Within, float]:
    """How alike either model of a pair is to models put together from heads of others, mean over both.

    Heads are drawn from models that are independent of both, and have heads above one half where the model that they
    stand for has; NaN without such models.
    """
    rng = np.random.default_rng(stream_seed("kinds", seed, one.checkpoint.name, other.checkpoint.name))
    means = []
    for kept, replaced in ((one, other), (other, one)):
        config, seeds = kept.checkpoint.config, (kept.seed, replaced.seed)
        pool = [
            model.trained
            for model in models
            if model.seed not in seeds
            and bool(model.found) == bool(replaced.found)
            and comparable(model.checkpoint.config, config)
        ]
        if not pool:
            return dict.fromkeys(WITHIN, math.nan)
        n_layers, n_heads = kept.trained.scores.shape[2:]
        means.append(matched_with_kinds(likeness_to(kept.trained, pool), n_layers, n_heads, rng))
    return {within: float(np.mean([mean[within] for mean in means])) for within in WITHIN}


def rest_excess(
    judged: Float[np.ndarray, "layer_head layer_head"],
    match: Int[np.ndarray, " layer_head"],
    ours: Bool[np.ndarray, "layer head"],
    theirs: Bool[np.ndarray, "layer head"],
    among: Sequence[slice],
) -> float:
    """How much more alike matched heads are than random ones, of those that are not above one half in either model."""
    rest, other_rest = ~ours.ravel(), ~theirs.ravel()
    kept = rest & other_rest[match]
    parts = [judged[part, part][np.ix_(rest[part], other_rest[part])] for part in among]
    chance = np.concatenate([np.full(int(kept[part].sum()), p.mean()) for part, p in zip(among, parts, strict=True)])
    return float(judged[np.arange(len(match)), match][kept].mean() - chance.mean())


def found_mask(model: Model) -> np.ndarray:
    """Which heads are above one half, [layer head]."""
    mask = np.zeros(model.trained.scores.shape[2:], dtype=bool)
    for head in model.found:
        mask[head] = True
    return mask


class Coincidences(NamedTuple):
    """Heads above one half with the same number in two models, over all independent pairs.

    Attributes:
        n_heads: such heads.
        expected: of them, if every model's heads were numbered anew.
        p_value: that as many coincide by chance.
        n_pairs: of models that both have heads above one half.
        n_sharing: of these, pairs with a head that coincides.
    """

    n_heads: int
    expected: float
    p_value: float
    n_pairs: int
    n_sharing: int


def coincidences(models: Sequence[Model], seed: int) -> Coincidences:
    """Heads above one half with the same number in independent models."""
    masks = [found_mask(model) for model in models]
    independent = [
        (a, b) for a, b in pairs_of(models) if models[a].seed != models[b].seed and masks[a].any() and masks[b].any()
    ]
    if not independent:
        return Coincidences(0, 0.0, np.nan, 0, 0)
    rng = np.random.default_rng(stream_seed("coincidence", seed))
    n_sharing = sum(bool((masks[a] & masks[b]).any()) for a, b in independent)
    return Coincidences(*coincidence_p(masks, independent, rng), len(independent), n_sharing)


MEASURES = ("by_index", "matched", "chance", "by_index_excess", "matched_excess", "untrained_excess", "learned")
MEASURES += ("kinds", "beyond_kinds", "rest_excess")


def between_table(pairs: pd.DataFrame) -> pd.DataFrame:
    """One row per pair of curricula, `within` and measure: the mean over independent pairs, jackknifed over seeds.

    Measures: those of `pairs_table`; `by_index_excess` and `matched_excess`, less `chance`; `untrained_excess`, the
    same of the untrained twins; `learned`, the difference of these two; `beyond_kinds`, `matched` less `kinds`. The
    curricula `all` stand for every pair, and `above one half` for every pair of models that both have such heads.
    """
    rows = []
    for within in WITHIN if len(pairs) else ():
        for name, members in grouped(measured(where(pairs, within=within))).items():
            counts = {"n_pairs": len(members), "n_seeds": n_seeds(members)}
            for measure in MEASURES:
                estimate = over_pairs(members, measure)
                interval = {"value": estimate.value, "ci_low": estimate.low, "ci_high": estimate.high}
                rows.append({"curricula": name, "within": within, "measure": measure} | counts | interval)
    return pd.DataFrame(rows)


def measured(pairs: pd.DataFrame) -> list[Row]:
    """One row per independent pair: the trained models' numbers, and the excesses."""
    rows = []
    for row, twins in zip(*(records(where(pairs, state=state)) for state in ("trained", "untrained")), strict=True):
        excess, untrained = row["matched"] - row["chance"], twins["matched"] - twins["chance"]
        more = {"by_index_excess": row["by_index"] - row["chance"], "matched_excess": excess}
        more |= {"untrained_excess": untrained, "learned": excess - untrained}
        rows.append(row | more | {"beyond_kinds": row["matched"] - row["kinds"]})
    return [row for row in rows if not row["same_stream"]]


def grouped(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The pairs that belong to each row of the table; a group may be empty of pairs and is left out then."""
    groups = {EVERYONE: list(rows), FOUND: [row for row in rows if row["n_found"] and row["n_found_other"]]}
    for row in rows:
        names = sorted((row["curriculum"], row["other_curriculum"]))
        groups.setdefault(" & ".join(names), []).append(row)
    return {name: members for name, members in groups.items() if members}


def units(row: Row) -> tuple[Unit, Unit]:
    """The two seeds of curricula that a pair compares."""
    return (row["curriculum"], row["seed_group"]), (row["other_curriculum"], row["other_seed_group"])


def n_seeds(rows: Sequence[Row]) -> int:
    return len({seed for row in rows for _, seed in units(row)})


def over_pairs(rows: Sequence[Row], measure: str) -> Estimate:
    """The mean over pairs of seeds, with its jackknife interval; two curricula are two samples, else all are one."""
    by_pair: dict[tuple[Unit, Unit], list[float]] = {}
    for row in rows:
        by_pair.setdefault(units(row), []).append(row[measure])
    of_pairs = {pair: float(np.mean(values)) for pair, values in by_pair.items()}
    everyone = {unit for pair in of_pairs for unit in pair}
    curricula = sorted({name for name, _ in everyone})
    crossed = len(curricula) == 2 and all(one[0] != other[0] for one, other in of_pairs)
    pools = [[name] for name in curricula] if crossed else [curricula]
    samples = [{seed for name, seed in everyone if name in pool} for pool in pools]

    def mean_of(kept: frozenset[int]) -> float:
        left = [value for (one, other), value in of_pairs.items() if one[1] in kept and other[1] in kept]
        return float(np.mean(left)) if left else math.nan

    return jackknife([sorted(sample) for sample in samples], mean_of)


def contrast_within(rows: Sequence[Row], curriculum: str, measure: str) -> Estimate:
    """Pairs of one curriculum less pairs of it and another, jackknifed over the seeds of both."""
    by_pair: dict[bool, list[tuple[tuple[int, int], float]]] = {True: [], False: []}
    seeds: dict[bool, set[int]] = {True: set(), False: set()}
    for row in rows:
        names = (row["curriculum"], row["other_curriculum"])
        if curriculum in names:
            pair = (row["seed_group"], row["other_seed_group"])
            by_pair[names[0] == names[1]].append((pair, row[measure]))
            for name, seed in units(row):
                seeds[name == curriculum].add(seed)

    def difference(kept: frozenset[int]) -> float:
        inside, outside = ([value for pair, value in by_pair[same] if kept.issuperset(pair)] for same in (True, False))
        return float(np.mean(inside) - np.mean(outside)) if inside and outside else math.nan

    if not (by_pair[True] and by_pair[False]) or seeds[True] & seeds[False]:
        return NOTHING
    return jackknife([sorted(seeds[True]), sorted(seeds[False])], difference)

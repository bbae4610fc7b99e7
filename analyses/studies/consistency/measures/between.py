"""Do two models have the same heads, by number and by function?

1. By number: heads above one half with the same layer and number, compared with renumbering heads at random within
   layers.
2. By function: heads matched by attention (`matching`), judged at other pairs of other prompts, compared with random
   matchings and with the untrained twins of the same two models.
3. More than kinds of heads: the similarity of two models less that of a model and composite models of heads from
   others (`kinds`), and the excess over random matchings without the heads above one half.
4. Models that share a stream of random numbers have the same heads by number: such pairs are reported apart and are no
   evidence.

Intervals over models are jackknifed, one seed at a time (`interp.statistics.seed_intervals`).
"""

import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from analyses.studies.consistency.measures.attention import Model, Row, comparable
from analyses.studies.consistency.measures.kinds import match_composites, similarity_to_pool
from analyses.studies.consistency.measures.matching import WITHIN, Within, blocks, match_heads, similarity
from interp.statistics.agreement import coincidence_p
from interp.statistics.seed_intervals import NOTHING, Estimate, jackknife
from training.common.output import records
from training.common.table_rows import where
from training.config.config import stream_seed

ALL_PAIRS, BOTH_RETROSPECTIVE = "all", "above one half"
MATCHED_COLUMNS = ("by_index", "matched", "chance", "p_index", "p_matched")
MEASURES = ("by_index", "matched", "chance", "by_index_excess", "matched_excess", "untrained_excess", "learned")
MEASURES += ("kinds", "beyond_kinds", "rest_excess")
Unit = tuple[str, int]  # curriculum and independent seed


def comparable_pairs(models: Sequence[Model]) -> list[tuple[int, int]]:
    configs = [model.checkpoint.config for model in models]
    return [(a, b) for a, b in combinations(range(len(models)), 2) if comparable(configs[a], configs[b])]


def pairs_table(models: Sequence[Model], seed: int) -> pd.DataFrame:
    """One row per pair of models, `within` (matches sought in the layer or the whole model) and state.

    Columns: `same_stream`; `n_found`, `n_found_other`, the heads above one half of the trained models; of `n_possible`
    that could, how many have the same number, `n_coincide`, how many would by chance, `expected`, and how many are
    matched with one another, `n_matched`; `by_index`, `matched`, `chance`, `p_index` and `p_matched` (`Matched`);
    `kinds`, the similarity to composite models (trained models only), and `rest_excess`, `matched` minus `chance`
    without the heads above one half.
    """
    return pd.DataFrame(
        [row for a, b in comparable_pairs(models) for row in pair_rows(models[a], models[b], models, seed)]
    )


def pair_rows(first: Model, second: Model, models: Sequence[Model], seed: int) -> list[Row]:
    names = (first.checkpoint.name, second.checkpoint.name)
    n_layers, n_heads = first.trained.scores.shape[2:]
    rng = np.random.default_rng(stream_seed("matching", seed, *names))
    ours, theirs = first.retrospective_mask, second.retrospective_mask
    columns = {
        "checkpoint": names[0],
        "other": names[1],
        "curriculum": first.curriculum,
        "other_curriculum": second.curriculum,
        "seed_group": first.seed,
        "other_seed_group": second.seed,
        "same_stream": first.seed == second.seed,
        "n_found": int(ours.sum()),
        "n_found_other": int(theirs.sum()),
        "n_possible": int(np.minimum(ours.sum(1), theirs.sum(1)).sum()),
        "n_coincide": int((ours & theirs).sum()),
        "expected": float((ours.sum(1) * theirs.sum(1)).sum() / n_heads),
    }
    rows, kinds = [], composite_similarity(first, second, models, seed)
    for state, a, b in (("trained", first.trained, second.trained), ("untrained", first.untrained, second.untrained)):
        selection = similarity(a.selection_descriptions, b.selection_descriptions)
        test = similarity(a.test_descriptions, b.test_descriptions)
        for within in WITHIN:
            among = blocks(n_layers, n_heads, within)
            result = match_heads(selection, test, among, rng)
            measured: dict[str, Any] = {"n_matched": int((ours.ravel() & theirs.ravel()[result.match]).sum())}
            measured |= {name: getattr(result, name) for name in MATCHED_COLUMNS}
            measured["kinds"] = kinds[within] if state == "trained" else math.nan
            measured["rest_excess"] = excess_of_others(test, result.match, ours, theirs, among)
            rows.append(columns | {"state": state, "within": within} | measured)
    return rows


def composite_similarity(first: Model, second: Model, models: Sequence[Model], seed: int) -> dict[Within, float]:
    """The similarity of either model of a pair to composite models in place of the other, mean over both.

    Heads are drawn from models that are independent of both, and that have heads above one half if the replaced model
    has any; NaN without such models.
    """
    rng = np.random.default_rng(stream_seed("kinds", seed, first.checkpoint.name, second.checkpoint.name))
    means = []
    for kept, replaced in ((first, second), (second, first)):
        pool = [
            model.trained
            for model in models
            if model.seed not in (kept.seed, replaced.seed)
            and bool(model.retrospective_heads) == bool(replaced.retrospective_heads)
            and comparable(model.checkpoint.config, kept.checkpoint.config)
        ]
        if not pool:
            return dict.fromkeys(WITHIN, math.nan)
        n_layers, n_heads = kept.trained.scores.shape[2:]
        means.append(match_composites(similarity_to_pool(kept.trained, pool), n_layers, n_heads, rng))
    return {within: float(np.mean([mean[within] for mean in means])) for within in WITHIN}


def excess_of_others(
    test: Float[np.ndarray, "layer_head layer_head"],
    match: Int[np.ndarray, " layer_head"],
    ours: Bool[np.ndarray, "layer head"],
    theirs: Bool[np.ndarray, "layer head"],
    among: Sequence[slice],
) -> float:
    """Similarity of matched heads minus that of random ones, over the heads above one half in neither model."""
    rest, other_rest = ~ours.ravel(), ~theirs.ravel()
    kept = rest & other_rest[match]
    parts = [test[part, part][np.ix_(rest[part], other_rest[part])] for part in among]
    chance = np.concatenate([np.full(int(kept[part].sum()), p.mean()) for part, p in zip(among, parts, strict=True)])
    return float(test[np.arange(len(match)), match][kept].mean() - chance.mean())


class Coincidences(NamedTuple):
    """Heads above one half with the same number in two models, over all independent pairs.

    Attributes:
        n_heads: such heads.
        expected: of them, if every model's heads were renumbered at random.
        p_value: that as many coincide by chance.
        n_pairs: of models that both have heads above one half.
        n_sharing: of these, pairs with a head that coincides.
    """

    n_heads: int
    expected: float
    p_value: float
    n_pairs: int
    n_sharing: int


def count_coincidences(models: Sequence[Model], seed: int) -> Coincidences:
    """Heads above one half with the same number in independent models."""
    masks = [model.retrospective_mask for model in models]
    independent = [
        (a, b)
        for a, b in comparable_pairs(models)
        if models[a].seed != models[b].seed and masks[a].any() and masks[b].any()
    ]
    if not independent:
        return Coincidences(0, 0.0, np.nan, 0, 0)
    rng = np.random.default_rng(stream_seed("coincidence", seed))
    n_sharing = sum(bool((masks[a] & masks[b]).any()) for a, b in independent)
    return Coincidences(*coincidence_p(masks, independent, rng), len(independent), n_sharing)


def between_table(pairs: pd.DataFrame) -> pd.DataFrame:
    """One row per pair of curricula, `within` and measure: the mean over independent pairs, jackknifed over seeds.

    Measures: those of `pairs_table`; `by_index_excess` and `matched_excess`, minus `chance`; `untrained_excess`, the
    same of the untrained twins; `learned`, the difference of these two; `beyond_kinds`, `matched` minus `kinds`. The
    curricula `all` stand for every pair, and `above one half` for every pair of models that both have such heads.
    """
    rows = []
    for within in WITHIN if len(pairs) else ():
        for name, members in group_pairs(excess_rows(where(pairs, within=within))).items():
            counts = {"n_pairs": len(members), "n_seeds": count_seeds(members)}
            for measure in MEASURES:
                estimate = mean_over_seed_pairs(members, measure)
                interval = {"value": estimate.value, "ci_low": estimate.low, "ci_high": estimate.high}
                rows.append({"curricula": name, "within": within, "measure": measure} | counts | interval)
    return pd.DataFrame(rows)


def excess_rows(pairs: pd.DataFrame) -> list[Row]:
    """One row per independent pair: the trained models' numbers, and the excesses."""
    rows = []
    for row, twins in zip(*(records(where(pairs, state=state)) for state in ("trained", "untrained")), strict=True):
        excess, untrained = row["matched"] - row["chance"], twins["matched"] - twins["chance"]
        excesses = {
            "by_index_excess": row["by_index"] - row["chance"],
            "matched_excess": excess,
            "untrained_excess": untrained,
            "learned": excess - untrained,
            "beyond_kinds": row["matched"] - row["kinds"],
        }
        rows.append(row | excesses)
    return [row for row in rows if not row["same_stream"]]


def group_pairs(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The pairs by name of the group that a row of the table is about; groups without pairs are left out."""
    groups = {
        ALL_PAIRS: list(rows),
        BOTH_RETROSPECTIVE: [row for row in rows if row["n_found"] and row["n_found_other"]],
    }
    for row in rows:
        curricula = sorted((row["curriculum"], row["other_curriculum"]))
        groups.setdefault(" & ".join(curricula), []).append(row)
    return {name: members for name, members in groups.items() if members}


def seed_units(row: Row) -> tuple[Unit, Unit]:
    """The curricula and seeds of the two models of a pair."""
    return (row["curriculum"], row["seed_group"]), (row["other_curriculum"], row["other_seed_group"])


def count_seeds(rows: Sequence[Row]) -> int:
    return len({seed for row in rows for _, seed in seed_units(row)})


def mean_over_seed_pairs(rows: Sequence[Row], measure: str) -> Estimate:
    """The mean over pairs of seeds with its jackknife interval; seeds are one sample, or two in pairs across curricula.

    Pairs of models that belong to the same pair of seeds are averaged first.
    """
    by_pair: dict[tuple[Unit, Unit], list[float]] = {}
    for row in rows:
        by_pair.setdefault(seed_units(row), []).append(row[measure])
    means = {pair: float(np.mean(values)) for pair, values in by_pair.items()}
    units = {unit for pair in means for unit in pair}
    curricula = sorted({curriculum for curriculum, _ in units})
    crossed = len(curricula) == 2 and all(first[0] != second[0] for first, second in means)
    pools = [[name] for name in curricula] if crossed else [curricula]
    samples = [{seed for name, seed in units if name in pool} for pool in pools]

    def mean_of(kept: frozenset[int]) -> float:
        values = [value for (first, second), value in means.items() if first[1] in kept and second[1] in kept]
        return float(np.mean(values)) if values else math.nan

    return jackknife([sorted(sample) for sample in samples], mean_of)


def contrast_pairs(rows: Sequence[Row], curriculum: str, measure: str) -> Estimate:
    """Pairs within a curriculum minus pairs of it and another, jackknifed over the seeds of both."""
    by_pair: dict[bool, list[tuple[tuple[int, int], float]]] = {True: [], False: []}
    seeds: dict[bool, set[int]] = {True: set(), False: set()}
    for row in rows:
        names = (row["curriculum"], row["other_curriculum"])
        if curriculum in names:
            pair = (row["seed_group"], row["other_seed_group"])
            by_pair[names[0] == names[1]].append((pair, row[measure]))
            for name, seed in seed_units(row):
                seeds[name == curriculum].add(seed)

    def difference(kept: frozenset[int]) -> float:
        inside, across = ([value for pair, value in by_pair[same] if kept.issuperset(pair)] for same in (True, False))
        return float(np.mean(inside) - np.mean(across)) if inside and across else math.nan

    if not (by_pair[True] and by_pair[False]) or seeds[True] & seeds[False]:
        return NOTHING
    return jackknife([sorted(seeds[True]), sorted(seeds[False])], difference)

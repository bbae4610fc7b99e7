"""Do two models have the same heads - by number, and by function?

1. By number: heads above one half that have the same layer and number, against numbering heads anew within layers.
2. By function: heads matched by attention (`analyses.studies.consistency.matching`), judged at other pairs of other prompts,
   against random matchings and against the untrained twins of the same two models.
3. Models that share a stream of random numbers share their heads by number: such pairs stand apart and are no evidence.

Intervals over models are jackknifed, a seed at a time (`interp.statistics.seed_intervals`).
"""

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from analyses.studies.consistency.matching import WITHIN, blocks, compare, likeness
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
    (`analyses.studies.consistency.matching.Matched`).
    """
    return pd.DataFrame([row for a, b in pairs_of(models) for row in pair_rows(models[a], models[b], seed)])


def pair_rows(one: Model, other: Model, seed: int) -> list[Row]:
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
    rows = []
    for state, a, b in (("trained", one.trained, other.trained), ("untrained", one.untrained, other.untrained)):
        chosen, judged = likeness(a.choosing, b.choosing), likeness(a.judging, b.judging)
        for within in WITHIN:
            found = compare(chosen, judged, blocks(n_layers, n_heads, within), rng)
            n_matched = int((ours.ravel() & theirs.ravel()[found.match]).sum())
            measured = {"n_matched": n_matched} | {name: getattr(found, name) for name in COLUMNS}
            rows.append(about | {"state": state, "within": within} | measured)
    return rows


def found_mask(model: Model) -> np.ndarray:
    """Which heads are above one half, [layer head]."""
    mask = np.zeros(model.trained.scores.shape[2:], dtype=bool)
    for head in model.found:
        mask[head] = True
    return mask


def coincidences(models: Sequence[Model], seed: int) -> tuple[int, float, float, int]:
    """Heads above one half with the same number, over all independent pairs: (found, by chance, p, pairs)."""
    masks = [found_mask(model) for model in models]
    independent = [
        (a, b) for a, b in pairs_of(models) if models[a].seed != models[b].seed and masks[a].any() and masks[b].any()
    ]
    if not independent:
        return 0, 0.0, np.nan, 0
    rng = np.random.default_rng(stream_seed("coincidence", seed))
    return *coincidence_p(masks, independent, rng), len(independent)


MEASURES = ("by_index", "matched", "chance", "by_index_excess", "matched_excess", "untrained_excess", "learned")


def between_table(pairs: pd.DataFrame) -> pd.DataFrame:
    """One row per pair of curricula, `within` and measure: the mean over independent pairs, jackknifed over seeds.

    Measures: those of `pairs_table`; `by_index_excess` and `matched_excess`, less `chance`; `untrained_excess`, the
    same of the untrained twins; `learned`, the difference of these two. The curricula `all` stand for every pair, and
    `above one half` for every pair of models that both have such heads.
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
        rows.append(row | more | {"untrained_excess": untrained, "learned": excess - untrained})
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

"""Do two models have the same heads - by number, and by function?

1. By number: heads above one half that have the same layer and number, against numbering heads anew within layers.
2. By function: heads matched by attention (`analyses.matching`), judged at other pairs of other prompts, against random
   matchings and against the untrained twins of the same two models.
3. Models that share a stream of random numbers share their heads by number: such pairs stand apart and are no evidence.

Intervals over models are jackknifed, a seed at a time (`analyses.over_seeds`).
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from analyses.agreement import coincidence_p
from analyses.consistency_within import Model
from analyses.looks import Looks, comparable
from analyses.matching import WITHIN, Matched, blocks, compare, halves, likeness
from analyses.over_seeds import Estimate, jackknife
from training.config import stream_seed
from training.output import records

EVERYONE, FOUND = "all", "above one half"
Unit = tuple[str, int]  # curriculum and independent seed


def pairs_of(models: Sequence[Model]) -> list[tuple[int, int]]:
    """The pairs that can be compared."""
    places = combinations(range(len(models)), 2)
    return [(a, b) for a, b in places if comparable(models[a].checkpoint.config, models[b].checkpoint.config)]


def pairs_table(models: Sequence[Model], seed: int) -> pd.DataFrame:
    """One row per pair of models, `within` (matches sought in the layer or the whole model) and state.

    Columns: `same_stream`; `n_found`, `n_found_other`, `n_coincide` and `expected`, the heads above one half of the
    trained models, how many have the same number, and how many would by chance; `by_index`, `matched`, `chance`,
    `p_index` and `p_matched` (`analyses.matching.Matched`).
    """
    return pd.DataFrame([row for a, b in pairs_of(models) for row in pair_rows(models[a], models[b], seed)])


def pair_rows(one: Model, other: Model, seed: int) -> list[dict[str, Any]]:
    names = (one.checkpoint.name, other.checkpoint.name)
    n_layers, n_heads = one.trained.scores.shape[2:]
    n_points = one.checkpoint.config.data.n_points
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
        "n_coincide": int((ours & theirs).sum()),
        "expected": float((ours.sum(1) * theirs.sum(1)).sum() / n_heads),
    }
    rows = []
    for state, a, b in (("trained", one.trained, other.trained), ("untrained", one.untrained, other.untrained)):
        for within in WITHIN:
            found = matched(a, b, n_points, blocks(n_layers, n_heads, within), rng)
            rows.append(about | {"state": state, "within": within} | found._asdict())
    return rows


def matched(one: Looks, other: Looks, n_points: int, among: list[slice], rng: np.random.Generator) -> Matched:
    """Heads matched on the first half of the pairs and the choosing prompts, judged on the second and the others."""
    choosing, judging = halves(n_points)
    chosen = likeness(one.chosen, other.chosen, choosing)
    return compare(chosen, likeness(one.judged, other.judged, judging), among, rng)


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
        values = measured(pairs[(pairs["within"] == within) & ~pairs["same_stream"]])
        for group, members in groups(values).items():
            for measure in MEASURES:
                estimate = over_units(values[members], measure)
                counts = {"n_pairs": int(members.sum()), "n_seeds": n_units(values[members])}
                interval = {"value": estimate.value, "ci_low": estimate.low, "ci_high": estimate.high}
                rows.append({"curricula": group, "within": within, "measure": measure} | counts | interval)
    return pd.DataFrame(rows)


def measured(pairs: pd.DataFrame) -> pd.DataFrame:
    """One row per pair: the trained models' numbers, and the excesses."""
    trained, untrained = (pairs[pairs["state"] == state].reset_index(drop=True) for state in ("trained", "untrained"))
    excess, twins = (one["matched"] - one["chance"] for one in (trained, untrained))
    return trained.assign(
        by_index_excess=trained["by_index"] - trained["chance"],
        matched_excess=excess,
        untrained_excess=twins,
        learned=excess - twins,
    )


def groups(values: pd.DataFrame) -> dict[str, pd.Series]:
    """Which pairs belong to which row of the table."""
    chosen = {EVERYONE: values["matched"].notna(), FOUND: (values["n_found"] > 0) & (values["n_found_other"] > 0)}
    names = values["curriculum"] + " & " + values["other_curriculum"]
    reverse = values["other_curriculum"] + " & " + values["curriculum"]
    for name in dict.fromkeys(np.minimum(names, reverse)):
        chosen[name] = (names == name) | (reverse == name)
    return {name: members for name, members in chosen.items() if members.any()}


def unit_values(values: pd.DataFrame, measure: str) -> Mapping[tuple[Unit, Unit], float]:
    """The mean over the pairs of each two seeds of curricula."""
    by_pair: dict[tuple[Unit, Unit], list[float]] = {}
    for row in records(values):
        ours, theirs = (row["curriculum"], row["seed_group"]), (row["other_curriculum"], row["other_seed_group"])
        by_pair.setdefault((min(ours, theirs), max(ours, theirs)), []).append(row[measure])
    return {pair: float(np.mean(of_pair)) for pair, of_pair in by_pair.items()}


def n_units(values: pd.DataFrame) -> int:
    return len({seed for column in ("seed_group", "other_seed_group") for seed in values[column]})


def over_units(values: pd.DataFrame, measure: str) -> Estimate:
    """Mean over pairs of seeds, and what leaving out seeds one by one makes of it."""
    of_pairs = unit_values(values, measure)
    curricula = sorted({unit[0] for pair in of_pairs for unit in pair})
    seeds = {name: {u[1] for pair in of_pairs for u in pair if u[0] == name} for name in curricula}
    crossed = all(one[0] != other[0] for one, other in of_pairs) and len(curricula) == 2
    samples = [sorted(seeds[name]) for name in curricula] if crossed else [sorted(set().union(*seeds.values()))]

    def statistic(kept: frozenset[int]) -> float:
        left = [value for (one, other), value in of_pairs.items() if one[1] in kept and other[1] in kept]
        return float(np.mean(left)) if left else np.nan

    return jackknife(samples, statistic)

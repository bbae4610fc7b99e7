"""How many heads of each layer are needed to keep the in-context gain, with all other layers intact.

Heads are added one by one, each time the one that leaves the least cost, on prompts that only serve this choice. What
the first k of this order keep is then measured on the test prompts.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from analyses.comparison.groups import with_all
from interp.ablation.ablate import ablate
from interp.model.heads import Head, HeadSet, head_set, show
from interp.statistics.seeds import seed_mean, seed_values
from interp.statistics.sign_flips import flips_drawn, sign_flip_p
from training.checkpoints.checkpoint import Checkpoint
from training.common.output import records
from training.common.table_rows import distinct, where

KEPT = 0.9
"""The share of the in-context gain that the heads of a layer which are needed must keep."""
Row = dict[str, Any]


def layer_table(checkpoint: Checkpoint, n_prompts: int, seed: int) -> pd.DataFrame:
    """One row per class with a clear in-context gain, layer and number k of its heads that are left, from none to all.

    Columns: `order`, the heads in the order in which they were added; `effect` of removing all others of the layer
    (mean ablation) with its interval; 0 where all are left.
    """
    rows: list[Row] = []
    for name in checkpoint.config.trained_classes:
        whole = removal_effects(checkpoint, name, layers_of(checkpoint), n_prompts, seed)
        if np.isnan([row["effect"] for row in whole.values()]).any():
            continue
        orders = [add_heads(checkpoint, name, layer, n_prompts, seed + 1) for layer in layers_of(checkpoint)]
        sets = {head_set(order[k:]): None for order in orders for k in range(len(order))}
        effects = removal_effects(checkpoint, name, list(sets), n_prompts, seed)
        for layer, order in enumerate(orders):
            labels = {"function_class": name, "layer": layer, "order": ",".join(map(str, order))}
            nothing = {"effect": 0.0, "ci_low": 0.0, "ci_high": 0.0}
            left = [effects[show(head_set(order[k:]))] for k in range(len(order))]
            rows += [labels | {"k": k} | row for k, row in enumerate([*left, nothing])]
    return pd.DataFrame(rows)


def layers_of(checkpoint: Checkpoint) -> list[HeadSet]:
    model = checkpoint.config.model
    return [tuple(Head(layer, number) for number in range(model.n_heads)) for layer in range(model.n_layers)]


def add_heads(checkpoint: Checkpoint, name: str, layer: HeadSet, n_prompts: int, seed: int) -> list[Head]:
    """The heads of a layer in the order in which each leaves the least cost beside those before it."""
    added: list[Head] = []
    while len(added) < len(layer) - 1:
        rest = [head for head in layer if head not in added]
        sets = {head: head_set(other for other in rest if other != head) for head in rest}
        effects = removal_effects(checkpoint, name, list(sets.values()), n_prompts, seed)
        added.append(min(rest, key=lambda head: effects[show(sets[head])]["effect"]))
    return [*added, *(head for head in layer if head not in added)]


def removal_effects(
    checkpoint: Checkpoint, name: str, sets: Sequence[HeadSet], n_prompts: int, seed: int
) -> dict[str, dict[str, float]]:
    """By set, the effect of removing it with its interval."""
    table = ablate(
        checkpoint, sets, [name], modes=["mean"], n_controls=0, n_prompts=n_prompts, seed=seed, total_only=True
    ).table
    return {row["heads"]: {key: row[key] for key in ("effect", "ci_low", "ci_high")} for row in records(table)}


def need_table(tables: pd.DataFrame) -> pd.DataFrame:
    """One row per model, class and layer: `n_needed`, the fewest heads that keep `KEPT` of the gain.

    Also `best`, the first head that was added, `cost_best`, the effect of removing all others, with its interval, and
    `cost_all`, that of removing the layer's heads altogether.
    """
    rows: list[Row] = []
    names = ["checkpoint", "curriculum", "function_class", "layer"]
    for row in records(where(tables, k=0)) if len(tables) else []:
        labels = {name: row[name] for name in names}
        cells = where(tables, **labels)
        effects = cells.sort_values("k")["effect"].tolist()
        alone = records(where(cells, k=1))[0]
        rows.append(
            labels
            | {"n_heads": len(effects) - 1, "n_needed": count_needed(effects), "best": alone["order"].split(",")[0]}
            | {"cost_best": alone["effect"], "ci_low": alone["ci_low"], "ci_high": alone["ci_high"]}
            | {"cost_all": effects[0]}
        )
    return pd.DataFrame(rows)


def count_needed(effects: Sequence[float]) -> int:
    """The smallest k whose effect is at most 1 - `KEPT`, from the effects with k heads left.

    More heads may cost more again, where one cancels another.

    >>> count_needed([0.8, 0.05, 0.2, 0.01, 0.0]), count_needed([0.02, 0.01, 0.0])
    (1, 0)
    """
    return next(k for k, effect in enumerate(effects) if effect <= 1 - KEPT)


def seed_table(checkpoints: Sequence[Checkpoint], needs: pd.DataFrame) -> pd.DataFrame:
    """One row per curriculum (and all of them): heads needed in the first layer and, on average, in a later one.

    Columns: `first` and `later` over independent seeds, averaged over the classes of a model, each with its t-interval
    (`first_low`, …); `difference`, paired within models, with its t-interval and the p-value of random signs
    (`n_draws`; 0: all signs).
    """
    rows: list[Row] = []
    measured = [checkpoint for checkpoint in checkpoints if len(needs) and checkpoint.name in set(needs["checkpoint"])]
    for curriculum, group in with_all(measured, lambda checkpoint: checkpoint.config.curriculum):
        pairs = np.array([layer_means(where(needs, checkpoint=checkpoint.name)) for checkpoint in group])
        row: Row = {"curriculum": curriculum}
        for name, values in (("first", pairs[:, 0]), ("later", pairs[:, 1]), ("difference", pairs[:, 0] - pairs[:, 1])):
            mean = seed_mean(group, values.tolist())
            row |= {name: mean.value, f"{name}_low": mean.t_low, f"{name}_high": mean.t_high, "n_seeds": mean.n_seeds}
        differences = seed_values(group, (pairs[:, 0] - pairs[:, 1]).tolist())
        rows.append(row | {"p_value": sign_flip_p(differences), "n_draws": flips_drawn(len(differences))})
    return pd.DataFrame(rows)


def layer_means(needs: pd.DataFrame) -> Float[np.ndarray, "2"]:
    """Heads needed in the first layer and in a later one, averaged over the classes of one model."""
    later = needs.loc[needs["layer"] > 0, "n_needed"]
    return np.array([where(needs, layer=0)["n_needed"].mean(), later.mean()])


def layer_counts(needs: pd.DataFrame) -> pd.DataFrame:
    """One row per layer: cases (model x class), and in how many all heads, one head, or none is needed."""
    rows = []
    for layer in sorted(distinct(needs, "layer")) if len(needs) else []:
        cells = where(needs, layer=layer)
        needed = cells["n_needed"]
        counts = {"n_all": needed == cells["n_heads"], "n_one": needed == 1, "n_none": needed == 0}
        rows.append(
            {"layer": layer, "n_cases": len(cells), "n_needed": needed.mean()}
            | {name: int(mask.to_numpy().sum()) for name, mask in counts.items()}
            | {"cost_best": cells["cost_best"].mean(), "cost_all": cells["cost_all"].mean()}
        )
    return pd.DataFrame(rows)

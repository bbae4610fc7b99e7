"""What do retrospective heads carry, and who reads it?

1. The heads: those above `ATTENDS` on selection prompts.
2. What they carry: how well x_i can be decoded from what each writes at y_i (R², held out), beside the other heads of
   the model and the same heads of an untrained one (`interp.readouts.head_decoding`).
3. Who reads it: path patching from each head to groups of inputs that every model has, whatever its heads are called
   (`READERS`); the share of the head's effect through everything (`interp.patching.paths`).
4. Over independent seeds, by curriculum, on the first class that the model makes use of the context on.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analyses.comparison.groups import with_all
from analyses.findings import Findings
from interp.ablation.size_classes import ATTENDS
from interp.display.axes import MODES, NULL, row_of_axes
from interp.model.heads import Head, HeadSet, heads_above
from interp.patching.path_receivers import Receiver, all_receivers
from interp.patching.paths import ALL, path_effects
from interp.readouts.head_decoding import decode_heads
from interp.scores.score import selection_scores
from interp.statistics.effects import rank_by_evidence
from interp.statistics.seeds import independent_seeds, outcome_columns
from training.checkpoints.checkpoint import Checkpoint
from training.common.output import interval, number, records
from training.common.progress import progress_bar
from training.common.table_rows import where

QUESTION = "What do retrospective heads carry, and who reads it?"
READERS: Mapping[str, str] = {
    "own mlp": "the MLP of the head's layer",
    "later mlps": "the MLPs of later layers",
    "queries": "the queries of all later heads",
    "keys": "the keys of all later heads",
    "values": "the values of all later heads",
    "out": "the read-out",
}
RETROSPECTIVE, OTHERS = "retrospective heads", "other heads"
CORRUPT = "prompt"
DECODED = 0.5
"""R² from which on a head counts as one that writes x_i."""


@dataclass(frozen=True)
class Traced:
    """One model's heads.

    Attributes:
        checkpoint: the model.
        heads: its retrospective heads.
        readers: one row per head and group of readers: `effect` and `share` with their intervals over prompts.
        written: one row per head of the model: R² of x_i (`value`), of the untrained model, and its `kind`:
            among `heads` or not.
    """

    checkpoint: Checkpoint
    heads: HeadSet
    readers: pd.DataFrame
    written: pd.DataFrame


def study(checkpoints: Sequence[Checkpoint], *, n_prompts: int = 1024, seed: int = 0) -> Findings:
    """Run the study on any number of models; those without such heads are named and left out.

    Args:
        checkpoints: loaded runs.
        n_prompts: per class and stream.
        seed: of prompts and resampling.
    """
    traced, without = [], []
    for checkpoint in progress_bar(checkpoints, desc="trace", unit="model"):
        heads = heads_above(ATTENDS, selection_scores(checkpoint, n_prompts, seed))
        name = checkpoint.config.trained_classes[0]
        if heads:
            traced.append(follow(checkpoint, heads, name, n_prompts, seed))
        else:
            without.append(checkpoint.name)
    readers, written = (
        pd.concat([getattr(one, part) for one in traced], ignore_index=True) if traced else pd.DataFrame()
        for part in ("readers", "written")
    )
    shares, carried = pooled_shares(traced), pooled_written(traced)
    left_out = f"No head scores above {ATTENDS} in {', '.join(without)}."
    return Findings(
        QUESTION,
        [*carried_sentences(carried), *reader_sentences(traced, shares), *([left_out] if without else [])],
        {
            "checkpoints": [one.name for one in checkpoints],
            "independent seeds": len(independent_seeds(checkpoints)),
            "prompts": n_prompts,
            "seed": seed,
            "corruption": CORRUPT,
            "score above": ATTENDS,
        },
        {"readers": readers, "written": written, "shares": shares, "carried": carried},
        shown(shares, carried),
        {"readers": partial(plot_readers, readers)} if traced else {},
    )


def follow(checkpoint: Checkpoint, heads: HeadSet, name: str, n_prompts: int, seed: int) -> Traced:
    """Decode what the heads of one model write, and patch the paths from each of them, on one class."""
    parts = []
    for head in heads:
        groups = groups_of_readers(checkpoint, head)
        found = path_effects(
            checkpoint, [(head,)], list(groups.values()), [name], corrupt=CORRUPT, n_prompts=n_prompts, seed=seed
        ).table
        named = {",".join(map(str, receivers)): reader for reader, receivers in groups.items()} | {ALL: ALL}
        rows = found.assign(reader=[named[receivers] for receivers in found["receiver"]])
        parts.append(rows.drop(columns="receiver"))
    decoded = decode_heads(checkpoint, [name], n_prompts=n_prompts, seed=seed).table
    names = [f"{layer}.{number}" for layer, number in zip(decoded["layer"], decoded["head"], strict=True)]
    own = {str(head) for head in heads}
    decoded = decoded.assign(heads=names, kind=[RETROSPECTIVE if one in own else OTHERS for one in names])
    about = {"checkpoint": checkpoint.name, "curriculum": checkpoint.config.curriculum}
    return Traced(checkpoint, heads, pd.concat(parts, ignore_index=True).assign(**about), decoded.assign(**about))


def groups_of_readers(checkpoint: Checkpoint, head: Head) -> dict[str, tuple[Receiver, ...]]:
    """The inputs of each group that read this head; groups without any are left out.

    In the last layer nothing but its MLP and the read-out comes later.
    """
    model = checkpoint.config.model
    reading = [one for one in all_receivers(model.n_layers, model.n_heads) if one.reads(head)]
    groups = {reader: tuple(one for one in reading if group_of(one, head) == reader) for reader in READERS}
    return {reader: receivers for reader, receivers in groups.items() if receivers}


def group_of(receiver: Receiver, head: Head) -> str:
    """
    >>> from interp.model.heads import MLP
    >>> group_of(Receiver(0, MLP, "mlp"), Head(0, 1)), group_of(Receiver(2, 3, "k"), Head(0, 1))
    ('own mlp', 'keys')
    """
    if receiver.input == "mlp":
        return "own mlp" if receiver.layer == head.layer else "later mlps"
    return {"q": "queries", "k": "keys", "v": "values", "out": "out"}[receiver.input]


def curriculum_of(one: Traced) -> str:
    return one.checkpoint.config.curriculum


def pooled_shares(traced: Sequence[Traced]) -> pd.DataFrame:
    """By curriculum and group of readers: the mean share over independent seeds, a model's heads averaged first."""
    rows = []
    for curriculum, group in with_all(traced, curriculum_of):
        for reader in READERS:
            of_model = [(one.checkpoint, mean_of(where(one.readers, reader=reader), "share")) for one in group]
            used = [(checkpoint, value) for checkpoint, value in of_model if not math.isnan(value)]
            outcome = outcome_columns([checkpoint for checkpoint, _ in used], [value for _, value in used], "share")
            rows.append({"curriculum": curriculum, "reader": reader} | outcome)
    return pd.DataFrame(rows)


def pooled_written(traced: Sequence[Traced]) -> pd.DataFrame:
    """By curriculum: R² of x_i from the retrospective heads, from all others, and from the former untrained."""
    rows = []
    for curriculum, group in with_all(traced, curriculum_of):
        own = [where(one.written, kind=RETROSPECTIVE) for one in group]
        chosen = {
            RETROSPECTIVE: [mean_of(rows, "value") for rows in own],
            OTHERS: [mean_of(where(one.written, kind=OTHERS), "value") for one in group],
            "the same, untrained": [mean_of(rows, "untrained") for rows in own],
        }
        for heads, values in chosen.items():
            outcome = outcome_columns([one.checkpoint for one in group], values, "r2")
            rows.append({"curriculum": curriculum, "heads": heads} | outcome)
    return pd.DataFrame(rows)


def mean_of(table: pd.DataFrame, column: str) -> float:
    """The mean of a column; NaN where there is nothing."""
    values = table[column].to_numpy(dtype=float)
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else math.nan


def carried_sentences(carried: pd.DataFrame) -> list[str]:
    """Whether the heads write x_i, by curriculum."""
    found = []
    for curriculum in dict.fromkeys(carried["curriculum"]) if len(carried) else []:
        own, others, untrained = records(where(carried, curriculum=curriculum))
        verb = "can" if own["r2"] >= DECODED else "can hardly"
        found.append(
            f"{curriculum}: x_i {verb} be read from what the retrospective heads write at y_i (R² {over(own, 'r2')}; "
            f"the other heads {others['r2']:.2f}, the same heads untrained {untrained['r2']:.2f})."
        )
    return found


def over(row: Mapping[str, Any], column: str) -> str:
    """A value with its t-interval over seeds, if there is one; where seeds are of two kinds, how many are of which."""
    if row["n_seeds"] < 2:
        return f"{row[column]:.2f}, one seed"
    if row["all_or_nothing"]:
        count = f"{row['n_half']} of {row['n_seeds']} seeds [{row['share_low']:.2f}, {row['share_high']:.2f}]"
        return f"{row[column]:.2f} (all or nothing: at least half in {count}, Clopper-Pearson)"
    return f"{row[column]:.2f} [{row['t_low']:.2f}, {row['t_high']:.2f}], {row['n_seeds']} seeds"


def reader_sentences(traced: Sequence[Traced], shares: pd.DataFrame) -> list[str]:
    """Who reads most, by curriculum, and in how many models."""
    found = []
    for curriculum, group in with_all(traced, curriculum_of):
        first = [strongest(one) for one in group]
        counts = {reader: first.count(reader) for reader in READERS if reader in first}
        readers = ", ".join(f"{READERS[reader]} in {n}" for reader, n in counts.items())
        if not counts:
            found.append(f"{curriculum}: no group of readers has a share of the heads' effect that differs from 0.")
            continue
        (main,) = records(where(shares, curriculum=curriculum, reader=max(counts, key=lambda reader: counts[reader])))
        text = f"{curriculum}: the strongest reader is {readers} of {len(group)} models; on average "
        text += f"{over(main, 'share')} of the heads' effect goes through {READERS[main['reader']]}"
        agree = max(counts.values(), default=0) == len(group) and len(group) > 1
        found.append(text + (", the same in every model." if agree else "."))
    return found


def strongest(one: Traced) -> str:
    """The group of readers whose mean share over a model's heads has the best evidence; nothing if none differs from 0.

    The ends of the intervals of several heads are averaged, which is wider than the interval of their mean.
    """
    columns = ("share", "share_low", "share_high")
    groups = {reader: where(one.readers, reader=reader) for reader in READERS}
    ranks = {
        reader: rank_by_evidence(*(mean_of(group, column) for column in columns)) for reader, group in groups.items()
    }
    best = min(ranks, key=lambda reader: ranks[reader])
    return "" if ranks[best][0] else best


def shown(shares: pd.DataFrame, carried: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables for people."""
    tables = {
        "share of the heads' effect by reader (t-interval over seeds)": (shares, "reader", "share"),
        "R² of x_i in what heads write at y_i": (carried, "heads", "r2"),
    }
    found = {}
    for title, (table, column, value) in tables.items():
        rows: dict[str, dict[str, str]] = {}
        for row in records(table):
            cells = rows.setdefault(row["curriculum"], {"curriculum": row["curriculum"], "seeds": str(row["n_seeds"])})
            cells[row[column]] = interval(row[value], row["t_low"], row["t_high"]) if row["n_seeds"] else number(None)
        if rows:
            found[title] = pd.DataFrame(rows.values())
    return found


def plot_readers(readers: pd.DataFrame) -> list[Axes]:
    """The share through every group of readers: a dot per head and model, a panel per curriculum."""
    curricula = list(dict.fromkeys(map(str, readers["curriculum"])))
    axes = row_of_axes(len(curricula), width=2.4, height=2.6)
    for ax, curriculum in zip(axes, curricula, strict=True):
        for place, reader in enumerate(READERS):
            rows = records(where(readers, curriculum=curriculum, reader=reader))
            low, high = ([abs(row["share"] - row[end]) for row in rows] for end in ("share_low", "share_high"))
            xs = place + np.linspace(-0.2, 0.2, len(rows)) if len(rows) > 1 else [place] * len(rows)
            values = [row["share"] for row in rows]
            ax.errorbar(xs, values, yerr=[low, high], fmt="o", ms=4, lw=1, color=MODES["resample"], alpha=0.8)
        for level in (0, 1):
            ax.axhline(level, color=NULL, lw=0.8, zorder=0)
        ax.set(title=curriculum, xticks=range(len(READERS)), xlim=(-0.6, len(READERS) - 0.4))
        ax.set_xticklabels(READERS, rotation=40, ha="right")
    axes[0].set_ylabel("share of the head's effect")
    return axes

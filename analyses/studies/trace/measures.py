"""Decoding of x_i from the outputs of heads, and shares of their effects by reader, of every model and over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analyses.comparison.groups import with_all
from interp.model.heads import Head, HeadSet
from interp.patching.path_receivers import Receiver, all_receivers
from interp.patching.paths import ALL, path_effects
from interp.readouts.head_decoding import decode_heads
from interp.statistics.effects import rank_by_evidence
from interp.statistics.seeds import outcome_columns
from training.checkpoints.checkpoint import Checkpoint
from training.common.table_rows import where

READERS: Mapping[str, str] = {
    "own mlp": "the MLP of the head's layer",
    "later mlps": "the MLPs of later layers",
    "queries": "the queries of all later heads",
    "keys": "the keys of all later heads",
    "values": "the values of all later heads",
    "out": "the read-out",
}
RETROSPECTIVE, OTHERS, UNTRAINED = "retrospective heads", "other heads", "the same, untrained"
CORRUPT = "prompt"


@dataclass(frozen=True)
class TracedModel:
    """What was measured on the heads of one model.

    Attributes:
        checkpoint: the model.
        readers: one row per retrospective head and group of readers: `effect` and `share` with their intervals over
            prompts.
        decoding: one row per head of the model: R² of x_i (`value`), of the untrained model, and the `kind` of head:
            `RETROSPECTIVE` or `OTHERS`.
    """

    checkpoint: Checkpoint
    readers: pd.DataFrame
    decoding: pd.DataFrame

    @property
    def curriculum(self) -> str:
        return self.checkpoint.config.curriculum


def trace_heads(checkpoint: Checkpoint, heads: HeadSet, function_class: str, n_prompts: int, seed: int) -> TracedModel:
    """Decode the outputs of a model's heads, and patch the paths from each of the given ones, on one class."""
    parts = []
    for head in heads:
        groups = group_readers(checkpoint, head)
        effects = path_effects(
            checkpoint,
            [(head,)],
            list(groups.values()),
            [function_class],
            corrupt=CORRUPT,
            n_prompts=n_prompts,
            seed=seed,
        ).table
        names = {",".join(map(str, receivers)): reader for reader, receivers in groups.items()} | {ALL: ALL}
        parts.append(effects.assign(reader=pd.Series(effects["receiver"]).map(names)).drop(columns="receiver"))
    table = decode_heads(checkpoint, [function_class], n_prompts=n_prompts, seed=seed).table
    names = [f"{layer}.{head}" for layer, head in zip(table["layer"], table["head"], strict=True)]
    retrospective = {str(head) for head in heads}
    table = table.assign(heads=names, kind=[RETROSPECTIVE if name in retrospective else OTHERS for name in names])
    columns = {"checkpoint": checkpoint.name, "curriculum": checkpoint.config.curriculum}
    return TracedModel(checkpoint, pd.concat(parts, ignore_index=True).assign(**columns), table.assign(**columns))


def group_readers(checkpoint: Checkpoint, head: Head) -> dict[str, tuple[Receiver, ...]]:
    """The receivers that read this head, by group of readers; groups without any are left out.

    In the last layer only its MLP and the read-out come later.
    """
    model = checkpoint.config.model
    groups: dict[str, list[Receiver]] = {reader: [] for reader in READERS}
    for receiver in all_receivers(model.n_layers, model.n_heads, has_mlps=model.mlp_width > 0):
        if receiver.reads(head):
            groups[reader_of(receiver, head)].append(receiver)
    return {reader: tuple(receivers) for reader, receivers in groups.items() if receivers}


def reader_of(receiver: Receiver, head: Head) -> str:
    """
    >>> from interp.model.heads import MLP
    >>> reader_of(Receiver(0, MLP, "mlp"), Head(0, 1)), reader_of(Receiver(2, 3, "k"), Head(0, 1))
    ('own mlp', 'keys')
    """
    if receiver.input == "mlp":
        return "own mlp" if receiver.layer == head.layer else "later mlps"
    return {"q": "queries", "k": "keys", "v": "values", "out": "out"}[receiver.input]


def pool_shares(traced: Sequence[TracedModel]) -> pd.DataFrame:
    """By curriculum and group of readers: the mean share over independent seeds, a model's heads averaged first."""
    rows = []
    for curriculum, models in with_all(traced, lambda model: model.curriculum):
        for reader in READERS:
            means = [
                (model.checkpoint, pd.Series(where(model.readers, reader=reader)["share"]).mean()) for model in models
            ]
            defined = [(checkpoint, float(share)) for checkpoint, share in means if not np.isnan(share)]
            outcome = outcome_columns([checkpoint for checkpoint, _ in defined], [s for _, s in defined], "share")
            rows.append({"curriculum": curriculum, "reader": reader} | outcome)
    return pd.DataFrame(rows)


def pool_decoding(traced: Sequence[TracedModel]) -> pd.DataFrame:
    """By curriculum: R² of x_i from the retrospective heads, from all others, and from the former untrained."""
    rows = []
    columns = {RETROSPECTIVE: (RETROSPECTIVE, "value"), OTHERS: (OTHERS, "value")}
    columns |= {UNTRAINED: (RETROSPECTIVE, "untrained")}
    for curriculum, models in with_all(traced, lambda model: model.curriculum):
        checkpoints = [model.checkpoint for model in models]
        for heads, (kind, column) in columns.items():
            values = [float(pd.Series(where(model.decoding, kind=kind)[column]).mean()) for model in models]
            rows.append({"curriculum": curriculum, "heads": heads} | outcome_columns(checkpoints, values, "r2"))
    return pd.DataFrame(rows)


def strongest_reader(model: TracedModel) -> str:
    """The group of readers whose mean share over a model's heads has the best evidence; "" if none differs from 0.

    The ends of the intervals of several heads are averaged, which is wider than the interval of their mean.
    """
    means = pd.DataFrame(model.readers.groupby("reader")[["share", "share_low", "share_high"]].mean())
    means = means.reindex(list(READERS))
    ranks = {
        str(reader): rank_by_evidence(*map(float, row))
        for reader, row in zip(means.index, means.to_numpy(), strict=True)
    }
    best = min(ranks, key=lambda reader: ranks[reader])
    return "" if ranks[best][0] else best

"""The effects of all nodes of a site, or of all edges: exactly, or from gradients with a receipt.

1. Clean and corrupt prompts (`interp.patching.prompt_pairs`); the direction says which run is patched.
2. Exact: every node or edge patched (`interp.patching`). Approximate: by how much patching would move the prediction,
   from a few forward and backward passes, and the effect of that, which is linear in the prediction.
3. Every approximate method is compared with exact patching on the same prompts (`interp.attribution.validation`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from interp.ablation.runner import balanced_chunk_size
from interp.attribution.nodes import Ends, check_method
from interp.attribution.targets import EXACT, AllEdges, Effects, Nodes, Target, flat
from interp.attribution.validation import Receipt, receipt
from interp.display.result import Axes, Result
from interp.model.parallel import map_parts
from interp.patching.effects import effect_resamples, gap_exists
from interp.patching.maps import place_name
from interp.patching.runner import Question, check_direction, chunks
from interp.patching.sites import check_site
from interp.statistics.effects import differs_from_zero
from training.checkpoints.checkpoint import Checkpoint
from training.common.bootstrap import bootstrap_weights, percentile_interval
from training.common.errors import UserError
from training.common.library_defaults import library_defaults
from training.common.output import Table
from training.common.progress import progress_bar
from training.config.config import stream_seed
from training.tasks.function_classes import choose_classes

MEMORY = 2**28  # bytes of activations and gradients that a worker holds
CHUNK = 64  # prompts: more of them fall out of the caches
COLUMNS = 4096  # nodes or edges whose resamples are held at a time


@dataclass(frozen=True, repr=False, eq=False)
class Attribution(Result):
    """Effects of nodes or edges by several methods.

    Attributes:
        checkpoint: the model's name.
        step: of its training.
        table: one row per function class, method and node (`site`, `layer`, `heads`, `tokens`) or edge (`sender`,
            `receiver`): `effect` (0: patching does nothing, 1: it does what patching everything does) with its 95 %
            interval over prompts, and `size`, by which they are ranked (|effect|; for AtP* the mean of |effect| over
            dropped layers).
        receipts: one row per class and approximate method (`interp.attribution.validation.Receipt`); empty without.
        compared: the pairs behind the receipts: `function_class`, `method`, `name`, `exact`, `approximate`, `size`.
        question: prompts and direction.
        of: `edges`, or the site of the nodes.
    """

    checkpoint: str
    step: int
    table: pd.DataFrame
    receipts: pd.DataFrame
    compared: pd.DataFrame
    question: Question
    of: str

    def tables(self, top: int = 10) -> list[Table]:
        """The strongest nodes or edges, and the receipts.

        Args:
            top: how many nodes or edges of every class.
        """
        return self.view("tables", top)

    def plot_receipts(self) -> list[Axes]:
        """Approximate against exact effects, a panel per class and method.

        Raises:
            UserError: there are no receipts.
        """
        if not len(self.receipts):
            raise UserError("these effects have no receipts (n_receipt was 0, or every method is exact)")
        return self.view("plot_receipts")

    def name(self, row: dict[str, Any]) -> str:
        """A row's node or edge in words."""
        return f"{row['sender']}->{row['receiver']}" if self.of == "edges" else place_name(self.of, row)

    @property
    def files(self) -> Mapping[str, pd.DataFrame]:
        checked = {"receipts": self.receipts, "receipt_pairs": self.compared} if len(self.receipts) else {}
        return {"attribution": self.table, **checked}


@library_defaults()
def attribute(
    checkpoint: Checkpoint,
    classes: str | Sequence[str] | None = None,
    *,
    site: str = "z",
    methods: Sequence[str] = (EXACT,),
    corrupt: str = "function",
    direction: str = "denoise",
    at: str | None = None,
    examples: int | None = None,
    n_prompts: int = 1024,
    seed: int = 0,
    n_steps: int = 5,
    n_receipt: int = 256,
) -> Attribution:
    """The effect of patching every node of a site.

    Args:
        checkpoint: a loaded run.
        classes: function classes; None takes those of the run.
        site: a name in `interp.patching.sites.SITES`.
        methods: `exact`, or names in `interp.attribution.nodes.METHODS`.
        corrupt: a name in `interp.patching.prompt_pairs.CORRUPTIONS`.
        direction: `denoise` patches the clean run's activations into the corrupt run, `noise` the other way.
        at: tokens, all together or `each` alone; None is `all` at sites with heads and `each` elsewhere.
        examples: pairs before the query; None takes as many as there are.
        n_prompts: per class.
        seed: of prompts and resampling.
        n_steps: parts of the path of `ig` and `ig-activations`.
        n_receipt: prompts on which approximate methods are compared with exact patching; 0 for no receipt.

    Raises:
        CheckError: an exact patch did not act, or acted where it should not.
        UserError: an unknown name, or a class that does not allow the corruption.

    >>> from interp import load
    >>> found = attribute(load("zoo:mixed-0"), ["linear"], methods=["gradient"], n_prompts=32, n_receipt=32)
    >>> bool(found.receipts["spearman"][0] > 0.5)
    True
    """
    names = choose_classes(classes, checkpoint.config.evaluated_classes)
    question = Question(corrupt, check_direction(direction), examples, n_prompts, seed)
    target = plan_nodes(checkpoint, names, question, site=site, at=at, methods=methods, n_steps=n_steps)
    return measured(checkpoint, names, target, methods, question, n_receipt, site)


@library_defaults()
def attribute_edges(
    checkpoint: Checkpoint,
    classes: str | Sequence[str] | None = None,
    *,
    methods: Sequence[str] = (EXACT,),
    corrupt: str = "function",
    direction: str = "denoise",
    examples: int | None = None,
    n_prompts: int = 1024,
    seed: int = 0,
    n_steps: int = 5,
    n_receipt: int = 256,
) -> Attribution:
    """The effect of patching every edge alone: sender to receiver, whatever comes after the receiver reacts.

    Args:
        checkpoint: a loaded run.
        classes: function classes; None takes those of the run.
        methods: `exact` (path patching), or names in `interp.attribution.edges.METHODS`.
        corrupt: a name in `interp.patching.prompt_pairs.CORRUPTIONS`.
        direction: `denoise` patches the clean run's edges into the corrupt run, `noise` the other way.
        examples: pairs before the query; None takes as many as there are.
        n_prompts: per class.
        seed: of prompts and resampling.
        n_steps: parts of the path of `eap-ig`.
        n_receipt: prompts on which approximate methods are compared with exact patching; 0 for no receipt.

    Raises:
        CheckError: an exact patch did not act, or acted where it should not.
        UserError: an unknown name, or a class that does not allow the corruption.

    >>> from interp import load
    >>> found = attribute_edges(load("zoo:mixed-0"), ["linear"], methods=["eap"], n_prompts=8, n_receipt=0)
    >>> len(found.table)
    802
    """
    names = choose_classes(classes, checkpoint.config.evaluated_classes)
    question = Question(corrupt, check_direction(direction), examples, n_prompts, seed)
    target = plan_edges(checkpoint, names, question, methods=methods, n_steps=n_steps)
    return measured(checkpoint, names, target, methods, question, n_receipt, "edges")


def plan_nodes(
    checkpoint: Checkpoint,
    names: Sequence[str],
    question: Question,
    *,
    site: str,
    at: str | None,
    methods: Sequence[str],
    n_steps: int,
) -> Nodes:
    """The nodes that `attribute` is asked for, before anything is computed.

    Raises:
        UserError: see `attribute`.
    """
    check_site(site)
    target = Nodes(checkpoint, site, at, n_examples(checkpoint, names, question), n_steps)
    check_methods(target, methods)
    target.rows()  # refuses tokens that there are not
    return target


def plan_edges(
    checkpoint: Checkpoint, names: Sequence[str], question: Question, *, methods: Sequence[str], n_steps: int
) -> AllEdges:
    """The edges that `attribute_edges` is asked for, before anything is computed.

    Raises:
        UserError: see `attribute_edges`.
    """
    target = AllEdges(checkpoint, n_examples(checkpoint, names, question), n_steps)
    check_methods(target, methods)
    return target


def check_methods(target: Target, methods: Sequence[str]) -> None:
    for method in methods:
        check_method(method, (EXACT, *target.methods))


def n_examples(checkpoint: Checkpoint, names: Sequence[str], question: Question) -> int:
    """Pairs before the query; refuses corruptions that a class does not allow."""
    pairs = [question._replace(n_prompts=2).pairs(checkpoint, name) for name in names]
    return pairs[0].n_examples


class Pair(NamedTuple):
    """Exact and approximate effects on the same prompts."""

    about: dict[str, Any]
    exact: Effects
    approximate: Effects
    receipt: Receipt


def measured(
    checkpoint: Checkpoint,
    names: Sequence[str],
    target: Target,
    methods: Sequence[str],
    question: Question,
    n_receipt: int,
    of: str,
) -> Attribution:
    """Every method on every class, and the receipts."""
    approximate = [method for method in methods if method != EXACT]
    rows, pairs = [], []
    for name in names:
        known = {
            (method, question.n_prompts): effects(checkpoint, name, target, method, question) for method in methods
        }
        for (method, _), found in known.items():
            about = {"function_class": name, "corrupt": question.corrupt, "direction": question.direction}
            rows += [about | {"method": method} | row for row in effect_rows(target, found)]
        if n_receipt and approximate:
            pairs += compare(checkpoint, name, target, approximate, question, n_receipt, known)
    receipts = pd.DataFrame([pair.about | pair.receipt.row() for pair in pairs])
    compared = pd.concat([pair_rows(target, pair) for pair in pairs]) if pairs else pd.DataFrame()
    return Attribution(checkpoint.name, checkpoint.step, pd.DataFrame(rows), receipts, compared, question, of)


def compare(
    checkpoint: Checkpoint,
    name: str,
    target: Target,
    methods: Sequence[str],
    question: Question,
    n_receipt: int,
    known: dict[tuple[str, int], Effects],
) -> list[Pair]:
    """Each approximate method against exact patching, both on `n_receipt` prompts (or all, if there are fewer)."""
    few = question._replace(n_prompts=min(n_receipt, question.n_prompts))
    for method in (EXACT, *methods):
        if (method, few.n_prompts) not in known:
            known[method, few.n_prompts] = effects(checkpoint, name, target, method, few)
    exact = known[EXACT, few.n_prompts]
    if np.isnan(exact.value).any():
        return []
    pairs = []
    for method in methods:
        found = known[method, few.n_prompts]
        agreement = receipt(
            exact.value,
            found.value,
            target.names(),
            n_prompts=few.n_prompts,
            sizes=found.size,
            nonzero=differs_from_zero(exact.low, exact.high),
        )
        pairs.append(Pair({"function_class": name, "method": method}, exact, found, agreement))
    return pairs


def effects(checkpoint: Checkpoint, name: str, target: Target, method: str, question: Question) -> Effects:
    """The effects by one method on the prompts of one class."""
    if method == EXACT:
        return target.exact(checkpoint, name, question)
    return effects_of_moves(moves_of(checkpoint, name, target, method, question), name, question)


class AllMoves(NamedTuple):
    """What `interp.attribution.nodes.Moves` are for all prompts, beside the two predictions."""

    base: Float[np.ndarray, " prompt"]
    source: Float[np.ndarray, " prompt"]
    signed: Float[np.ndarray, "prompt node"]
    dropped: Float[np.ndarray, "drop prompt node"] | None


def moves_of(checkpoint: Checkpoint, name: str, target: Target, method: str, question: Question) -> AllMoves:
    """First-order moves of the prediction on all prompts, chunk by chunk."""
    model = checkpoint.model
    base, source = question.sides(question.pairs(checkpoint, name))
    bar = progress_bar(total=question.n_prompts, desc=f"{method} {name}", unit="prompt")
    most = max(1, min(CHUNK, MEMORY // (4 * target.floats())))
    size = balanced_chunk_size(question.n_prompts, most, torch.get_num_threads())
    with bar:

        def run(prompts: range) -> AllMoves:
            ends = Ends(*(model.needed(side.rows(prompts).tokens) for side in (base, source)))
            found = target.moves(model, ends, method)
            with torch.no_grad():
                own, other = (model.predict(tokens)[:, -1].double().cpu().numpy() for tokens in ends)
            bar.update(len(prompts))
            return AllMoves(own, other, flat(found.signed), None if found.dropped is None else flat(found.dropped))

        parts = map_parts(run, chunks(question.n_prompts, size))
    bases, sources, signed, dropped = zip(*parts, strict=True)
    together = None if dropped[0] is None else np.concatenate(dropped, axis=1)
    return AllMoves(np.concatenate(bases), np.concatenate(sources), np.concatenate(signed), together)


def effects_of_moves(moves: AllMoves, name: str, question: Question) -> Effects:
    """Effects with intervals: those of `interp.patching.effects`, at predictions moved by this much."""
    n_nodes = moves.signed.shape[1]
    if not gap_exists(moves.base, moves.source):
        return Effects(*np.full((4, n_nodes), np.nan))
    gap = moves.source - moves.base
    value = gap @ moves.signed / np.square(gap).sum()
    weights = bootstrap_weights(len(gap), np.random.default_rng(stream_seed("bootstrap", question.seed, name)))
    ends = []
    for start in range(0, n_nodes, COLUMNS):
        patched = moves.base[:, None] + moves.signed[:, start : start + COLUMNS]
        ends.append(percentile_interval(effect_resamples(patched.T, moves.base, moves.source, weights)))
    low, high = (np.concatenate(parts) for parts in zip(*ends, strict=True))
    size = np.abs(value)
    if moves.dropped is not None:
        size = np.abs(gap @ moves.dropped / np.square(gap).sum()).sum(0)
    return Effects(value, low, high, size)


def effect_rows(target: Target, found: Effects) -> list[dict[str, Any]]:
    return [
        row | {"effect": float(value), "ci_low": float(low), "ci_high": float(high), "size": float(size)}
        for row, value, low, high, size in zip(target.rows(), *found, strict=True)
    ]


def pair_rows(target: Target, pair: Pair) -> pd.DataFrame:
    values = {"exact": pair.exact.value, "approximate": pair.approximate.value, "size": pair.approximate.size}
    return pd.DataFrame(pair.about | {"name": target.names()} | values)

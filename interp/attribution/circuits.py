"""Circuits: from edge scores to a small graph that does what the model does, by real intervention.

1. Edges are scored on prompts of their own (`interp.attribution.attribute`), by path patching or from gradients.
2. A circuit is the n edges with the largest scores, without those that lie on no path from read-in to read-out.
3. Faithfulness: the effect of the run with clean information on the circuit's edges alone (0: the corrupt run, 1: the
   clean run). Completeness: the same of all other edges, which is what the circuit leaves out.
4. Random graphs with as many edges on paths are the null: edges are drawn in random order until as many lie on a path.
5. The smallest circuit whose faithfulness is within 1 - `faithful` of 1.

A faithfulness beyond 1 overshoots, so graphs are compared by 1 - |1 - faithfulness|.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from interp.ablation.runner import balanced_chunk_size
from interp.attribution.attribute import effects, plan_edges
from interp.attribution.circuit_run import corrupt_run, predict_circuit
from interp.attribution.graph import Edges, Graph, edges_called, pruned
from interp.attribution.targets import EXACT, AllEdges, Effects
from interp.attribution.validation import largest
from interp.display.result import Axes, Result
from interp.display.text import decimals
from interp.model.parallel import map_parts
from interp.model.self_checks import Comparison, require_agreement
from interp.patching.effects import effect_of, gap_exists
from interp.patching.prompt_pairs import PromptPairs
from interp.patching.runner import Question, check_direction, chunks, predictions_at_query
from interp.statistics.effects import Effect, permutation_p
from interp.statistics.p_values import p_text
from training.checkpoints.checkpoint import Checkpoint
from training.common.bootstrap import bootstrap_weights
from training.common.errors import CheckError, UserError
from training.common.library_defaults import library_defaults
from training.common.output import records
from training.common.progress import progress_bar
from training.config.config import stream_seed
from training.model.transformer import Transformer
from training.tasks.function_classes import choose_classes

SIZES = (5, 10, 20, 50, 100, 200, 400)
MEMORY = 2**27  # bytes that a worker's streams take
CHUNK = 32  # prompts: more of them fall out of the caches
COMPARED = 128  # prompts on which random graphs are run
SCORED = 256  # prompts on which edges are scored


@dataclass(frozen=True, repr=False, eq=False)
class Circuits(Result):
    """Circuits of several sizes for every function class.

    Attributes:
        checkpoint: the model's name.
        step: of its training.
        curve: one row per class and size: `n_best` edges taken, `n_edges` of them on paths; `faithfulness` and
            `completeness` with 95 % intervals over prompts; `distance`, the mean squared distance to the clean
            prediction over that of the corrupt run; `compared` (faithfulness on the prompts of the random graphs),
            `random`, `random_low`, `random_high` (mean and range), `n_random`, `p_value`.
        edges: one row per class and edge, the largest first: `sender`, `receiver`, `score` with its interval, `rank`,
            and whether it is in the smallest faithful circuit (`chosen`).
        smallest: by class, the row of `curve` of the smallest faithful circuit; None where none of the sizes is.
        question: prompts and direction; edges are scored on others.
        method: how edges are scored.
        faithful: the faithfulness asked for.
    """

    checkpoint: str
    step: int
    curve: pd.DataFrame
    edges: pd.DataFrame
    smallest: dict[str, dict[str, Any] | None]
    question: Question
    method: str
    faithful: float
    graph: Graph = field(repr=False)

    def plot_curves(self) -> list[Axes]:
        """Faithfulness and completeness by number of edges, beside random graphs."""
        return self.view("plot_curves")

    def rows(self, table: pd.DataFrame, name: str) -> list[dict[str, Any]]:
        """The rows of one class."""
        return [row for row in records(table) if row["function_class"] == name]

    def chosen(self, name: str) -> list[dict[str, Any]]:
        """The edges of the smallest faithful circuit of a class, the largest first."""
        return [row for row in self.rows(self.edges, name) if row["chosen"]]

    def shown(self, name: str) -> list[dict[str, Any]]:
        """Those edges, or where no size is faithful those of the largest circuit, the largest first."""
        chosen = self.chosen(name)
        if chosen:
            return chosen
        n_best = max((row["n_best"] for row in self.rows(self.curve, name)), default=0)
        rows = self.rows(self.edges, name)[:n_best]
        kept = pruned(self.graph, edges_called(self.graph, [f"{row['sender']}->{row['receiver']}" for row in rows]))
        return [row for row in rows if kept[self.graph.place(row["receiver"], row["sender"])]]

    def sentence(self, name: str) -> str:
        """What was found on one class, by rule."""
        n_all, row = int(self.graph.allowed.sum()), self.smallest[name]
        if row is None:
            best = max((row["faithfulness"] for row in self.rows(self.curve, name)), default=0.0)
            return (
                f"On {name} no circuit of the sizes asked for reaches a faithfulness of {self.faithful:g} "
                f"(at most {best:.2f}); the model has {n_all} edges."
            )
        text = (
            f"On {name} {row['n_edges']} of {n_all} edges carry {row['faithfulness']:.2f} "
            f"[{row['faithfulness_low']:.2f}, {row['faithfulness_high']:.2f}] of what separates the clean from the "
            f"corrupt run, and everything else {decimals(row['completeness'])}"
        )
        if row["n_random"]:
            text += (
                f"; {row['n_random']} random graphs as large carry {row['random']:.2f} on average and "
                f"{row['random_high']:.2f} at most ({p_text(row['p_value'], row['n_random'])})"
            )
        return text + "."

    @property
    def files(self) -> Mapping[str, pd.DataFrame]:
        return {"circuit": self.curve, "circuit_edges": self.edges}


@library_defaults()
def circuits(
    checkpoint: Checkpoint,
    classes: str | Sequence[str] | None = None,
    *,
    sizes: Sequence[int] = SIZES,
    method: str = EXACT,
    corrupt: str = "prompt",
    direction: str = "noise",
    examples: int | None = None,
    n_prompts: int = 1024,
    seed: int = 0,
    n_steps: int = 5,
    n_random: int = 20,
    faithful: float = 0.9,
) -> Circuits:
    """Circuits of growing size, how faithful and complete they are, and the smallest faithful one.

    Args:
        checkpoint: a loaded run.
        classes: function classes; None takes those of the run.
        sizes: numbers of edges to take; those beyond the number of edges are left out.
        method: `exact` (path patching), or a name in `interp.attribution.edges.METHODS`.
        corrupt: a name in `interp.patching.prompt_pairs.CORRUPTIONS`.
        direction: of the scores: `noise` asks which edges are needed, `denoise` which are enough alone. Faithfulness
            always starts from the corrupt run.
        examples: pairs before the query; None takes as many as there are.
        n_prompts: per class.
        seed: of prompts, random graphs and resampling.
        n_steps: parts of the path of `eap-ig`.
        n_random: random graphs of every size.
        faithful: the faithfulness that the smallest circuit has to reach.

    Raises:
        CheckError: all edges together are not the clean run, or none of them not the corrupt run.
        UserError: an unknown name, a size or share that cannot be, or a class that does not allow the corruption.

    >>> from interp import load
    >>> found = circuits(load("zoo:mixed-0"), ["linear"], sizes=[200], method="eap", n_prompts=32, n_random=0)
    >>> bool(found.curve["faithfulness"][0] > 0.3)
    True
    """
    names = choose_classes(classes, checkpoint.config.evaluated_classes)
    question = Question(corrupt, check_direction(direction), examples, n_prompts, seed)
    target = plan_edges(checkpoint, names, question, methods=[method], n_steps=n_steps)
    check_asked(sizes, faithful, int(target.graph.allowed.sum()))
    parts = [of_class(checkpoint, name, target, method, question, sizes, n_random, faithful) for name in names]
    return Circuits(
        checkpoint.name,
        checkpoint.step,
        pd.concat([one.curve for one in parts], ignore_index=True),
        pd.concat([one.edges for one in parts], ignore_index=True),
        {name: one.smallest for name, one in zip(names, parts, strict=True)},
        question,
        method,
        faithful,
        target.graph,
    )


def check_asked(sizes: Sequence[int], faithful: float, n_edges: int) -> None:
    """Refuse sizes and a faithfulness that a model of `n_edges` edges cannot have.

    Raises:
        UserError: they cannot.
    """
    if not sizes or min(sizes) < 1:
        raise UserError(f"--sizes {','.join(map(str, sizes))}: numbers of edges from 1 upwards are needed")
    if min(sizes) > n_edges:
        raise UserError(f"--sizes {','.join(map(str, sizes))}: this model has {n_edges} edges")
    if not 0 < faithful <= 1:
        raise UserError(f"--faithful {faithful}: a number above 0 and at most 1 is needed")


class OfClass(NamedTuple):
    """The tables of one class."""

    curve: pd.DataFrame
    edges: pd.DataFrame
    smallest: dict[str, Any] | None


def of_class(
    checkpoint: Checkpoint,
    name: str,
    target: AllEdges,
    method: str,
    question: Question,
    sizes: Sequence[int],
    n_random: int,
    faithful: float,
) -> OfClass:
    """Score, cut, run and compare, on the prompts of one class."""
    apart = stream_seed("circuit selection", question.seed)
    scoring = question._replace(n_prompts=min(SCORED, question.n_prompts), seed=apart)
    scores = effects(checkpoint, name, target, method, scoring)
    if np.isnan(scores.value).any():
        raise UserError(f"--corrupt {question.corrupt}: on {name} clean and corrupt prompts are predicted the same")
    runs = Runs.of(checkpoint, name, question)
    runs.check(target.graph)
    order = largest(scores.size, len(scores.size))
    cut = Cut(target.graph, np.argwhere(target.graph.allowed)[order])
    asked = sorted({size for size in sizes if size <= len(order)})
    rng = np.random.default_rng(stream_seed("random graphs", question.seed, name))
    bar = progress_bar(asked, desc=f"circuits {name}", unit="size")
    rows = [runs.row(cut, size, n_random, rng) for size in bar]
    for size in between(rows, lambda size: runs.faithfulness(cut.best(size)).value, faithful):
        rows.append(runs.row(cut, size, n_random, rng))
    rows.sort(key=lambda row: row["n_best"])
    smallest = next((row for row in rows if is_faithful(row["faithfulness"], faithful)), None)
    chosen = cut.best(smallest["n_best"]) if smallest else np.zeros_like(target.graph.allowed)
    about = {"function_class": name, "corrupt": question.corrupt}
    return OfClass(
        pd.DataFrame([about | row for row in rows]),
        pd.DataFrame([{"function_class": name} | row for row in edge_rows(target, scores, cut, chosen)]),
        smallest,
    )


@dataclass(frozen=True)
class Cut:
    """Edges in order of their scores.

    Attributes:
        graph: of the model.
        order: (receiver, sender) of every edge, the largest score first.
    """

    graph: Graph
    order: np.ndarray

    def first(self, n: int) -> Edges:
        """The first n edges."""
        edges = np.zeros_like(self.graph.allowed)
        edges[tuple(self.order[:n].T)] = True
        return edges

    def best(self, n: int) -> Edges:
        """Those of the first n edges that lie on a path."""
        return pruned(self.graph, self.first(n))

    def grown(self, n: int) -> Edges:
        """As many first edges as it takes for n of them to lie on a path."""
        low, high = n, len(self.order)  # the number on paths only grows
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self.best(middle).sum() >= n else (middle + 1, high)
        return self.best(low)


def few_of(runs: "Runs") -> range:
    """The prompts that self-checks are made on."""
    return range(min(CHUNK, len(runs.clean)))


def run_with(runs: "Runs", edges: Edges, *, is_clean: bool = True) -> Comparison:
    """The run with clean information on these edges alone, beside the clean or the corrupt run."""
    few, dtype = few_of(runs), next(runs.model.parameters()).dtype
    expected = runs.clean if is_clean else runs.corrupt
    given, wanted, intact = (
        torch.from_numpy(values).to(dtype)[:, None]
        for values in (runs.predict([edges], few)[0], expected[few], runs.clean[few])
    )
    return Comparison(given, wanted, intact)


@dataclass(frozen=True)
class Runs:
    """The test prompts of one class, ready for circuits to be run on them.

    Attributes:
        model: the transformer.
        pairs: clean and corrupt prompts.
        clean: predictions of the clean run.
        corrupt: predictions of the corrupt run.
        weights: bootstrap resamples of prompts.
    """

    model: Transformer
    pairs: PromptPairs
    clean: Float[np.ndarray, " prompt"]
    corrupt: Float[np.ndarray, " prompt"]
    weights: Float[np.ndarray, "resample prompt"]

    @classmethod
    def of(cls, checkpoint: Checkpoint, name: str, question: Question) -> "Runs":
        pairs = question.pairs(checkpoint, name)
        clean, corrupt = (predictions_at_query(checkpoint.model, side) for side in pairs)
        rng = np.random.default_rng(stream_seed("bootstrap", question.seed, name))
        return cls(checkpoint.model, pairs, clean, corrupt, bootstrap_weights(len(clean), rng))

    def check(self, graph: Graph) -> None:
        """All edges are the clean run, none the corrupt run, and there is a difference between the two.

        Raises:
            CheckError: they are not, by more than rounding.
        """
        if not gap_exists(self.corrupt, self.clean):
            raise CheckError("self-check: clean and corrupt prompts are predicted the same")
        all_edges, no_edges = (
            partial(run_with, edges=edges) for edges in (graph.allowed, np.zeros_like(graph.allowed))
        )
        require_agreement(all_edges, self, "the run with all edges is not the clean run")
        require_agreement(partial(no_edges, is_clean=False), self, "the run with no edges is not the corrupt run")

    def in_float64(self) -> "Runs":
        """The first prompts once more, in float64."""
        model, pairs = copy.deepcopy(self.model).double(), self.pairs.rows(few_of(self)).double()
        clean, corrupt = (predictions_at_query(model, side) for side in pairs)
        return replace(self, model=model, pairs=pairs, clean=clean, corrupt=corrupt)

    def predict(self, graphs: Sequence[Edges], prompts: range | None = None) -> Float[np.ndarray, "graph prompt"]:
        """The predictions with clean information on the edges of each graph alone."""
        prompts = range(len(self.clean)) if prompts is None else prompts
        masks = [torch.from_numpy(edges).to(self.model.device) for edges in graphs]
        most = max(1, min(CHUNK, MEMORY // (4 * self.floats(len(graphs[0][0])))))
        size = balanced_chunk_size(len(prompts), most, torch.get_num_threads())

        def run(rows: range) -> Float[np.ndarray, "graph chunk"]:
            clean, other = (self.model.needed(side.rows(rows).tokens) for side in self.pairs.rows(prompts))
            corrupt = corrupt_run(self.model, other)
            found = [predict_circuit(self.model, clean, corrupt, mask) for mask in masks]
            return torch.stack(found).double().cpu().numpy()

        return np.concatenate(map_parts(run, chunks(len(prompts), size)), axis=1)

    def floats(self, n_senders: int) -> int:
        """About how many numbers a prompt takes."""
        config = self.model.config
        return (3 * n_senders + 8 * config.n_heads) * 2 * self.pairs.clean.xs.shape[1] * config.d_model

    def faithfulness(self, edges: Edges) -> Effect:
        return self.effects(self.predict([edges]))[0]

    def effects(self, predictions: Float[np.ndarray, "graph prompt"]) -> list[Effect]:
        return effect_of(predictions, self.corrupt, self.clean, self.weights)

    def row(self, cut: Cut, size: int, n_random: int, rng: np.random.Generator) -> dict[str, Any]:
        """One circuit: faithfulness, completeness, and random graphs of its size."""
        circuit = cut.best(size)
        predictions = self.predict([circuit, cut.graph.allowed & ~circuit])
        faithful, complete = self.effects(predictions)
        gap = np.square(self.clean - self.corrupt).mean()
        return {
            "n_best": size,
            "n_edges": int(circuit.sum()),
            **columns("faithfulness", faithful),
            **columns("completeness", complete),
            "distance": float(np.square(predictions[0] - self.clean).mean() / gap),
            **self.against_random(predictions[0], random_graphs(cut.graph, int(circuit.sum()), n_random, rng)),
        }

    def against_random(self, predictions: Float[np.ndarray, " prompt"], graphs: Sequence[Edges]) -> dict[str, Any]:
        """The circuit beside random graphs on the first `COMPARED` prompts."""
        few = range(min(COMPARED, len(self.clean)))
        base, source = self.corrupt[few], self.clean[few]
        gap = source - base
        own = float(((predictions[few] - base) * gap).mean() / np.square(gap).mean())
        null = np.zeros(0)
        if graphs:
            null = ((self.predict(graphs, few) - base) * gap).mean(1) / np.square(gap).mean()
        spread = {"random": null.mean(), "random_low": null.min(), "random_high": null.max()} if len(null) else {}
        nothing = dict.fromkeys(("random", "random_low", "random_high"), np.nan)
        p_value = permutation_p(closeness(own), closeness(null))
        return {"compared": own} | nothing | spread | {"n_random": len(null), "p_value": p_value}


def columns(what: str, effect: Effect) -> dict[str, float]:
    return {what: effect.value, f"{what}_low": effect.ci_low, f"{what}_high": effect.ci_high}


def closeness(faithfulness: Any) -> Any:
    """1 for what does as the clean run does, less for what falls short of it or overshoots."""
    return 1 - np.abs(1 - faithfulness)


def is_faithful(faithfulness: float, asked: float) -> bool:
    return bool(closeness(faithfulness) >= asked)


def random_graphs(graph: Graph, n_edges: int, n_graphs: int, rng: np.random.Generator) -> list[Edges]:
    """Graphs of at least `n_edges` edges, drawn in random order until as many lie on a path."""
    everything = np.argwhere(graph.allowed)
    return [Cut(graph, rng.permutation(everything)).grown(n_edges) for _ in range(n_graphs)]


def between(rows: Sequence[dict[str, Any]], faithfulness: Callable[[int], float], asked: float) -> Iterator[int]:
    """The smallest faithful size between two that were run, by bisection; nothing where none is faithful."""
    first = next((place for place, row in enumerate(rows) if is_faithful(row["faithfulness"], asked)), None)
    if first is None:
        return
    low, high = rows[first - 1]["n_best"] if first else 0, rows[first]["n_best"]
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_faithful(faithfulness(middle), asked) else (middle, high)
    if high != rows[first]["n_best"]:
        yield high


def edge_rows(target: AllEdges, scores: Effects, cut: Cut, chosen: Edges) -> Iterator[dict[str, Any]]:
    """Every edge, the largest score first."""
    place = {tuple(edge): i for i, edge in enumerate(np.argwhere(target.graph.allowed))}
    for rank, edge in enumerate(map(tuple, cut.order), start=1):
        i = place[edge]
        yield {
            "sender": target.graph.senders[edge[1]],
            "receiver": target.graph.receivers[edge[0]],
            "score": float(scores.value[i]),
            "ci_low": float(scores.low[i]),
            "ci_high": float(scores.high[i]),
            "rank": rank,
            "chosen": bool(chosen[edge]),
        }

"""Circuits: small sets of edges that reproduce the model's prediction, tested by intervention.

1. Edges are scored on separate prompts (`interp.attribution.attribute`), by path patching or from gradients.
2. A circuit is the n edges with the largest scores, without those that lie on no path from read-in to read-out.
3. Faithfulness: the effect of the run with clean information on the circuit's edges alone (0: the corrupt run, 1: the
   clean run). Completeness: the same for all other edges, which shows what the circuit leaves out.
4. The null distribution: random graphs, of edges drawn in random order until as many lie on a path.
5. The smallest circuit whose faithfulness differs from 1 by at most 1 - `min_faithfulness`.

A faithfulness above 1 overshoots, so graphs are compared by 1 - |1 - faithfulness|.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int

from interp.ablation.runner import balanced_chunk_size
from interp.attribution.attribute import find_effects, plan_edges
from interp.attribution.circuit_run import predict_circuit, record_corrupt_run
from interp.attribution.graph import Edges, Graph, parse_edges, prune
from interp.attribution.targets import EXACT, AllEdges, Effects
from interp.display.result import Axes, Result
from interp.model.opened import opens_models
from interp.model.parallel import map_parts
from interp.model.self_checks import Comparison, require_agreement
from interp.names import CorruptionName, EdgeMethod
from interp.patching.effects import effect_of, gap_exists
from interp.patching.prompt_pairs import PromptPairs
from interp.patching.runner import Direction, Question, check_direction, chunks, predictions_at_query
from interp.statistics.effects import Effect, permutation_p
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import CheckError, UserError
from training.common.library_defaults import library_defaults
from training.common.output import records
from training.common.progress import progress_bar
from training.common.table_rows import where
from training.config.config import stream_seed
from training.model.transformer import Transformer
from training.options import DEFAULT_EDGE_STEPS, as_numbers
from training.tasks.function_classes import choose_classes

EdgeOrder = Int[np.ndarray, "edge 2"]
"""(receiver, sender) of every edge, the best first."""

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
        smallest: by class, the row of `curve` of the smallest faithful circuit; None where no size is faithful.
        question: prompts and direction; edges are scored on separate prompts.
        method: how edges are scored.
        min_faithfulness: of a faithful circuit.
        graph: of the model.
    """

    checkpoint: str
    step: int
    curve: pd.DataFrame
    edges: pd.DataFrame
    smallest: dict[str, dict[str, Any] | None]
    question: Question
    method: str
    min_faithfulness: float
    graph: Graph = field(repr=False)

    def plot_curves(self) -> list[Axes]:
        """Faithfulness and completeness by number of edges, beside random graphs."""
        return self.view("plot_curves")

    def chosen(self, function_class: str) -> list[dict[str, Any]]:
        """The edges of the smallest faithful circuit of a class, the largest first."""
        return records(where(self.edges, function_class=function_class, chosen=True))

    def largest(self, function_class: str) -> list[dict[str, Any]]:
        """The edges of the largest circuit of a class that was run, the largest first."""
        n_best = max(where(self.curve, function_class=function_class)["n_best"].tolist())
        rows = records(where(self.edges, function_class=function_class))[:n_best]
        kept = prune(self.graph, parse_edges(self.graph, [f"{row['sender']}->{row['receiver']}" for row in rows]))
        return [row for row in rows if kept[self.graph.index(row["receiver"], row["sender"])]]

    @property
    def files(self) -> Mapping[str, pd.DataFrame]:
        return {"circuit": self.curve, "circuit_edges": self.edges}


@opens_models
def circuits(
    checkpoint: Checkpoint,
    classes: str | Sequence[str] | None = None,
    *,
    sizes: int | str | Sequence[int] = SIZES,
    method: EdgeMethod | str = EXACT,
    corrupt: CorruptionName | str = "prompt",
    direction: Direction | str = "noise",
    examples: int | None = None,
    n_prompts: int = 1024,
    seed: int = 0,
    n_steps: int = DEFAULT_EDGE_STEPS,
    n_random: int = 20,
    min_faithfulness: float = 0.9,
) -> Circuits:
    """Circuits of growing size, how faithful and complete they are, and the smallest faithful one.

    The defaults ask which edges are necessary, as in `path_effects`: edges are scored in the clean run, with the
    senders' outputs on another prompt.

    Args:
        checkpoint: a loaded run.
        classes: function classes; None takes those of the run.
        sizes: numbers of edges to take; those beyond the number of edges are left out.
        method: `exact` (path patching), or a name in `interp.attribution.edges.METHODS`.
        corrupt: a name in `interp.patching.prompt_pairs.CORRUPTIONS`.
        direction: of the scores: `noise` asks which edges are necessary, `denoise` which are sufficient alone.
            Faithfulness always starts from the corrupt run.
        examples: (x, y) pairs before the query; None takes as many as there are.
        n_prompts: per class.
        seed: of prompts, random graphs and resampling.
        n_steps: parts of the path of `eap-ig`.
        n_random: random graphs of every size.
        min_faithfulness: of the smallest faithful circuit, above 0 and at most 1.

    Raises:
        CheckError: the run with all edges is not the clean run, or the run with none is not the corrupt run.
        UserError: an unknown name, an impossible size or share, or a class that does not allow the corruption.

    >>> from interp import load
    >>> result = circuits(load("zoo:mixed-0"), ["linear"], sizes=[200], method="eap", n_prompts=32, n_random=0)
    >>> bool(result.curve["faithfulness"][0] > 0.3)
    True
    """
    classes, sizes = choose_classes(classes, checkpoint.config.evaluated_classes), as_numbers("sizes", sizes)
    question = Question(corrupt, check_direction(direction), examples, n_prompts, seed)
    target = plan_edges(checkpoint, classes, question, methods=[method], n_steps=n_steps)
    check_sizes(sizes, min_faithfulness, target.n_edges)
    return run_circuits(target, classes, method, question, sizes, n_random, min_faithfulness)


@library_defaults()
def run_circuits(
    target: AllEdges,
    classes: Sequence[str],
    method: str,
    question: Question,
    sizes: Sequence[int],
    n_random: int,
    min_faithfulness: float,
) -> Circuits:
    """The circuits of every class, of sizes that `check_sizes` allows."""
    parts = [find_circuits(name, target, method, question, sizes, n_random, min_faithfulness) for name in classes]
    curves, edges, smallest = zip(*parts, strict=True)
    tables = pd.concat(curves, ignore_index=True), pd.concat(edges, ignore_index=True)
    about = target.checkpoint.name, target.checkpoint.step
    by_class = dict(zip(classes, smallest, strict=True))
    return Circuits(*about, *tables, by_class, question, method, min_faithfulness, target.graph)


def check_sizes(sizes: Sequence[int], min_faithfulness: float, n_edges: int) -> None:
    """Refuse sizes and a faithfulness that are impossible in a model of `n_edges` edges.

    Raises:
        UserError: they are.
    """
    given = f"--sizes {','.join(map(str, sizes))}"
    if not sizes or min(sizes) < 1:
        raise UserError(f"{given}: numbers of edges from 1 upwards are needed")
    if min(sizes) > n_edges:
        raise UserError(f"{given}: this model has {n_edges} edges")
    if not 0 < min_faithfulness <= 1:
        raise UserError(f"--min-faithfulness {min_faithfulness}: a number above 0 and at most 1 is needed")


def find_circuits(
    function_class: str,
    target: AllEdges,
    method: str,
    question: Question,
    sizes: Sequence[int],
    n_random: int,
    min_faithfulness: float,
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any] | None]:
    """(curve, edges, smallest) of one class (see `Circuits`): its edges scored, its circuits run."""
    scoring_seed = stream_seed("circuit selection", question.seed)
    scoring = question._replace(n_prompts=min(SCORED, question.n_prompts), seed=scoring_seed)
    scores = find_effects(function_class, target, method, scoring)
    if np.isnan(scores.value).any():
        raise UserError(
            f"--corrupt {question.corrupt}: on {function_class} clean and corrupt prompts are predicted the same"
        )
    runs = CircuitRuns.of(target.checkpoint, function_class, question)
    runs.check(target.graph)
    by_score = np.argsort(-scores.size, kind="stable")
    graph, order = target.graph, np.argwhere(target.graph.allowed)[by_score]
    rng = np.random.default_rng(stream_seed("random graphs", question.seed, function_class))
    possible = sorted({size for size in sizes if size <= len(order)})
    bar = progress_bar(possible, desc=f"circuits {function_class}", unit="size")
    rows = [runs.row(graph, order, size, n_random, rng) for size in bar]
    size = bisect_sizes(rows, lambda size: runs.faithfulness(best_edges(graph, order, size)).value, min_faithfulness)
    if size is not None:
        rows.append(runs.row(graph, order, size, n_random, rng))
    rows.sort(key=lambda row: row["n_best"])
    smallest = next((row for row in rows if is_faithful(row["faithfulness"], min_faithfulness)), None)
    chosen = best_edges(graph, order, smallest["n_best"] if smallest else 0)
    return (
        pd.DataFrame([{"function_class": function_class, "corrupt": question.corrupt} | row for row in rows]),
        edge_table(function_class, target, scores, by_score, chosen),
        smallest,
    )


def best_edges(graph: Graph, order: EdgeOrder, n: int) -> Edges:
    """Those of the first n edges that lie on a path of such edges."""
    edges = np.zeros_like(graph.allowed)
    edges[tuple(order[:n].T)] = True
    return prune(graph, edges)


def best_edges_on_paths(graph: Graph, order: EdgeOrder, n: int) -> Edges:
    """As many first edges as it takes for n of them to lie on a path."""
    low, high = n, len(order)  # the number on paths only grows
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if best_edges(graph, order, middle).sum() >= n else (middle + 1, high)
    return best_edges(graph, order, low)


def random_graphs(graph: Graph, n_edges: int, n_graphs: int, rng: np.random.Generator) -> list[Edges]:
    """Graphs of at least `n_edges` edges, drawn in random order until as many lie on a path."""
    edges = np.argwhere(graph.allowed)
    return [best_edges_on_paths(graph, rng.permutation(edges), n_edges) for _ in range(n_graphs)]


@dataclass(frozen=True)
class CircuitRuns:
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
    def of(cls, checkpoint: Checkpoint, function_class: str, question: Question) -> "CircuitRuns":
        pairs = question.pairs(checkpoint, function_class)
        clean, corrupt = (predictions_at_query(checkpoint.model, side) for side in pairs)
        return cls(checkpoint.model, pairs, clean, corrupt, question.bootstrap(function_class))

    def check(self, graph: Graph) -> None:
        """Check that the run with all edges is the clean run, that with none the corrupt run, and that they differ.

        Raises:
            CheckError: by more than rounding, it is not so.
        """
        if not gap_exists(self.corrupt, self.clean):
            raise CheckError("self-check: clean and corrupt prompts are predicted the same")
        with_all = partial(compare_runs, edges=graph.allowed, is_clean=True)
        with_none = partial(compare_runs, edges=np.zeros_like(graph.allowed), is_clean=False)
        require_agreement(with_all, self, "the run with all edges is not the clean run")
        require_agreement(with_none, self, "the run with no edges is not the corrupt run")

    @property
    def checked(self) -> range:
        """The prompts on which self-checks are made."""
        return range(min(CHUNK, len(self.clean)))

    def in_float64(self) -> "CircuitRuns":
        """The checked prompts in float64."""
        model, pairs = copy.deepcopy(self.model).double(), self.pairs.rows(self.checked).double()
        clean, corrupt = (predictions_at_query(model, side) for side in pairs)
        return replace(self, model=model, pairs=pairs, clean=clean, corrupt=corrupt)

    def predict(self, graphs: Sequence[Edges], prompts: range | None = None) -> Float[np.ndarray, "graph prompt"]:
        """The predictions with clean information on the edges of each graph alone."""
        pairs = self.pairs if prompts is None else self.pairs.rows(prompts)
        n_prompts = len(pairs.clean.xs)
        masks = [torch.from_numpy(edges).to(self.model.device) for edges in graphs]
        most = max(1, min(CHUNK, MEMORY // (4 * self.n_floats(len(graphs[0][0])))))
        size = balanced_chunk_size(n_prompts, most, torch.get_num_threads())

        def run(rows: range) -> Float[np.ndarray, "graph chunk"]:
            clean, corrupt = (self.model.needed(side.rows(rows).tokens) for side in pairs)
            corrupt_run = record_corrupt_run(self.model, corrupt)
            predictions = [predict_circuit(self.model, clean, corrupt_run, mask) for mask in masks]
            return torch.stack(predictions).double().cpu().numpy()

        return np.concatenate(map_parts(run, chunks(n_prompts, size)), axis=1)

    def n_floats(self, n_senders: int) -> int:
        """About how many numbers a prompt takes."""
        config = self.model.config
        return (3 * n_senders + 8 * config.n_heads) * 2 * self.pairs.clean.xs.shape[1] * config.d_model

    def faithfulness(self, edges: Edges) -> Effect:
        return self.effects(self.predict([edges]))[0]

    def effects(self, predictions: Float[np.ndarray, "graph prompt"]) -> list[Effect]:
        return effect_of(predictions, self.corrupt, self.clean, self.weights)

    def row(self, graph: Graph, order: EdgeOrder, size: int, n_random: int, rng: np.random.Generator) -> dict[str, Any]:
        """One circuit: faithfulness, completeness, and random graphs of its size."""
        circuit = best_edges(graph, order, size)
        predictions = self.predict([circuit, graph.allowed & ~circuit])
        faithfulness, completeness = self.effects(predictions)
        gap = np.square(self.clean - self.corrupt).mean()
        return {
            "n_best": size,
            "n_edges": int(circuit.sum()),
            **effect_columns("faithfulness", faithfulness),
            **effect_columns("completeness", completeness),
            "distance": float(np.square(predictions[0] - self.clean).mean() / gap),
            **self.random_columns(predictions[0], random_graphs(graph, int(circuit.sum()), n_random, rng)),
        }

    def random_columns(self, predictions: Float[np.ndarray, " prompt"], graphs: Sequence[Edges]) -> dict[str, Any]:
        """The circuit beside random graphs on the first `COMPARED` prompts."""
        prompts = range(min(COMPARED, len(self.clean)))
        base, gap = self.corrupt[prompts], self.clean[prompts] - self.corrupt[prompts]
        of_graphs = self.predict(graphs, prompts) if graphs else np.zeros((0, len(prompts)))
        effects = ((np.stack([predictions[prompts], *of_graphs]) - base) * gap).mean(1) / np.square(gap).mean()
        compared, null = float(effects[0]), effects[1:]
        spread = (null.mean(), null.min(), null.max()) if len(null) else (np.nan,) * 3
        return {
            "compared": compared,
            **dict(zip(("random", "random_low", "random_high"), spread, strict=True)),
            "n_random": len(null),
            "p_value": permutation_p(closeness(compared), closeness(null)),
        }


def compare_runs(runs: CircuitRuns, edges: Edges, *, is_clean: bool) -> Comparison:
    """The run with clean information on these edges alone, beside the clean or the corrupt run."""
    prompts, dtype = runs.checked, next(runs.model.parameters()).dtype
    expected = runs.clean if is_clean else runs.corrupt
    predictions = runs.predict([edges], prompts)[0], expected[prompts], runs.clean[prompts]
    return Comparison(*(torch.from_numpy(values).to(dtype)[:, None] for values in predictions))


def effect_columns(name: str, effect: Effect) -> dict[str, float]:
    return {name: effect.value, f"{name}_low": effect.ci_low, f"{name}_high": effect.ci_high}


def closeness(faithfulness: Any) -> Any:
    """1 for a run equal to the clean run, less for one that falls short of it or overshoots."""
    return 1 - np.abs(1 - faithfulness)


def is_faithful(faithfulness: float, min_faithfulness: float) -> bool:
    return bool(closeness(faithfulness) >= min_faithfulness)


def bisect_sizes(
    rows: Sequence[dict[str, Any]], faithfulness: Callable[[int], float], min_faithfulness: float
) -> int | None:
    """By bisection, the smallest faithful size below the first faithful one that was run; None if there is none."""
    first = next((i for i, row in enumerate(rows) if is_faithful(row["faithfulness"], min_faithfulness)), None)
    if first is None:
        return None
    low, high = rows[first - 1]["n_best"] if first else 0, rows[first]["n_best"]
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_faithful(faithfulness(middle), min_faithfulness) else (middle, high)
    return high if high != rows[first]["n_best"] else None


def edge_table(
    function_class: str, target: AllEdges, scores: Effects, by_score: Int[np.ndarray, " edge"], chosen: Edges
) -> pd.DataFrame:
    """Every edge of one class, in the order of its scores."""
    graph = target.graph
    receivers, senders = np.argwhere(graph.allowed)[by_score].T
    return pd.DataFrame(
        {
            "function_class": function_class,
            "sender": [graph.senders[i] for i in senders],
            "receiver": [graph.receivers[i] for i in receivers],
            "score": scores.value[by_score],
            "ci_low": scores.low[by_score],
            "ci_high": scores.high[by_score],
            "rank": range(1, len(by_score) + 1),
            "chosen": chosen[receivers, senders],
        }
    )

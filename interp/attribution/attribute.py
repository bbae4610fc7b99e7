"""The effects of patching all nodes of a site, or all edges: exact, or estimated from gradients and validated.

1. Clean and corrupt prompts (`interp.patching.prompt_pairs`); the direction says which run is patched.
2. Exact: every node or edge is patched (`interp.patching`). Estimated: the first-order change of the prediction under
   each patch, from a few forward and backward passes, and the effect of that change (effects are linear in the
   prediction).
3. Validation: every estimate is compared with exact patching on the same prompts (`interp.attribution.validation`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from interp.ablation.runner import balanced_chunk_size
from interp.attribution.nodes import RunTokens
from interp.attribution.targets import EXACT, AllEdges, Effects, Nodes, Target, flatten_estimates
from interp.attribution.validation import validate_estimates
from interp.display.result import Axes, Result
from interp.model.opened import opens_models
from interp.model.parallel import map_parts
from interp.names import CorruptionName, EdgeMethod, NodeMethod, SiteName
from interp.patching.effects import effect_resamples, gap_exists
from interp.patching.maps import name_location
from interp.patching.runner import Direction, Question, check_direction, chunks
from interp.patching.sites import check_site
from interp.statistics.effects import differs_from_zero
from training.checkpoints.checkpoint import Checkpoint
from training.common.bootstrap import percentile_interval
from training.common.errors import UserError, one_of
from training.common.library_defaults import library_defaults
from training.common.output import Table
from training.common.progress import progress_bar
from training.options import DEFAULT_EDGE_STEPS, DEFAULT_NODE_STEPS, as_list
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
            `receiver`): `effect` (0: the prediction is unchanged, 1: as if everything had been patched) with its 95 %
            interval over prompts, and `size`, by which they are ranked (|effect|; for AtP* the mean of |effect| over
            dropped layers).
        validation: one row per class and estimating method (`interp.attribution.validation.validate_estimates`);
            empty if nothing was validated.
        validation_pairs: the effects that were compared: `function_class`, `method`, `name`, `exact`, `approximate`,
            `size`.
        question: prompts and direction.
        of: `edges`, or the site of the nodes.
    """

    checkpoint: str
    step: int
    table: pd.DataFrame
    validation: pd.DataFrame
    validation_pairs: pd.DataFrame
    question: Question
    of: str

    def tables(self, top: int = 10) -> list[Table]:
        """The strongest nodes or edges, and the validation.

        Args:
            top: how many nodes or edges of every class.
        """
        return self.view("tables", top)

    def plot_validation(self) -> list[Axes]:
        """Estimated against exact effects, a panel per class and method.

        Raises:
            UserError: nothing was validated.
        """
        if not len(self.validation):
            raise UserError("these effects have not been validated (n_validate was 0, or every method is exact)")
        return self.view("plot_validation")

    def name(self, row: dict[str, Any]) -> str:
        """The node or edge of a row in words."""
        return f"{row['sender']}->{row['receiver']}" if self.of == "edges" else name_location(self.of, row)

    @property
    def files(self) -> Mapping[str, pd.DataFrame]:
        validation = {"validation": self.validation, "validation_pairs": self.validation_pairs}
        return {"attribution": self.table} | (validation if len(self.validation) else {})


@opens_models
def attribute(
    checkpoint: Checkpoint,
    classes: str | Sequence[str] | None = None,
    *,
    site: SiteName | str = "z",
    methods: NodeMethod | str | Sequence[NodeMethod | str] = (EXACT,),
    corrupt: CorruptionName | str = "function",
    direction: Direction | str = "denoise",
    tokens: str | None = None,
    examples: int | None = None,
    n_prompts: int = 1024,
    seed: int = 0,
    n_steps: int = DEFAULT_NODE_STEPS,
    n_validate: int = 256,
) -> Attribution:
    """The effect of patching every node of a site.

    The defaults ask what is sufficient, as in `patch`: the corrupt run (another function of the same inputs) is patched
    with activations of the clean run.

    Args:
        checkpoint: a loaded run.
        classes: function classes; None takes those of the run.
        site: a name in `interp.patching.sites.SITES`.
        methods: `exact`, or names in `interp.attribution.nodes.METHODS`.
        corrupt: a name in `interp.patching.prompt_pairs.CORRUPTIONS`.
        direction: `denoise` patches the clean run's activations into the corrupt run, `noise` the other way.
        tokens: the tokens to patch together; `each` patches every token alone. None is `all` at sites with heads and
            `each` elsewhere.
        examples: (x, y) pairs before the query; None takes as many as there are.
        n_prompts: per class.
        seed: of prompts and resampling.
        n_steps: parts of the path of `ig` and `ig-activations`.
        n_validate: prompts on which estimates are compared with exact patching; 0 for no comparison.

    Raises:
        CheckError: an exact patch had no effect where it must have one, or an effect where it must have none.
        UserError: an unknown name, or a class that does not allow the corruption.

    >>> from interp import load
    >>> result = attribute(load("zoo:mixed-0"), ["linear"], methods=["gradient"], n_prompts=32, n_validate=32)
    >>> bool(result.validation["spearman"][0] > 0.5)
    True
    """
    classes, methods = choose_classes(classes, checkpoint.config.evaluated_classes), as_list(methods)
    question = Question(corrupt, check_direction(direction), examples, n_prompts, seed)
    target = plan_nodes(checkpoint, classes, question, site=site, tokens=tokens, methods=methods, n_steps=n_steps)
    return measure_effects(target, classes, methods, question, n_validate)


@opens_models
def attribute_edges(
    checkpoint: Checkpoint,
    classes: str | Sequence[str] | None = None,
    *,
    methods: EdgeMethod | str | Sequence[EdgeMethod | str] = (EXACT,),
    corrupt: CorruptionName | str = "function",
    direction: Direction | str = "denoise",
    examples: int | None = None,
    n_prompts: int = 1024,
    seed: int = 0,
    n_steps: int = DEFAULT_EDGE_STEPS,
    n_validate: int = 256,
) -> Attribution:
    """The effect of patching every edge alone, from sender to receiver; everything after the receiver is recomputed.

    Args:
        checkpoint: a loaded run.
        classes: function classes; None takes those of the run.
        methods: `exact` (path patching), or names in `interp.attribution.edges.METHODS`.
        corrupt: a name in `interp.patching.prompt_pairs.CORRUPTIONS`.
        direction: `denoise` patches the clean run's edges into the corrupt run, `noise` the other way.
        examples: (x, y) pairs before the query; None takes as many as there are.
        n_prompts: per class.
        seed: of prompts and resampling.
        n_steps: parts of the path of `eap-ig`.
        n_validate: prompts on which estimates are compared with exact patching; 0 for no comparison.

    Raises:
        CheckError: an exact patch had no effect where it must have one, or an effect where it must have none.
        UserError: an unknown name, or a class that does not allow the corruption.

    >>> from interp import load
    >>> result = attribute_edges(load("zoo:mixed-0"), ["linear"], methods=["eap"], n_prompts=8, n_validate=0)
    >>> len(result.table)
    802
    """
    classes, methods = choose_classes(classes, checkpoint.config.evaluated_classes), as_list(methods)
    question = Question(corrupt, check_direction(direction), examples, n_prompts, seed)
    target = plan_edges(checkpoint, classes, question, methods=methods, n_steps=n_steps)
    return measure_effects(target, classes, methods, question, n_validate)


def plan_nodes(
    checkpoint: Checkpoint,
    classes: Sequence[str],
    question: Question,
    *,
    site: str,
    tokens: str | None,
    methods: Sequence[str],
    n_steps: int,
) -> Nodes:
    """The nodes that `attribute` patches; refuses what does not exist before anything is computed.

    Raises:
        UserError: see `attribute`.
    """
    check_site(site)
    check_methods(methods, Nodes.methods)
    target = Nodes(checkpoint, question.check(checkpoint, classes), n_steps, site, tokens)
    target.rows()  # refuses tokens that do not exist
    return target


def plan_edges(
    checkpoint: Checkpoint, classes: Sequence[str], question: Question, *, methods: Sequence[str], n_steps: int
) -> AllEdges:
    """The edges that `attribute_edges` patches; refuses what does not exist before anything is computed.

    Raises:
        UserError: see `attribute_edges`.
    """
    check_methods(methods, AllEdges.methods)
    return AllEdges(checkpoint, question.check(checkpoint, classes), n_steps)


def check_methods(methods: Iterable[str], estimating: Iterable[str]) -> None:
    """Refuse names that `--method` does not know.

    Raises:
        UserError: there is no such method.
    """
    valid = (EXACT, *estimating)
    for method in methods:
        if method not in valid:
            raise one_of("--method", method, valid)


@library_defaults()
def measure_effects(
    target: Target, classes: Sequence[str], methods: Sequence[str], question: Question, n_validate: int
) -> Attribution:
    """Every method on every class, and the validation of those that estimate."""
    rows, validation, pairs = [], [], []
    few = question._replace(n_prompts=min(n_validate, question.n_prompts))
    for function_class in classes:
        measure = cache(partial(find_effects, function_class, target))
        about = {"function_class": function_class, "corrupt": question.corrupt, "direction": question.direction}
        for method in methods:
            rows += [about | {"method": method} | row for row in effect_rows(target, measure(method, question))]
        for method in methods if n_validate else ():
            if method == EXACT or np.isnan(measure(EXACT, few).value).any():
                continue
            exact, estimates = measure(EXACT, few), measure(method, few)
            about, names = {"function_class": function_class, "method": method}, target.names()
            differs = differs_from_zero(exact.low, exact.high)
            compared = {"n_prompts": few.n_prompts, "sizes": estimates.size, "nonzero": differs}
            validation.append(about | validate_estimates(exact.value, estimates.value, names, **compared))
            columns = {"exact": exact.value, "approximate": estimates.value, "size": estimates.size}
            pairs.append(pd.DataFrame(about | {"name": names} | columns))
    tables = pd.DataFrame(rows), pd.DataFrame(validation), pd.concat(pairs) if pairs else pd.DataFrame()
    return Attribution(target.checkpoint.name, target.checkpoint.step, *tables, question, target.title)


def find_effects(function_class: str, target: Target, method: str, question: Question) -> Effects:
    """The effects by one method on the prompts of one class."""
    if method == EXACT:
        return target.exact(function_class, question)
    return effects_of_estimates(estimate_prompts(function_class, target, method, question), function_class, question)


class PromptEstimates(NamedTuple):
    """`interp.attribution.nodes.Estimates` of all prompts, beside the predictions of both runs."""

    base: Float[np.ndarray, " prompt"]
    source: Float[np.ndarray, " prompt"]
    signed: Float[np.ndarray, "prompt node"]
    dropped: Float[np.ndarray, "drop prompt node"] | None


def estimate_prompts(function_class: str, target: Target, method: str, question: Question) -> PromptEstimates:
    """First-order changes of the prediction on all prompts, chunk by chunk."""
    model, n_prompts = target.checkpoint.model, question.n_prompts
    sides = question.sides(question.pairs(target.checkpoint, function_class))
    most = max(1, min(CHUNK, MEMORY // (4 * target.n_floats())))
    size = balanced_chunk_size(n_prompts, most, torch.get_num_threads())
    with progress_bar(total=n_prompts, desc=f"{method} {function_class}", unit="prompt") as bar:

        def run(prompts: range) -> PromptEstimates:
            tokens = RunTokens(*(model.needed(side.rows(prompts).tokens) for side in sides))
            estimates = target.estimate(model, tokens, method)
            with torch.no_grad():
                base, source = (model.predict(side)[:, -1].double().cpu().numpy() for side in tokens)
            bar.update(len(prompts))
            dropped = None if estimates.dropped is None else flatten_estimates(estimates.dropped)
            return PromptEstimates(base, source, flatten_estimates(estimates.signed), dropped)

        parts = map_parts(run, chunks(n_prompts, size))
    bases, sources, signed, dropped = zip(*parts, strict=True)
    all_dropped = None if dropped[0] is None else np.concatenate(dropped, axis=1)
    return PromptEstimates(np.concatenate(bases), np.concatenate(sources), np.concatenate(signed), all_dropped)


def effects_of_estimates(estimates: PromptEstimates, function_class: str, question: Question) -> Effects:
    """Effects with intervals (`interp.patching.effects`), at predictions changed by the estimates."""
    base, gap = estimates.base, estimates.source - estimates.base
    n_nodes = estimates.signed.shape[1]
    if not gap_exists(base, estimates.source):
        return Effects(*np.full((4, n_nodes), np.nan))
    value = gap @ estimates.signed / np.square(gap).sum()
    weights, intervals = question.bootstrap(function_class), []
    for start in range(0, n_nodes, COLUMNS):
        patched = base[:, None] + estimates.signed[:, start : start + COLUMNS]
        intervals.append(percentile_interval(effect_resamples(patched.T, base, estimates.source, weights)))
    low, high = (np.concatenate(parts) for parts in zip(*intervals, strict=True))
    if estimates.dropped is None:
        return Effects(value, low, high, np.abs(value))
    return Effects(value, low, high, np.abs(gap @ estimates.dropped / np.square(gap).sum()).sum(0))


def effect_rows(target: Target, effects: Effects) -> list[dict[str, Any]]:
    return [
        row | {"effect": float(value), "ci_low": float(low), "ci_high": float(high), "size": float(size)}
        for row, value, low, high, size in zip(target.rows(), *effects, strict=True)
    ]

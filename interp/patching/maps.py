"""Which activations carry the answer: one site patched at every layer and head, or layer and token, as a map.

1. Clean and corrupt prompts (`interp.patching.prompt_pairs`); the direction says which run is patched.
2. Self-checks on some of them (`interp.patching.self_checks`).
3. Every patch, exactly (`interp.patching.runner`); effects with paired bootstrap intervals.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.display.result import Axes, Result
from interp.model.heads import MLP, HeadSet, show
from interp.model.opened import opens_models
from interp.model.positions import parse_tokens, token_names
from interp.names import CorruptionName, SiteName
from interp.patching.effects import METRICS, Outcomes, effect_of, error_metrics
from interp.patching.engine import read_activations
from interp.patching.runner import Direction, MakeActivations, PatchedClass, Question, check_direction, run_patches
from interp.patching.sites import SITES, Activations, Patch, Variant, check_site, head_patches
from interp.scores.head_choice import HeadChoice, resolve_sets
from training.checkpoints.checkpoint import Checkpoint
from training.common.bootstrap import percentile_interval
from training.common.errors import UserError, one_of
from training.common.library_defaults import library_defaults
from training.common.output import records
from training.common.progress import progress_bar
from training.common.table_rows import where
from training.config.config import RunConfig
from training.evaluation.own_prompts import OwnPrompts
from training.evaluation.own_run import open_own
from training.model.transformer import Transformer
from training.tasks.function_classes import choose_classes
from training.tasks.prompts import Layout

UNVARYING = "the same on every prompt, so that patching it changes nothing"
TOKENS = "all, each, query, x, y, or A-B, x:A-B, y:A-B for pairs A to B"


class Location(NamedTuple):
    """One cell of a map.

    Attributes:
        layer: of the patched activation; of a head set, the layer of its first head.
        heads: as on the command line; empty at sites without heads.
        tokens: as on the command line, or a token's name.
        variant: the patches.
    """

    layer: int
    heads: str
    tokens: str
    variant: Variant


@dataclass(frozen=True, repr=False, eq=False)
class PatchMap(Result):
    """The effects of patching one site at many locations.

    Attributes:
        checkpoint: the model's name.
        step: of its training.
        table: one row per function class and location: `layer`, `heads`, `tokens`; `effect` (0: the prediction is
            unchanged, 1: as if everything had been patched), `nmse`, `distance_to_clean` and `nmse_above_no_context`
            (see `interp.patching.effects.METRICS`), each with its 95 % interval over prompts (`ci_low`, `nmse_low`, …);
            `changed`, whether the patched activation differs between the two runs; `note`, if it is the same on every
            prompt (pruned heads).
        question: prompts and direction.
        site: what was patched.
        baseline_errors: one row per function class: errors of the clean and the corrupt run and of the no-context
            optimum, and `gap`, the squared difference between the two runs' predictions over E[y²].
        outcomes: by function class, the predictions.
    """

    checkpoint: str
    step: int
    table: pd.DataFrame
    question: Question
    site: str
    baseline_errors: pd.DataFrame
    outcomes: Mapping[str, Outcomes] = field(repr=False)

    def plot(self, metric: str = "effect") -> list[Axes]:
        """Heat maps, a panel per class.

        Args:
            metric: a name in `interp.patching.effects.METRICS`.

        Raises:
            UserError: there is no such metric.
        """
        if metric not in METRICS:
            raise one_of("metric", metric, METRICS)
        return self.view("plot", metric)

    def class_errors(self, function_class: str) -> dict[str, Any]:
        """The row of `baseline_errors` of one class."""
        return records(where(self.baseline_errors, function_class=function_class))[0]

    @property
    def files(self) -> Mapping[str, pd.DataFrame]:
        return {"patching": self.table, "patching_baseline_errors": self.baseline_errors}


@opens_models
def patch(
    checkpoint: Checkpoint,
    classes: str | Sequence[str] | None = None,
    *,
    site: SiteName | str = "z",
    corrupt: CorruptionName | str = "function",
    direction: Direction | str = "denoise",
    heads: HeadChoice = "each",
    tokens: str | None = None,
    examples: int | None = None,
    n_prompts: int = 1024,
    seed: int = 0,
    prompts: OwnPrompts | None = None,
) -> PatchMap:
    """Patch one site of one run with its activations in another run, location by location.

    The defaults ask which heads are sufficient: the corrupt run (another function of the same inputs) is patched with
    activations of the clean run.

    Args:
        checkpoint: a loaded run.
        classes: function classes; None takes those of the run.
        site: a name in `interp.patching.sites.SITES`.
        corrupt: a name in `interp.patching.prompt_pairs.CORRUPTIONS`.
        direction: `denoise` patches the clean run's activations into the corrupt run, `noise` the other way.
        heads: at sites with heads, the heads to patch together (`interp.scores.head_choice.HeadChoice`); `each`
            patches every head alone.
        tokens: the tokens to patch together; `each` patches every token alone. None is `all` at sites with heads and
            `each` elsewhere.
        examples: (x, y) pairs before the query; None takes as many as there are.
        n_prompts: per class.
        seed: of prompts and resampling.
        prompts: of your own, in the place of `classes` (`interp.OwnPrompts`), with the corruption `permuted`, `pair:J`
            or `noise`. A random half chooses heads.

    Raises:
        CheckError: a patch had no effect where it must have one, or an effect where it must have none.
        UserError: an unknown name, or a class that does not allow the corruption.

    >>> from interp import load
    >>> result = patch(load("zoo:mixed-0"), ["linear"], site="resid_post", tokens="query", n_prompts=32)
    >>> result.table["effect"].round(3).tolist()[-1]
    1.0
    """
    checkpoint, n_prompts = open_own(checkpoint, prompts, classes, n_prompts, is_split=True)
    classes = choose_classes(classes, checkpoint.config.evaluated_classes)
    question = Question(corrupt, check_direction(direction), examples, n_prompts, seed)
    locations = plan_locations(checkpoint, classes, question, site=site, heads=heads, tokens=tokens)
    return patch_locations(checkpoint, classes, question, site, locations)


@library_defaults()
def patch_locations(
    checkpoint: Checkpoint, classes: Sequence[str], question: Question, site: str, locations: Sequence[Location]
) -> PatchMap:
    """The map of these locations (`plan_locations`)."""
    variants = [location.variant for location in locations]
    with progress_bar(total=len(classes) * len(variants), desc="patch", unit="patch") as bar:
        results = {
            function_class: run_patches(
                checkpoint, function_class, question, [variants], source_activations(variants), bar
            )
            for function_class in classes
        }
    about = {"corrupt": question.corrupt, "direction": question.direction, "site": site}
    rows = [
        {"function_class": function_class} | about | row
        for function_class, patched in results.items()
        for row in patch_rows(locations, patched, function_class, question)
    ]
    outcomes = {function_class: patched.outcomes for function_class, patched in results.items()}
    errors = pd.DataFrame([baseline_errors(function_class, of) for function_class, of in outcomes.items()])
    return PatchMap(checkpoint.name, checkpoint.step, pd.DataFrame(rows), question, site, errors, outcomes)


def source_activations(variants: Sequence[Variant]) -> MakeActivations:
    """The activations of the source run, for a single job of these variants."""
    keys = {(patch.layer, patch.site): None for variant in variants for patch in variant}

    def make_activations(
        model: Transformer, _base: Float[Tensor, "batch pos dim"], source: Float[Tensor, "batch pos dim"]
    ) -> Iterator[Activations]:
        yield read_activations(model, source, keys)

    return make_activations


def plan_locations(
    checkpoint: Checkpoint,
    classes: Sequence[str],
    question: Question,
    *,
    site: str,
    heads: HeadChoice,
    tokens: str | None,
) -> list[Location]:
    """Every cell of the map; refuses what does not exist before anything is run or written.

    Raises:
        UserError: an unknown name, or a class that does not allow the corruption.
    """
    sets = choose_head_sets(checkpoint, site, heads, question)
    return list_locations(checkpoint.config, site, sets, tokens, question.check(checkpoint, classes))


def choose_head_sets(
    checkpoint: Checkpoint, site: str, heads: HeadChoice, question: Question
) -> Sequence[HeadSet] | None:
    """The sets of heads to patch; None at sites without heads.

    Raises:
        UserError: an unknown site or head, or heads at a site that has none.
    """
    config = checkpoint.config.model
    if not check_site(site).by_head:
        if heads != "each":
            with_heads = ", ".join(name for name, site in SITES.items() if site.by_head)
            raise UserError(f"--heads {heads}: the site {site} has no heads (those that have: {with_heads})")
        return None
    sets = resolve_sets(heads, config.n_layers, config.n_heads, partial(question.scores, checkpoint))
    if any(head.number == MLP for head_set in sets for head in head_set):
        raise UserError(f"--heads {heads}: {site} is a site of heads; an MLP is patched with --site mlp_out")
    return sets


def list_locations(
    config: RunConfig, site: str, sets: Sequence[HeadSet] | None, tokens: str | None, n_examples: int
) -> list[Location]:
    """Every cell of the map, for these sets of heads, or for every layer at a site without heads.

    Raises:
        UserError: there are no such tokens, or the site is that of MLPs and the model has none.
    """
    if site == "mlp_out" and not config.model.mlp_width:
        raise UserError("--site mlp_out: this model has no MLPs (model.d_mlp=0)")
    spans = token_sets(tokens or ("each" if sets is None else "all"), config.layout, n_examples + 1)
    if sets is None:
        return [
            Location(layer, "", label, (Patch(site, layer, (), mask),))
            for layer in range(config.model.n_layers)
            for label, mask in spans
        ]
    return [
        Location(head_set[0].layer, show(head_set), label, head_patches(site, head_set, mask))
        for head_set in sets
        for label, mask in spans
    ]


def token_sets(tokens: str, layout: Layout, n_points: int) -> list[tuple[str, Bool[Tensor, " pos"] | None]]:
    """The sets of tokens named by `--tokens`, of a prompt of `n_points` pairs, the last of which is the query.

    Raises:
        UserError: malformed, or no such pairs.

    >>> [name for name, _ in token_sets("each", Layout(), 2)], token_sets("query", Layout(), 2)[0][1].tolist()
    (['x0', 'y0', 'x1'], [False, False, True])
    """
    names = token_names(layout, n_points)[: layout.n_needed(layout.n_tokens(n_points))]
    if tokens == "each":
        return [(name, torch.arange(len(names)) == index) for index, name in enumerate(names)]
    if tokens == "query":
        return [("query", torch.arange(len(names)) == len(names) - 1)]
    return [(tokens, parse_tokens(tokens, layout, n_points, TOKENS))]


def patch_rows(
    locations: Sequence[Location], patched: PatchedClass, function_class: str, question: Question
) -> list[dict[str, Any]]:
    """One row per location of one class."""
    outcomes, weights = patched.outcomes, question.bootstrap(function_class)
    effects = effect_of(outcomes.patched, *question.ends(outcomes), weights)
    errors = [mean_columns(metric, values, weights) for metric, values in error_metrics(outcomes).items()]
    return [
        {"layer": location.layer, "heads": location.heads, "tokens": location.tokens}
        | {"effect": effects[i].value, "ci_low": effects[i].ci_low, "ci_high": effects[i].ci_high}
        | {column: value for columns in errors for column, value in columns[i].items()}
        | {"changed": bool(patched.changed[i]), "note": "" if patched.varies[i] else UNVARYING}
        for i, location in enumerate(locations)
    ]


def mean_columns(
    name: str, values: Float[np.ndarray, "variant prompt"], weights: Float[np.ndarray, "resample prompt"]
) -> list[dict[str, float]]:
    """By variant, the mean over prompts and its 95 % interval, as the columns `name`, `name_low`, `name_high`."""
    columns = zip(values.mean(1), *percentile_interval(weights @ values.T), strict=True)
    return [{name: float(mean), f"{name}_low": float(low), f"{name}_high": float(high)} for mean, low, high in columns]


def baseline_errors(function_class: str, outcomes: Outcomes) -> dict[str, Any]:
    """Errors of the two unpatched runs and of the no-context optimum, and the gap between the runs, over E[y²]."""
    runs = {"clean": outcomes.clean, "corrupt": outcomes.corrupt, "no_context": outcomes.no_context}
    errors = {
        f"nmse_{name}": np.square(predictions - outcomes.answer).mean() / outcomes.unit
        for name, predictions in runs.items()
    }
    gap = np.square(outcomes.clean - outcomes.corrupt).mean() / outcomes.unit
    return {"function_class": function_class, **errors, "gap": gap}


def name_location(site: str, row: Mapping[str, Any]) -> str:
    """A location in words.

    >>> name_location("z", {"layer": 0, "heads": "0.1", "tokens": "all"})
    'z of 0.1'
    >>> name_location("resid_pre", {"layer": 2, "heads": "", "tokens": "y3"})
    'resid_pre of layer 2 at y3'
    """
    component = row["heads"] or f"layer {row['layer']}"
    return f"{site} of {component}" + ("" if row["tokens"] == "all" else f" at {row['tokens']}")

"""Which activations carry the answer: one site patched at every layer and head or token, as a map.

1. Clean and corrupt prompts (`interp.patching.prompt_pairs`); the direction says which of them is patched.
2. Prove on some of them that the patches act (`interp.patching.self_checks`).
3. Patch everything, exactly (`interp.patching.runner`); effects with paired bootstrap intervals.
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
from interp.display.text import counted
from interp.model.heads import MLP, HeadSet, parse_heads, show
from interp.model.positions import parse_tokens, token_names
from interp.patching.effects import METRICS, Outcomes, effect_of, error_metrics
from interp.patching.engine import recorded
from interp.patching.runner import Prepare, Question, Sweep, check_direction, patch_sweep
from interp.patching.sites import SITES, Given, Patch, Variant, check_site, head_patches
from interp.statistics.effects import differs_from_zero, rank_by_evidence
from training.checkpoints.checkpoint import Checkpoint
from training.common.bootstrap import bootstrap_weights, percentile_interval
from training.common.errors import UserError, one_of
from training.common.library_defaults import library_defaults
from training.common.output import records
from training.common.progress import progress_bar
from training.config.config import RunConfig, stream_seed
from training.model.transformer import Transformer
from training.tasks.function_classes import choose_classes
from training.tasks.prompts import Layout

ALIKE = 0.5
"""NMSE: two runs that both err by less answer alike."""
SAME = "Some places hold the same in both runs, so that patching them cannot act (column differs)."
UNVARYING = "the same on every prompt, so that patching it changes nothing"
AT = "all, each, query, x, y, or A-B, x:A-B, y:A-B for pairs A to B"


class Place(NamedTuple):
    """One cell of a map.

    Attributes:
        layer: of the patched activation; that of the first head of a set.
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
    """The effect of patching one site at many places.

    Attributes:
        checkpoint: the model's name.
        step: of its training.
        table: one row per function class and place: `layer`, `heads`, `tokens`; `effect` (0: nothing happened, 1: as if
            everything had been patched), `nmse`, `distance` and `excess` (see `interp.patching.effects.METRICS`), each
            with its 95 % interval over prompts (`ci_low`, `nmse_low`, …); `differs`, whether what was patched in
            differs at all from what was there; `note`, if what was patched is the same on every prompt (pruned heads).
        question: prompts and direction.
        site: what was patched.
        ends: one row per function class: errors of the clean and the corrupt run and of the no-context optimum.
    """

    checkpoint: str
    step: int
    table: pd.DataFrame
    question: Question
    site: str
    ends: pd.DataFrame
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

    @property
    def files(self) -> Mapping[str, pd.DataFrame]:
        return {"patching": self.table, "patching_ends": self.ends}


@library_defaults()
def patch(
    checkpoint: Checkpoint,
    classes: str | Sequence[str] | None = None,
    *,
    site: str = "z",
    corrupt: str = "function",
    direction: str = "denoise",
    heads: str | Sequence[HeadSet] = "each",
    at: str | None = None,
    examples: int | None = None,
    n_prompts: int = 1024,
    seed: int = 0,
) -> PatchMap:
    """Patch one site of one run with its activations in another, place by place.

    Args:
        checkpoint: a loaded run.
        classes: function classes; None takes those of the run.
        site: a name in `interp.patching.sites.SITES`.
        corrupt: a name in `interp.patching.prompt_pairs.CORRUPTIONS`.
        direction: `denoise` patches the clean run's activations into the corrupt run, `noise` the other way.
        heads: at sites with heads, which of them together; `each` alone (`interp.model.heads.SYNTAX`, or head sets).
        at: tokens, all together or `each` alone; None is `all` at sites with heads and `each` elsewhere.
        examples: pairs before the query; None takes as many as there are.
        n_prompts: per class.
        seed: of prompts and resampling.

    Raises:
        CheckError: a patch did not act, or acted where it should not.
        UserError: an unknown name, or a class that does not allow the corruption.

    >>> from interp import load
    >>> found = patch(load("zoo:mixed-0"), ["linear"], site="resid_post", at="query", n_prompts=32)
    >>> found.table["effect"].round(3).tolist()[-1]
    1.0
    """
    names = choose_classes(classes, checkpoint.config.evaluated_classes)
    question = Question(corrupt, check_direction(direction), examples, n_prompts, seed)
    places = plan(checkpoint, names, question, site=site, heads=heads, at=at)
    variants = [place.variant for place in places]
    with progress_bar(total=len(names) * len(variants), desc="patch", unit="patch") as bar:
        sweeps = {
            name: patch_sweep(checkpoint, name, question, [variants], source_run(variants), bar) for name in names
        }
    about = {"corrupt": corrupt, "direction": direction, "site": site}
    rows = [
        {"function_class": name, **about, **row}
        for name, sweep in sweeps.items()
        for row in rows_of(places, sweep, name, question)
    ]
    ends = pd.DataFrame([end_row(name, sweep.outcomes) for name, sweep in sweeps.items()])
    outcomes = {name: one.outcomes for name, one in sweeps.items()}
    return PatchMap(checkpoint.name, checkpoint.step, pd.DataFrame(rows), question, site, ends, outcomes)


def source_run(variants: Sequence[Variant]) -> Prepare:
    """What a map patches in: the activations of the source run."""
    keys = {(one.layer, one.site): None for variant in variants for one in variant}

    def prepare(
        model: Transformer, own: Float[Tensor, "batch pos dim"], other: Float[Tensor, "batch pos dim"]
    ) -> Iterator[Given]:
        del own
        yield recorded(model, other, keys)

    return prepare


def plan(
    checkpoint: Checkpoint,
    names: Sequence[str],
    question: Question,
    *,
    site: str,
    heads: str | Sequence[HeadSet],
    at: str | None,
) -> list[Place]:
    """Every cell of the map; refuses whatever does not exist before anything is run or written.

    Raises:
        UserError: an unknown name, or a class that does not allow the corruption.
    """
    sets = sets_of(checkpoint, site, heads, question)
    return places_of(checkpoint.config, site, sets, at, question.check(checkpoint, names))


def sets_of(
    checkpoint: Checkpoint, site: str, heads: str | Sequence[HeadSet], question: Question
) -> Sequence[HeadSet] | None:
    """The sets of heads to patch; None at sites without heads.

    Raises:
        UserError: an unknown site or head, or heads at a site that has none.
    """
    config = checkpoint.config.model
    if not check_site(site).by_head:
        if heads != "each":
            raise UserError(f"--heads {heads}: the site {site} has no heads (those that have: {', '.join(by_head())})")
        return None
    if not isinstance(heads, str):
        return heads
    sets = parse_heads(heads, config.n_layers, config.n_heads, partial(question.scores, checkpoint))
    if any(head.number == MLP for one in sets for head in one):
        raise UserError(f"--heads {heads}: {site} is a site of heads; an MLP is patched with --site mlp_out")
    return sets


def places_of(
    config: RunConfig, site: str, sets: Sequence[HeadSet] | None, at: str | None, n_examples: int
) -> list[Place]:
    """Every cell of the map, for these sets of heads, or for every layer at a site without heads.

    Raises:
        UserError: there are no such tokens.
    """
    spans = token_sets(at or ("each" if sets is None else "all"), config.layout, n_examples + 1)
    if sets is None:
        return [
            Place(layer, "", label, (Patch(site, layer, (), tokens),))
            for layer in range(config.model.n_layers)
            for label, tokens in spans
        ]
    return [
        Place(one[0].layer, show(one), label, head_patches(site, one, tokens))
        for one in sets
        for label, tokens in spans
    ]


def by_head() -> list[str]:
    return [name for name, site in SITES.items() if site.by_head]


def token_sets(at: str, layout: Layout, n_points: int) -> list[tuple[str, Bool[Tensor, " pos"] | None]]:
    """The sets of tokens that `--at` names, among those of a prompt of `n_points` pairs, the last of them the query.

    Raises:
        UserError: malformed, or no such pairs.

    >>> [name for name, _ in token_sets("each", Layout(), 2)], token_sets("query", Layout(), 2)[0][1].tolist()
    (['x0', 'y0', 'x1'], [False, False, True])
    """
    names = token_names(layout, n_points)[: layout.n_needed(layout.n_tokens(n_points))]
    if at == "each":
        return [(name, torch.arange(len(names)) == place) for place, name in enumerate(names)]
    if at == "query":
        return [("query", torch.arange(len(names)) == len(names) - 1)]
    return [(at, parse_tokens(at, layout, n_points, AT))]


def rows_of(places: Sequence[Place], sweep: Sweep, name: str, question: Question) -> list[dict[str, Any]]:
    """One row per place of one class."""
    outcomes = sweep.outcomes
    rng = np.random.default_rng(stream_seed("bootstrap", question.seed, name))
    weights = bootstrap_weights(len(outcomes.answer), rng)
    effects = effect_of(outcomes.patched, *question.ends(outcomes), weights)
    errors = {metric: with_intervals(values, weights) for metric, values in error_metrics(outcomes).items()}
    return [
        {"layer": place.layer, "heads": place.heads, "tokens": place.tokens}
        | {"effect": effects[i].value, "ci_low": effects[i].ci_low, "ci_high": effects[i].ci_high}
        | {
            f"{metric}{end}": float(values[i])
            for metric, columns in errors.items()
            for end, values in zip(("", "_low", "_high"), columns, strict=True)
        }
        | {"differs": bool(sweep.differs[i]), "note": "" if sweep.varies[i] else UNVARYING}
        for i, place in enumerate(places)
    ]


def with_intervals(
    values: Float[np.ndarray, "variant prompt"], weights: Float[np.ndarray, "resample prompt"]
) -> tuple[Float[np.ndarray, " variant"], Float[np.ndarray, " variant"], Float[np.ndarray, " variant"]]:
    """Means over prompts with their 95 % intervals."""
    return values.mean(1), *percentile_interval(weights @ values.T)


def end_row(name: str, outcomes: Outcomes) -> dict[str, Any]:
    """Errors at both ends of the gap that patches are measured on."""
    ends = {"clean": outcomes.clean, "corrupt": outcomes.corrupt, "no_context": outcomes.no_context}
    errors = {f"nmse_{key}": np.square(one - outcomes.answer).mean() / outcomes.unit for key, one in ends.items()}
    gap = np.square(outcomes.clean - outcomes.corrupt).mean() / outcomes.unit
    return {"function_class": name, **errors, "gap": gap}


def strongest(found: PatchMap, name: str, count: int) -> list[dict[str, Any]]:
    """The places on one class with the best evidence that they matter (`rank_by_evidence`).

    Where both runs answer alike, those come first whose error changes most, and before them those whose interval
    leaves out the error of the run that is patched.
    """
    rows = [row for row in records(found.table) if row["function_class"] == name]
    if not answers_alike(found, name):
        return sorted(rows, key=lambda row: rank_by_evidence(row["effect"], row["ci_low"], row["ci_high"]))[:count]
    before = error_before(found, name)
    return sorted(rows, key=lambda row: (not is_evident(found, name, row), -abs(row["nmse"] - before)))[:count]


def is_evident(found: PatchMap, name: str, row: Mapping[str, Any]) -> bool:
    """Whether the interval of a place leaves out that nothing happened."""
    if answers_alike(found, name):
        before = error_before(found, name)
        return bool(differs_from_zero(row["nmse_low"] - before, row["nmse_high"] - before))
    return not rank_by_evidence(row["effect"], row["ci_low"], row["ci_high"])[0]


def error_before(found: PatchMap, name: str) -> float:
    """NMSE of the run that is patched."""
    return end_of(found, name)[f"nmse_{found.question.base}"]


def answers_alike(found: PatchMap, name: str) -> bool:
    """Whether the corruption leaves the answer as it is (as `inputs` does), so that there is little way to go."""
    end = end_of(found, name)
    return end["nmse_corrupt"] < ALIKE and end["gap"] < ALIKE


def end_of(found: PatchMap, name: str) -> dict[str, Any]:
    """The errors at both ends, on one class."""
    return next(row for row in records(found.ends) if row["function_class"] == name)


def sentence(found: PatchMap, name: str) -> str:
    """What the map of one class says, by rule: the place with the best evidence, and the next one.

    Places whose interval does not leave out that nothing happened are not named, but counted where there are no others.
    """
    question, best = found.question, strongest(found, name, 2)
    corrupt = f"On {name} ({question.corrupt}) "
    if np.isnan(best[0]["effect"]):
        return f"{corrupt}the clean and the corrupt run predict the same: there is nothing to patch."
    alike = answers_alike(found, name)
    evident = [row for row in best if is_evident(found, name, row)]
    if not evident:
        nothing = (
            "leads to an error that differs from that of the patched run"
            if alike
            else "has an effect that differs from 0"
        )
        n_places = sum(row["function_class"] == name for row in records(found.table))
        return f"{corrupt}no patch {nothing} ({counted(n_places, 'place')} patched)."
    if alike:
        text = f"{corrupt}both runs answer alike, so errors tell more than effects: from "
        text += f"{error_before(found, name):.2f} NMSE "
        places = [f"{place_name(found.site, row)} leads to {shown(row, 'nmse', 'nmse_')}" for row in evident]
    else:
        text = f"{corrupt}patching "
        places = [f"{place_name(found.site, row)} {outcome_of(row, question.direction)}" for row in evident]
    return text + "; next ".join(places) + "."


def outcome_of(row: Mapping[str, Any], direction: str) -> str:
    """What a patch does to the gap.

    >>> outcome_of({"effect": -0.3, "ci_low": -0.4, "ci_high": -0.2}, "denoise")
    'moves the prediction the other way, by 0.30 [0.20, 0.40] of the gap'
    """
    if row["effect"] < 0:
        turned = {"effect": -row["effect"], "ci_low": -row["ci_high"], "ci_high": -row["ci_low"]}
        return f"moves the prediction the other way, by {shown(turned)} of the gap"
    return f"{'restores' if direction == 'denoise' else 'destroys'} {shown(row)} of the gap"


def shown(row: Mapping[str, Any], metric: str = "effect", prefix: str = "ci_") -> str:
    return f"{row[metric]:.2f} [{row[prefix + 'low']:.2f}, {row[prefix + 'high']:.2f}]"


def place_name(site: str, row: Mapping[str, Any]) -> str:
    """A place in words.

    >>> place_name("z", {"layer": 0, "heads": "0.1", "tokens": "all"})
    'z of 0.1'
    >>> place_name("resid_pre", {"layer": 2, "heads": "", "tokens": "y3"})
    'resid_pre of layer 2 at y3'
    """
    where = "" if row["tokens"] == "all" else f" at {row['tokens']}"
    whose = row["heads"] or f"layer {row['layer']}"
    return f"{site} of {whose}{where}"

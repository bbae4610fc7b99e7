"""Patches activations of any model between clean and corrupt examples and measures the clean loss, by location.

The loss is always that of the clean example: of the model's output on either of the two, `loss(output, clean)`. An
effect is the share of the way from the run that is patched to the run that activations come from
(`interp.patching.effects`, with losses in place of predictions).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.any_model.examples import repeated
from interp.any_model.judge import rows_by_condition
from interp.any_model.network import SITES, Edit, Location
from interp.any_model.self_checks import putting, require_same
from interp.any_model.task import Task
from interp.display.result import Axes, Result
from interp.model.heads import MLP, HeadSet, Scores, parse_heads, show
from interp.patching.effects import effect_of
from interp.patching.runner import Direction, check_direction
from interp.statistics.effects import rank_by_evidence, widen_interval
from training.common.bootstrap import bootstrap_weights, percentile_interval
from training.common.digits import whole
from training.common.errors import CheckError, UserError, one_of
from training.common.output import records
from training.common.progress import progress_bar
from training.common.table_rows import where as rows_where
from training.config.config import stream_seed

Losses = Float[np.ndarray, " example"]
CHECKED = 8  # examples


class Cell(NamedTuple):
    """One cell of a map.

    Attributes:
        site: a name in `interp.any_model.network.SITES`.
        layer: the first that is patched.
        heads: at z, the heads that are patched together.
        tokens: their label.
        at: which tokens.
    """

    site: str
    layer: int
    heads: HeadSet
    tokens: str
    at: Bool[Tensor, " pos"]

    @property
    def layers(self) -> list[int]:
        return sorted({head.layer for head in self.heads}) or [self.layer]


@dataclass(frozen=True, repr=False, eq=False)
class LossPatchMap(Result):
    """The effect of patching one site of any model at many locations.

    Attributes:
        checkpoint: the model's name.
        step: None.
        table: one row per condition and location: `layer`, `heads`, `tokens`; `effect` (0: nothing happened, 1: as if
            everything had been patched) and `loss`, each with its 95 % interval over examples (`ci_low`, `loss_low`,
            …); `differs`, whether what was patched in differs from what was there.
        site: what was patched.
        direction: which run was patched (`interp.patching.runner.DIRECTIONS`).
        ends: one row per condition: losses of the clean and the corrupt run.
        n_examples: clean ones.
        seed: of the bootstrap.
    """

    checkpoint: str
    step: int | None
    table: pd.DataFrame
    site: str
    direction: Direction
    ends: pd.DataFrame
    n_examples: int
    seed: int

    @property
    def base(self) -> str:
        """The run that is patched."""
        return "corrupt" if self.direction == "denoise" else "clean"

    def plot(self) -> list[Axes]:
        """Heat maps of effects, a panel per condition."""
        return self.view("plot")

    @property
    def files(self) -> Mapping[str, pd.DataFrame]:
        return {"patching": self.table, "patching_ends": self.ends}


def patch(
    task: Task,
    *,
    site: str = "z",
    direction: str = "denoise",
    heads: str | Sequence[HeadSet] = "each",
    tokens: str | None = None,
    seed: int = 0,
    scores: Scores | None = None,
) -> LossPatchMap:
    """Patch one site of one run with its activations in the other, location by location.

    Args:
        task: the model, its examples and the corrupt ones.
        site: a name in `interp.any_model.network.SITES`.
        direction: `denoise` patches the clean run's activations into the corrupt run, `noise` the other way.
        heads: at z, which of them together; `each` alone.
        tokens: `all` together, `each` alone, or positions such as `3,5-7` together; None is `all` at z and `each`
            elsewhere.
        seed: of the bootstrap.
        scores: `[layer][head]`, for `top:K` and `above:SCORE`.

    Raises:
        CheckError: patching a run with itself changes it, or clean and corrupt runs are the same at every location.
        UserError: there are no corrupt examples, no such site, direction, heads or tokens, or the model has no such
            site.
    """
    if task.corrupt is None:
        raise UserError("no corrupt examples are known: attach(…, corrupt=EXAMPLES)")
    cells = cells_of(task, site, heads, tokens, scores)
    chosen = check_direction(direction)
    check_itself(task, cells)
    patched, clean, corrupt, differs = patch_cells(task, cells, chosen)
    if not differs.any():
        raise CheckError(f"clean and corrupt runs hold the same {site} at all {len(cells)} locations: no patch can act")
    base, source = (corrupt, clean) if chosen == "denoise" else (clean, corrupt)
    rows, ends = [], []
    for condition, of_condition in rows_by_condition(task.conditions, task.n_examples).items():
        weights = bootstrap_weights(len(of_condition), np.random.default_rng(stream_seed("bootstrap", seed, condition)))
        own = patched[:, of_condition]
        effects = effect_of(own, base[of_condition], source[of_condition], weights)
        low, high = percentile_interval(weights @ own.T)
        ends.append(
            {
                "condition": condition,
                "loss_clean": clean[of_condition].mean(),
                "loss_corrupt": corrupt[of_condition].mean(),
            }
        )
        rows += [
            {"condition": condition, "direction": chosen, "site": site, "layer": cell.layer}
            | {"heads": show(cell.heads), "tokens": cell.tokens}
            | {"effect": effect.value, "ci_low": effect.ci_low, "ci_high": effect.ci_high}
            | {"loss": own[i].mean(), "loss_low": low[i], "loss_high": high[i], "differs": bool(differs[i])}
            for i, (cell, effect) in enumerate(zip(cells, effects, strict=True))
        ]
    return LossPatchMap(task.name, None, pd.DataFrame(rows), site, chosen, pd.DataFrame(ends), task.n_examples, seed)


def cells_of(
    task: Task, site: str, heads: str | Sequence[HeadSet], tokens: str | None, scores: Scores | None
) -> list[Cell]:
    """Every cell of the map.

    Raises:
        UserError: the model has no such site, heads or tokens.
    """
    network = task.network
    if site not in SITES:
        raise one_of("--site", site, SITES)
    if Location(site, 0) not in network.axes:
        raise UserError(f"--site {site}: this model's layers are no list of modules or give no such site: use z")
    spans = token_sets(tokens or ("all" if site == "z" else "each"), network.n_pos)
    if site != "z":
        if heads != "each":
            raise UserError(f"--heads {heads}: the site {site} has no heads (z has)")
        return [Cell(site, layer, (), *span) for layer in range(network.n_layers) for span in spans]
    known = None if scores is None else lambda: scores
    sets = parse_heads(heads, network.n_layers, network.n_heads, known) if isinstance(heads, str) else heads
    if any(head.number == MLP for heads in sets for head in heads):
        raise UserError(f"--heads {heads}: z is a site of attention heads")
    return [Cell(site, head_set[0].layer, head_set, *span) for head_set in sets for span in spans]


def token_sets(text: str, n_pos: int) -> list[tuple[str, Bool[Tensor, " pos"]]]:
    """The sets of tokens that a text names.

    Raises:
        UserError: malformed, or no such position.

    >>> [(label, mask.tolist()) for label, mask in token_sets("0,2-3", 4)]
    [('0,2-3', [True, False, True, True])]
    """
    position = torch.arange(n_pos)
    if text == "all":
        return [("all", position >= 0)]
    if text == "each":
        return [(str(i), position == i) for i in range(n_pos)]
    mask = position < 0
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        ends = whole(first), whole(last if dash else first)
        if ends[0] is None or ends[1] is None or not ends[0] <= ends[1] < n_pos:
            raise UserError(f"--tokens {text}: all, each, or positions 0-{n_pos - 1} such as 3,5-7 are needed")
        mask |= (position >= ends[0]) & (position <= ends[1])
    return [(text, mask)]


def check_itself(task: Task, cells: Sequence[Cell]) -> None:
    """Refuse patches that change a run which they come from.

    Raises:
        CheckError: they do.
    """
    examples = task.rows(task.examples, range(CHECKED))
    locations = locations_in(cells)
    output, seen = task.network.read(examples, locations)
    intact = task.losses(output, examples, "of the intact model")
    again = task.run(examples, {location: putting(seen[location]) for location in locations})
    require_same(again, intact, "patching a run with itself changes its losses")


def locations_in(cells: Sequence[Cell]) -> list[Location]:
    return list(dict.fromkeys(Location(cell.site, layer) for cell in cells for layer in cell.layers))


def patch_cells(
    task: Task, cells: Sequence[Cell], direction: Direction
) -> tuple[Float[np.ndarray, "cell example"], Losses, Losses, Bool[np.ndarray, " cell"]]:
    """(losses under every patch, of the clean run, of the corrupt run, whether anything differs at a location)."""
    network, locations = task.network, locations_in(cells)
    patched, clean, corrupt = [], [], []
    differs = np.zeros(len(cells), dtype=bool)
    with progress_bar(total=len(cells), desc="patch", unit="patch") as bar:
        for rows in task.chunks(task.n_examples):
            ours, theirs = task.rows(task.examples, rows), task.rows(task.corrupt, rows)  # type: ignore[arg-type]
            clean.append(task.losses(network.run(ours), ours, "of the clean run"))
            corrupt.append(task.losses(network.run(theirs), ours, "of the corrupt run"))
            base, source = (theirs, ours) if direction == "denoise" else (ours, theirs)
            _, given = network.read(source, locations)
            _, there = network.read(base, locations)
            differs |= [differ(cell, given, there) for cell in cells]
            _, recorded = network.record(base)
            losses = np.empty((len(cells), len(rows)))
            for group in stackable(cells, task.sizes.copies):
                output = network.run(
                    repeated(base, len(group), network.example_axis),
                    patch_edits([cells[i] for i in group], given, network.n_heads),
                    recorded=recorded if recorded.outputs else None,
                    first=cells[group[0]].layer,
                    times=len(group),
                )
                several = repeated(ours, len(group), network.example_axis)
                losses[group] = task.losses(output, several, "of patched runs").reshape(len(group), -1)
                bar.update(len(group) * len(rows) / task.n_examples)
            patched.append(losses)
    return np.concatenate(patched, axis=1), np.concatenate(clean), np.concatenate(corrupt), differs


def stackable(cells: Sequence[Cell], most: int) -> list[list[int]]:
    """Cells that share their first layer, so that they can be run in one pass."""
    groups: dict[int, list[int]] = {}
    for i, cell in enumerate(cells):
        groups.setdefault(cell.layer, []).append(i)
    return [group[start : start + most] for group in groups.values() for start in range(0, len(group), most)]


def differ(cell: Cell, given: Mapping[Location, Tensor], there: Mapping[Location, Tensor]) -> bool:
    """Whether anything that a cell patches in differs from what was there."""
    for layer in cell.layers:
        in_source, in_base = (values[Location(cell.site, layer)][:, cell.at] for values in (given, there))
        numbers = [head.number for head in cell.heads if head.layer == layer]
        if numbers:
            in_source, in_base = in_source[:, :, numbers], in_base[:, :, numbers]
        if not torch.equal(in_source, in_base):
            return True
    return False


def patch_edits(group: Sequence[Cell], given: Mapping[Location, Tensor], n_heads: int) -> dict[Location, Edit]:
    """The edits that patch one cell in each copy of the examples."""
    masks: dict[Location, Tensor] = {}
    for i, cell in enumerate(group):
        for layer in cell.layers:
            location, n_kinds = Location(cell.site, layer), n_heads if cell.heads else 1
            mask = masks.setdefault(location, torch.zeros(len(group), len(cell.at), n_kinds, dtype=torch.bool))
            for number in [head.number for head in cell.heads if head.layer == layer] or [0]:
                mask[i, :, number] |= cell.at
    return {location: patching(mask, given[location], bool(group[0].heads)) for location, mask in masks.items()}


def patching(mask: Tensor, source: Tensor, by_head: bool) -> Edit:
    """An edit that puts the source where the mask of each copy says so."""
    where = mask[:, None, ..., None] if by_head else mask[:, None]

    def edit(activation: Any) -> Any:
        several = activation.unflatten(0, (len(mask), -1))
        return torch.where(where.to(activation.device), source[None], several).flatten(0, 1)

    return edit


def strongest(result: LossPatchMap, condition: str, most: int) -> list[dict[str, Any]]:
    """The locations of one condition with the best evidence that they matter, by intervals that hold for the map."""
    n_patches = len(result.table)

    def rank(row: Mapping[str, Any]) -> tuple[bool, float]:
        return rank_by_evidence(row["effect"], *widen_interval(row["effect"], row["ci_low"], row["ci_high"], n_patches))

    return sorted(records(rows_where(result.table, condition=condition)), key=rank)[:most]


def name_cell(site: str, row: Mapping[str, Any]) -> str:
    """A location of a map in words.

    >>> name_cell("z", {"layer": 0, "heads": "0.1", "tokens": "all"})
    'z of 0.1'
    """
    where = "" if row["tokens"] == "all" else f" at {row['tokens']}"
    return f"{site} of {row['heads'] or 'layer ' + str(row['layer'])}{where}"

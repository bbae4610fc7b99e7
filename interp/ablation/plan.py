"""The plan of an ablation, checked against the model: the value that the `run` of every design takes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from interp.ablation.modes import DEFAULT_MODES, UNIFORM, Mode, find_mode
from interp.ablation.runner import AblationProtocol
from interp.ablation.store import Store
from interp.model.engine import check_site
from interp.model.heads import MLP, HeadSet, head_set
from interp.model.positions import check_points, parse_points, parse_tokens
from interp.scores.head_choice import HeadChoice, choose_sets
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import UserError
from training.options import DEFAULT_MEMORY, as_list
from training.tasks.function_classes import choose_classes
from training.tasks.prompts import last_quarter


@dataclass(frozen=True)
class Plan:
    """An ablation that can be run.

    Attributes:
        checkpoint: the model.
        sets: the head sets under test.
        classes: the function classes of the prompts.
        modes: of the ablations.
        protocol: prompts, site, tokens, ranges of pairs, memory.
        scores: retrospective scores on selection prompts, by which heads attend; None where they are not needed.
    """

    checkpoint: Checkpoint
    sets: tuple[HeadSet, ...]
    classes: tuple[str, ...]
    modes: tuple[Mode, ...]
    protocol: AblationProtocol
    scores: Float[np.ndarray, "layer head"] | None = None

    @property
    def heads(self) -> HeadSet:
        """The components of all sets."""
        return head_set(component for heads in self.sets for component in heads)


def plan(
    checkpoint: Checkpoint,
    heads: HeadChoice,
    classes: str | Sequence[str] | None,
    *,
    modes: str | Mode | Sequence[str | Mode] | None,
    site: str,
    tokens: str,
    points: str | None,
    n_prompts: int,
    seed: int,
    memory: int = DEFAULT_MEMORY,
    store: Store | None = None,
    n_null_prompts: int | None = None,
    scores: Float[np.ndarray, "layer head"] | None = None,
    total_only: bool = False,
) -> Plan:
    """Check the arguments of `interp.ablate` before anything is computed.

    Raises:
        UserError: unknown heads, class, mode, site, tokens or range, or a mode or class that is named twice.
    """
    config = checkpoint.config
    n_points = config.data.n_points
    removed_at = parse_tokens(tokens, config.layout, n_points)
    requested = [last_quarter(n_points)] if points is None else parse_points(points)
    ranges = tuple(check_points(span, n_points) for span in requested)
    protocol = AblationProtocol(
        n_prompts, seed, ranges, check_site(site), removed_at, memory, store, n_null_prompts, total_only
    )
    chosen_modes = check_modes(modes, site)
    chosen_classes = choose_classes(classes, config.evaluated_classes)
    sets = choose_sets(checkpoint, heads, n_prompts=n_prompts, seed=seed, scores=scores)
    if site == "pattern" and (mlps := [head for heads_of_set in sets for head in heads_of_set if head.number == MLP]):
        raise UserError(f"--site pattern: {mlps[0]} has no attention pattern (valid: heads)")
    return Plan(checkpoint, tuple(sets), tuple(chosen_classes), chosen_modes, protocol, scores)


def check_modes(modes: str | Mode | Sequence[str | Mode] | None, site: str) -> tuple[Mode, ...]:
    """The modes of these names, or those by default; the site `pattern` has only one.

    Raises:
        UserError: there is none, or one is unknown, named twice or does not apply to the site.
    """
    by_default: Sequence[str | Mode] = [UNIFORM] if site == "pattern" else DEFAULT_MODES
    given: list[str | Mode] = as_list(by_default if modes is None else modes)
    if not given:
        raise UserError("--mode is empty: name one or more, or leave it out")
    chosen = [UNIFORM if site == "pattern" and mode == UNIFORM.name else find_mode(mode) for mode in given]
    names = [mode.name for mode in chosen]
    if site == "pattern" and {*names} != {UNIFORM.name}:
        raise UserError(
            f"--mode {','.join(names)} does not apply to --site pattern, which is replaced by uniform attention: "
            "leave --mode out"
        )
    if len(set(names)) < len(names):
        raise UserError(f"--mode {','.join(names)}: {max(names, key=names.count)} is named twice")
    return tuple(chosen)

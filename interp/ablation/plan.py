"""What an ablation is to do, checked against the model: the one value that every design takes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from interp.ablation.modes import UNIFORM, Mode, mode
from interp.ablation.runner import MEMORY, Protocol
from interp.ablation.store import Store
from interp.model.engine import check_site
from interp.model.heads import HeadSet, head_set
from interp.model.positions import check_points, parse_points, parse_tokens
from interp.scores.head_choice import HeadChoice, choose_sets
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import UserError
from training.tasks.function_classes import choose_classes
from training.tasks.prompts import last_quarter


@dataclass(frozen=True)
class Plan:
    """An ablation that can be run.

    Attributes:
        checkpoint: the model.
        sets: the head sets under test.
        classes: the function classes of the prompts.
        modes: what a removed component gives.
        protocol: prompts, site, tokens, ranges of pairs, memory.
        scores: retrospective scores on selection prompts, by which heads attend; None where nothing asks for them.
    """

    checkpoint: Checkpoint
    sets: tuple[HeadSet, ...]
    classes: tuple[str, ...]
    modes: tuple[Mode, ...]
    protocol: Protocol
    scores: Float[np.ndarray, "layer head"] | None = None

    @property
    def heads(self) -> HeadSet:
        """The components of all sets."""
        return head_set(component for heads_together in self.sets for component in heads_together)


def plan(
    checkpoint: Checkpoint,
    heads: HeadChoice,
    classes: str | Sequence[str] | None,
    *,
    modes: str | Sequence[str | Mode],
    site: str,
    at: str,
    points: str | None,
    n_prompts: int,
    seed: int,
    memory: int = MEMORY,
    store: Store | None = None,
    n_null_prompts: int | None = None,
    scores: Float[np.ndarray, "layer head"] | None = None,
) -> Plan:
    """Check what a user wrote, before anything is computed; the arguments are those of `interp.ablate`.

    Raises:
        UserError: unknown heads, class, mode, site, tokens or range, or a mode or class that is named twice.
    """
    config = checkpoint.config
    n_points = config.data.n_points
    tokens = parse_tokens(at, config.layout, n_points)
    named = [last_quarter(n_points)] if points is None else parse_points(points)
    ranges = tuple(check_points(span, n_points) for span in named)
    protocol = Protocol(n_prompts, seed, ranges, check_site(site), tokens, memory, store, n_null_prompts)
    chosen_modes = check_modes(modes, site)
    names = choose_classes(classes, config.evaluated_classes)
    sets = choose_sets(checkpoint, heads, n_prompts=n_prompts, seed=seed, scores=scores)
    return Plan(checkpoint, tuple(sets), tuple(names), chosen_modes, protocol, scores)


def check_modes(modes: str | Sequence[str | Mode], site: str) -> tuple[Mode, ...]:
    """The modes behind their names; at the site `pattern` there is only one.

    Raises:
        UserError: unknown, or named twice.
    """
    if isinstance(modes, str):
        modes = [modes]
    chosen = [UNIFORM] if site == "pattern" else [mode(named) for named in modes]
    names = [resolved.name for resolved in chosen]
    if len(set(names)) < len(names):
        raise UserError(f"--mode {','.join(names)}: {max(names, key=names.count)} is named twice")
    return tuple(chosen)

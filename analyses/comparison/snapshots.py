"""The snapshots of a run, and the first one from which on a condition holds."""

from collections.abc import Sequence

import numpy as np

from training.checkpoints.checkpoint import Checkpoint, snapshot_steps


def earlier_steps(checkpoint: Checkpoint) -> list[int]:
    """The steps of the run's snapshots before this checkpoint, ascending."""
    return [step for step in snapshot_steps(checkpoint.directory) if step < checkpoint.step]


def spread(steps: Sequence[int], most: int) -> list[int]:
    """At most so many of these steps, evenly by index (they are log-spaced), including the first and the last.

    >>> spread([1, 2, 4], 24), spread(range(31), 16)[:4], spread(range(100), 24)[-1]
    ([1, 2, 4], [0, 2, 4, 6], 99)
    """
    indices = np.linspace(0, len(steps) - 1, min(len(steps), most)).round().astype(int)
    return [steps[index] for index in indices]


def from_then_on(holds: Sequence[bool]) -> int | None:
    """The first index from which on it holds to the end; None if it does not hold at the end.

    >>> from_then_on([True, False, True, True]), from_then_on([True, False]), from_then_on([True])
    (2, None, 0)
    """
    start = len(holds)
    while start and holds[start - 1]:
        start -= 1
    return start if start < len(holds) else None

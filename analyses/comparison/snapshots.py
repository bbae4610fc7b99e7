"""The snapshots of a run: which there are, and from which one on something holds."""

from collections.abc import Sequence

import numpy as np

from training.checkpoints.checkpoint import Checkpoint, snapshot_steps


def earlier_steps(checkpoint: Checkpoint) -> list[int]:
    """The steps that its run kept before it, ascending."""
    return [step for step in snapshot_steps(checkpoint.directory) if step < checkpoint.step]


def spread(steps: Sequence[int], most: int) -> list[int]:
    """At most so many of these, evenly by place (they are log-spaced), the first and the last among them.

    >>> spread([1, 2, 4], 24), spread(range(31), 16)[:4], spread(range(100), 24)[-1]
    ([1, 2, 4], [0, 2, 4, 6], 99)
    """
    places = np.linspace(0, len(steps) - 1, min(len(steps), most)).round().astype(int)
    return [steps[place] for place in places]


def from_then_on(holds: Sequence[bool]) -> int | None:
    """The first place from which it holds to the end; None if it does not hold at the end.

    >>> from_then_on([True, False, True, True]), from_then_on([True, False]), from_then_on([True])
    (2, None, 0)
    """
    start = len(holds)
    while start and holds[start - 1]:
        start -= 1
    return start if start < len(holds) else None

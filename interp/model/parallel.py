"""Runs parts of the prompts side by side, one a core, rather than every operation on all cores.

Operations this small wait for one another longer than they gain, above all where other processes run.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")


def side_by_side(function: Callable[[Part], Result], parts: Iterable[Part]) -> list[Result]:
    """What the function makes of every part, in their order.

    Every thread has its own `torch.no_grad`: the function has to switch gradients off itself.

    >>> side_by_side(len, ["a", "bc"])
    [1, 2]
    """
    with one_thread_each() as n_workers, ThreadPoolExecutor(n_workers) as pool:
        return list(pool.map(function, parts))


@contextmanager
def one_thread_each() -> Iterator[int]:
    """How many parts to run at a time: as many as an operation would have used threads."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    keep_freed_memory()
    try:
        yield n_threads
    finally:
        torch.set_num_threads(n_threads)


def keep_freed_memory() -> None:
    """Let glibc reuse blocks of up to 31 MiB instead of asking the system for each: a tenth of a sweep's time.

    Its threshold for that rises to the largest block ever freed, up to 32 MiB (mallopt(3), M_MMAP_THRESHOLD).
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)

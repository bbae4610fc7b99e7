"""Computes with the libraries' own defaults, whatever the process has set for itself before."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock

import numpy as np
import torch


class ProcessSettings:
    """The settings that all threads share, dtype and precision: the first block to begin sets them, the last to end
    gives the caller's back."""

    def __init__(self) -> None:
        self.lock, self.n_blocks = Lock(), 0
        self.dtype, self.precision = torch.float32, "highest"

    def set_defaults(self) -> None:
        with self.lock:
            if not self.n_blocks:
                self.dtype, self.precision = torch.get_default_dtype(), torch.get_float32_matmul_precision()
            self.n_blocks += 1
            torch.set_default_dtype(torch.float32)
            torch.set_float32_matmul_precision("highest")

    def restore(self) -> None:
        with self.lock:
            self.n_blocks -= 1
            if not self.n_blocks:
                torch.set_default_dtype(self.dtype)
                torch.set_float32_matmul_precision(self.precision)


PROCESS = ProcessSettings()


@contextmanager
def library_defaults() -> Iterator[None]:
    """Torch's and NumPy's defaults for a block, or as a decorator for a function; the caller's settings come back.

    The default dtype is float32, the default device the CPU, matrix products are computed in float32, gradients are
    recorded, inference mode and autocast are off, and NumPy's floating-point errors raise nothing. All of these but
    the dtype and the precision belong to a thread: a thread that starts in the block has the defaults anyway.

    >>> torch.set_default_dtype(torch.float64)
    >>> with library_defaults():
    ...     torch.zeros(1).dtype
    torch.float32
    >>> torch.get_default_dtype(), torch.set_default_dtype(torch.float32)
    (torch.float64, None)
    """
    with ExitStack() as settings:
        settings.enter_context(torch.inference_mode(False))
        settings.enter_context(torch.enable_grad())
        settings.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        if torch.get_default_device().type != "cpu":  # a device context slows every operation down
            settings.enter_context(torch.device("cpu"))
        for device in filter(torch.is_autocast_enabled, ("cpu", "cuda")):
            settings.enter_context(torch.autocast(device, enabled=False))
        PROCESS.set_defaults()
        settings.callback(PROCESS.restore)
        yield

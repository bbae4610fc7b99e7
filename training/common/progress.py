"""Progress bars: on a terminal and in a notebook, nowhere else."""

import os
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

from tqdm import tqdm

from training.common.terminal import printable_line


def progress_bar(iterable: Iterable[Any] | None = None, **options: Any) -> "tqdm[Any]":
    """tqdm with the bar that fits: text on a terminal, a widget in a notebook (text without ipywidgets), or none.

    A notebook's bar goes when it is done; the environment variable TQDM_DISABLE=1 keeps it away altogether.

    Args:
        iterable: what to go through; None for a bar that is advanced by hand.
        options: of `tqdm.tqdm`; texts without control characters.

    >>> list(progress_bar(range(2), desc="quiet where nobody watches"))
    [0, 1]
    """
    options = {key: printable_line(value) if isinstance(value, str) else value for key, value in options.items()}
    if not in_notebook():
        nobody_reads = True if sys.stderr is None else None  # None: where stderr is no terminal
        return tqdm(iterable, **{"disable": nobody_reads, **options})
    silenced = bool(options.pop("disable", None) or os.environ.get("TQDM_DISABLE"))  # widgets do not ask the variable
    options = {"leave": False, **options, "disable": silenced}
    if find_spec("ipywidgets") is None:
        return tqdm(iterable, **options)
    from tqdm.notebook import tqdm as notebook_tqdm

    return notebook_tqdm(iterable, **options)


def in_notebook() -> bool:
    """Whether this process is a Jupyter kernel, whose stderr is no terminal and yet has a reader."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and shell.has_trait("kernel")

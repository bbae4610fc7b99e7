"""Progress bars: on a terminal and in a notebook; elsewhere one line, if the work takes more than a minute."""

import io
import os
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

from tqdm import tqdm

from training.common.terminal import echo, printable_line

FIRST_ESTIMATE = 5.0  # seconds of work, from which the whole is estimated
LONG = 60.0  # seconds
GOOD_PART = 0.05  # of the work: a first update this large is an estimate by itself


class OneLine(tqdm):  # type: ignore[type-arg]
    """In the place of a bar one line on stderr: what is done, how much of it, and how long it will take.

    Its rate is that after the first update, since preparation comes before; where the first update is `GOOD_PART` of
    the whole, it is that from the beginning.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self.is_printed = False
        self.counted_from: tuple[float, float] | None = None  # seconds, units done
        super().__init__(*args, **options)

    def display(self, *_: Any, **__: Any) -> None:
        now = self.format_dict
        n, seconds, total = now["n"], now["elapsed"], now["total"]
        if self.is_printed or not total or not n > now["initial"]:
            return
        if self.counted_from is None:
            is_large = n - now["initial"] >= GOOD_PART * (total - now["initial"])
            self.counted_from = (0.0, now["initial"]) if is_large else (seconds, n)
        seconds_before, n_before = self.counted_from
        if seconds - seconds_before < FIRST_ESTIMATE or n == n_before:
            return
        self.is_printed = True
        whole = seconds + (total - n) * (seconds - seconds_before) / (n - n_before)
        if whole > LONG:
            ending = "es" if now["unit"].endswith(("s", "ch")) else "s"
            echo(f"{self.desc}: {total} {now['unit']}{ending}, about {whole / 60:.0f} min", err=True)


def progress_bar(iterable: Iterable[Any] | None = None, **options: Any) -> "tqdm[Any]":
    """tqdm with the bar that fits: text on a terminal, a widget in a notebook (text without ipywidgets), or one line.

    A notebook's bar goes when it is done; the environment variable TQDM_DISABLE=1 keeps it away altogether.

    Args:
        iterable: what to go through; None for a bar that is advanced by hand.
        options: of `tqdm.tqdm`; texts without control characters.

    >>> list(progress_bar(range(2), desc="quiet where nobody watches"))
    [0, 1]
    """
    options = {key: printable_line(value) if isinstance(value, str) else value for key, value in options.items()}
    options["disable"] = bool(
        options.get("disable") or os.environ.get("TQDM_DISABLE", "0") not in ("", "0") or not sys.stderr
    )
    if in_notebook():
        options = {"leave": False, **options}
        if find_spec("ipywidgets") is None:
            return tqdm(iterable, **options)
        from tqdm.notebook import tqdm as notebook_tqdm

        return notebook_tqdm(iterable, **options)
    if sys.stderr and sys.stderr.isatty():
        return tqdm(iterable, **options)
    return OneLine(iterable, **{"file": io.StringIO(), **options})


def in_notebook() -> bool:
    """Whether this process is a Jupyter kernel, whose stderr is no terminal and yet has a reader."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and shell.has_trait("kernel")

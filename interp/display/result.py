"""What every result does for people: it lays itself out as tables and sentences, shows itself in Jupyter, and draws.

How a result is laid out and drawn is written beside it, in modules that import the result; so it imports them only when
it is asked, and computing waits for no plotting library.
"""

from abc import ABC, abstractmethod
from typing import Any

from training.common.output import Table, print_table
from training.common.terminal import echo

Drawn = list[Any]
"""Matplotlib axes, which are not imported until something is drawn."""


class Shown(ABC):
    """A result for people, from one checkpoint.

    Attributes:
        checkpoint: the model's name.
        step: of its training.
    """

    checkpoint: str
    step: int

    @property
    def title(self) -> str:
        return f"{self.checkpoint}, step {self.step}"

    @abstractmethod
    def tables(self) -> list[Table]:
        """The numbers that matter most, with their intervals, as commands print them."""

    def sentences(self) -> list[str]:
        """What follows from the numbers, by rule."""
        return []

    def maps(self) -> list[str]:
        """Small heat maps, as SVG."""
        return []

    def show(self) -> None:
        """Print the tables and the sentences."""
        for table in self.tables():
            print_table(*table)
        for sentence in self.sentences():
            echo(sentence)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.title}: show() prints it, plot() draws it>"

    def _repr_html_(self) -> str:
        from interp.display.html import result_html

        return result_html(self.maps(), self.tables(), self.sentences())

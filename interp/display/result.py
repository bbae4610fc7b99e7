"""The base class of results. Functions that display a type of result are registered by modules of the same package.

For example, results of `interp.ablation.ablate` get their tables from `interp.ablation.tables`, their sentences from
`interp.ablation.verdict` and their figures from `interp.ablation.figures`. These modules register functions for the
type with `displays`. They are imported when a result is first displayed, so that computing imports no plotting library.
"""

from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from training.common.output import Table, print_table, write_table
from training.common.screen import print_text

Axes = Any
"""Stands for matplotlib's axes, which are imported only when a figure is drawn."""
View = Callable[..., Any]
ViewT = TypeVar("ViewT", bound=View)

MODULES: Mapping[str, str] = {"tables": "tables", "maps": "tables", "sentences": "verdict", "ranking": "ranking"}
"""The module that registers a view; all other views are figures, in `figures`."""
VIEWS: dict[tuple[type["Result"], str], View] = {}


def displays(kind: type["Result"], view: str) -> Callable[[ViewT], ViewT]:
    """Register a function of a result of this type as one of its views: `tables`, `maps`, `sentences`, `plot`, …"""

    def register(function: ViewT) -> ViewT:
        VIEWS[kind, view] = function
        return function

    return register


class Result(ABC):
    """A result from one checkpoint: tables, sentences and figures for people, files for programs.

    Attributes:
        checkpoint: the model's name.
        step: of its training; None where it is not known.
    """

    checkpoint: str
    step: Any  # an int, or None

    @property
    def title(self) -> str:
        return self.checkpoint if self.step is None else f"{self.checkpoint}, step {self.step}"

    @property
    def files(self) -> Mapping[str, pd.DataFrame]:
        """Tidy tables by the name of the CSV file that holds each."""
        return {}

    def view(self, name: str, *arguments: Any) -> Any:
        """The view of this result by the function registered for its type; a figure is titled with the model.

        Raises:
            LookupError: no function is registered.
        """
        function = self.find_view(name)
        if function is None:
            raise LookupError(f"a {type(self).__name__} has no view '{name}'")
        view = function(self, *arguments)
        if name.startswith("plot") and not any(isinstance(other, Result) for other in arguments):
            from interp.display.axes import name_model

            name_model(view, self.checkpoint, self.title.removeprefix(self.checkpoint))
        return view

    def find_view(self, name: str) -> View | None:
        package = type(self).__module__.rpartition(".")[0]
        module = f"{package}.{MODULES.get(name, 'figures')}"
        if find_spec(module):
            import_module(module)
        return VIEWS.get((type(self), name))

    def tables(self) -> list[Table]:
        """The main numbers with their intervals, as commands print them."""
        return self.view("tables")

    def sentences(self) -> list[str]:
        """The verdict, which follows from the numbers by rule; empty if no rule is registered."""
        return self.view("sentences") if self.find_view("sentences") else []

    def maps(self) -> list[str]:
        """Small heat maps as SVG; empty if none are registered."""
        return self.view("maps") if self.find_view("maps") else []

    def plot(self) -> list[Axes]:
        """Draw the result; returns matplotlib axes."""
        return self.view("plot")

    def write(self, directory: Path) -> None:
        """Write `files` into a directory as CSV."""
        for name, table in self.files.items():
            write_table(table, directory / f"{name}.csv")

    def show(self, tables: Sequence[Table] | None = None) -> None:
        """Print the tables (those of `tables()` unless others are given) and the sentences."""
        for table in self.tables() if tables is None else tables:
            print_table(*table)
        for sentence in self.sentences():
            print_text(sentence)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.title}: show() prints it, plot() draws it>"

    def _repr_html_(self) -> str:
        from interp.display.html import result_html

        return result_html(self.maps(), self.tables(), self.sentences())

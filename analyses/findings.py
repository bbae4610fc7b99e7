"""What a study gives, whatever its question: tables, figures and sentences, written, printed and reported one way."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from interp.display.axes import save_figure
from interp.display.html import result_html
from training.common.errors import UserError, one_of
from training.common.output import Table, print_table, records, write_table, write_text
from training.common.terminal import echo, printable_line

Figure = Callable[[], list[Axes]]


@dataclass(frozen=True, repr=False, eq=False)
class Findings:
    """The answer to one question.

    Attributes:
        question: in one line.
        sentences: the verdict, which follows from the tables by rule: what was found with its interval, where it agrees
            with the paper and where it does not, and what it cannot show.
        protocol: checkpoints, prompts, seeds and thresholds behind it, as JSON values.
        tables: tidy, by the name of their file.
        shown: small tables for people, cells as text, by title; the first column names the row.
        figures: by the name of their file; drawn when they are asked for.
        failures: what was left out because a self-check failed; the command ends with exit code 1.
    """

    question: str
    sentences: Sequence[str]
    protocol: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame]
    shown: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)
    failures: Sequence[str] = ()

    def plot(self, name: str | None = None) -> list[Axes]:
        """Draw one of the figures.

        Args:
            name: which; None takes the first.

        Raises:
            UserError: there is no such figure.
        """
        if name is not None and name not in self.figures:
            raise one_of("figure", name, self.figures)
        if not self.figures:
            raise UserError("this study drew no figure: its tables hold everything")
        return self.figures[next(iter(self.figures)) if name is None else name]()

    def __repr__(self) -> str:
        return f"<Findings: {self.question}>"

    def _repr_html_(self) -> str:
        return result_html([], [Table(self.question, [], []), *laid_out(self)], self.sentences)


def write(found: Findings, directory: Path) -> None:
    """Tables (CSV), figures (PNG) and `summary.md`."""
    for name, table in found.tables.items():
        write_table(table, directory / f"{name}.csv")
    for name, draw in found.figures.items():
        save_figure(draw(), directory / f"{name}.png")
    write_text(summary(found), directory / "summary.md")


def summary(found: Findings) -> str:
    """The study on one page of Markdown, figures beside it."""
    lines = [f"# {found.question}", "", *(f"- {sentence}" for sentence in found.sentences), ""]
    for title, table in found.shown.items():
        lines += [f"**{title}**", "", *markdown_table(table), ""]
    for name in found.figures:
        lines += [f"![{name}]({name}.png)", ""]
    lines += ["; ".join(f"{key}: {said(value)}" for key, value in found.protocol.items()) + "."]
    lines += [f"Tables: {', '.join(f'`{name}.csv`' for name in found.tables)}."]
    return "\n".join(map(printable_line, lines)) + "\n"


def markdown_table(table: pd.DataFrame) -> list[str]:
    """
    >>> markdown_table(pd.DataFrame({"model": ["a"], "error": ["0.1"]}))
    ['| model | error |', '|---|---|', '| a | 0.1 |']
    """
    rows = [list(table.columns), *table.to_numpy().tolist()]
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return [lines[0], "|" + "---|" * len(table.columns), *lines[1:]]


def said(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def laid_out(found: Findings) -> list[Table]:
    """The small tables."""
    return [Table(title, list(one.columns), one.to_numpy().tolist()) for title, one in found.shown.items()]


def show(found: Findings) -> None:
    """The small tables and the verdict on stdout."""
    for table in laid_out(found):
        print_table(*table)
    echo(f"\n{found.question}\n")
    for sentence in found.sentences:
        echo(f"- {sentence}")


def document(found: Findings) -> dict[str, Any]:
    """What `--json` prints."""
    tables = {name: records(table) for name, table in found.tables.items()}
    return {"question": found.question, "verdict": list(found.sentences), **found.protocol, **tables}

"""What a study gives, whatever its question: tables, figures and sentences, written, printed and reported one way."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import typer
from matplotlib.axes import Axes

from interp.plots import save_figure
from training.output import print_table, records, write_table

Figure = Callable[[], list[Axes]]


@dataclass(frozen=True)
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
    """

    question: str
    sentences: Sequence[str]
    protocol: Mapping[str, Any]
    tables: Mapping[str, pd.DataFrame]
    shown: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)


def write(found: Findings, directory: Path) -> None:
    """Tables (CSV), figures (PNG) and `summary.md`."""
    for name, table in found.tables.items():
        write_table(table, directory / f"{name}.csv")
    for name, draw in found.figures.items():
        save_figure(draw(), directory / f"{name}.png")
    (directory / "summary.md").write_text(summary(found))


def summary(found: Findings) -> str:
    """The study on one page of Markdown, figures beside it."""
    lines = [f"# {found.question}", "", *(f"- {sentence}" for sentence in found.sentences), ""]
    for title, table in found.shown.items():
        lines += [f"**{title}**", "", *markdown_table(table), ""]
    for name in found.figures:
        lines += [f"![{name}]({name}.png)", ""]
    lines += ["; ".join(f"{key}: {said(value)}" for key, value in found.protocol.items()) + "."]
    lines += [f"Tables: {', '.join(f'`{name}.csv`' for name in found.tables)}."]
    return "\n".join(lines) + "\n"


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


def show(found: Findings) -> None:
    """The small tables and the verdict on stdout."""
    for title, table in found.shown.items():
        print_table(title, list(table.columns), table.to_numpy().tolist())
    typer.echo(f"\n{found.question}\n")
    for sentence in found.sentences:
        typer.echo(f"- {sentence}")


def document(found: Findings) -> dict[str, Any]:
    """What `--json` prints."""
    tables = {name: records(table) for name, table in found.tables.items()}
    return {"question": found.question, "verdict": list(found.sentences), **found.protocol, **tables}

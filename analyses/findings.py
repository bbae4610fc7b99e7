"""What a study returns, whatever its question: tables, figures and sentences, written, printed and reported one way."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from analyses.meanings import MEANINGS
from interp.display.axes import save_figure
from interp.display.html import result_html
from interp.display.result import Result
from interp.display.text import counted
from interp.statistics.seeds import unknown_seeds, unknown_seeds_note
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import UserError, one_of
from training.common.output import Table, print_table, records, write_text
from training.common.screen import print_text
from training.common.terminal import echo, printable_line

Figure = Callable[[], list[Axes]]
MOST_SENTENCES = 5  # on the screen, where there are details to leave out


@dataclass(frozen=True, repr=False, eq=False)
class Findings(Result):
    """The answer to one question about one or more checkpoints.

    Attributes:
        question: in one line.
        verdict: sentences that follow from the tables by rule: the results with their intervals, where they agree with
            the paper and where they do not, and what they cannot show.
        protocol: checkpoints, prompts, seeds and thresholds behind it, as JSON values.
        data: tidy tables, by the key that `--json` has for each.
        overview: small tables for people, cells as text, by title; the first column names the row.
        figures: by the name of their file; drawn when they are asked for.
        failures: what was left out because a self-check failed; the command ends with exit code 1.
        details: sentences of the verdict that say again what single rows of the tables hold; where there are more than
            `MOST_SENTENCES` they are not printed below the tables.
    """

    question: str
    verdict: Sequence[str]
    protocol: Mapping[str, Any]
    data: Mapping[str, pd.DataFrame]
    overview: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    figures: Mapping[str, Figure] = field(default_factory=dict)
    failures: Sequence[str] = ()
    details: Collection[str] = ()

    @property
    def title(self) -> str:
        return self.question

    @property
    def files(self) -> Mapping[str, pd.DataFrame]:
        return self.data

    def tables(self) -> list[Table]:
        return [
            Table(title, list(table.columns), table.to_numpy().tolist(), meanings=MEANINGS)
            for title, table in self.overview.items()
        ]

    def sentences(self) -> list[str]:
        return list(self.verdict)

    def plot(self, name: str | None = None) -> list[Axes]:
        """Draw one of the figures.

        Args:
            name: of the figure; None takes the first.

        Raises:
            UserError: there is no such figure.
        """
        if name is not None and name not in self.figures:
            raise one_of("figure", name, self.figures)
        if not self.figures:
            raise UserError("this study has no figure; its tables hold all results")
        return self.figures[next(iter(self.figures)) if name is None else name]()

    def document(self) -> dict[str, Any]:
        """The document that `--json` prints."""
        tables = {name: records(table) for name, table in self.data.items()}
        return {"question": self.question, "verdict": self.sentences(), **self.protocol, **tables}

    def write(self, directory: Path) -> None:
        """Write tables (CSV), figures (PNG) and `summary.md` into a directory."""
        super().write(directory)
        for name, draw in self.figures.items():
            save_figure(draw(), directory / f"{name}.png")
        write_text(summary(self), directory / "summary.md")

    def show(self, tables: Sequence[Table] | None = None) -> None:
        """Print the small tables (those of `tables()` unless others are given), the question and the verdict."""
        for table in self.tables() if tables is None else tables:
            print_table(*table)
        echo("")
        print_text(self.question)
        echo("")
        is_long = len(self.sentences()) > MOST_SENTENCES
        details = [sentence for sentence in self.sentences() if is_long and sentence in self.details]
        for sentence in self.sentences():
            if sentence not in details:
                print_text(sentence, bullet="- ")
        if details:
            more = counted(len(details), "more sentence")
            print_text(f"{more} on single rows of the tables above: in summary.md (--out DIR) and --json", bullet="- ")

    def with_unknown_seeds(self, checkpoints: Sequence[Checkpoint]) -> "Findings":
        """The findings, with a sentence and a count of the runs of unknown seeds if any were pooled."""
        note = unknown_seeds_note(checkpoints)
        if not note:
            return self
        protocol = {**self.protocol, "unknown seeds": len(unknown_seeds(checkpoints))}
        return replace(self, verdict=[*self.verdict, note], protocol=protocol)

    def _repr_html_(self) -> str:
        return result_html([], [Table(self.question, [], []), *self.tables()], self.sentences())


def summary(findings: Findings) -> str:
    """The study on one page of Markdown, with its figures."""
    lines = [f"# {findings.question}", "", *(f"- {sentence}" for sentence in findings.sentences()), ""]
    for table in findings.tables():
        lines += [f"**{table.title}**", "", *markdown_table(table), ""]
    for name in findings.figures:
        lines += [f"![{name}]({name}.png)", ""]
    lines += ["; ".join(f"{key}: {join_items(value)}" for key, value in findings.protocol.items()) + "."]
    lines += [f"Tables: {', '.join(f'`{name}.csv`' for name in findings.files)}."]
    return "\n".join(map(printable_line, lines)) + "\n"


def markdown_table(table: Table) -> list[str]:
    """
    >>> markdown_table(Table("errors", ["model", "error"], [["a", "0.1"]]))
    ['| model | error |', '|---|---|', '| a | 0.1 |']
    """
    header, *rows = ("| " + " | ".join(map(str, row)) + " |" for row in (table.header, *table.rows))
    return [header, "|" + "---|" * len(table.header), *rows]


def join_items(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

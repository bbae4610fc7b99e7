"""The evidence on an attached model on one page: scores, ablations of the highest heads, and patches."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from analyses.report import files
from interp.any_model.attach import Attached
from interp.any_model.command import opened, provenance
from interp.display.axes import image
from interp.display.html import result_html
from interp.display.result import Result
from interp.scores.score import HeadScores
from training.common.atomic_files import write_text
from training.common.errors import UserError
from training.common.output import prepare_directory, print_json, records, write_table
from training.common.screen import print_text
from training.options import DEFAULT_CONTROLS

HIGHEST = (1, 3)
"""How many of the highest heads are removed together."""


def report(
    ckpt: str, *, controls: int = DEFAULT_CONTROLS, seed: int = 0, json: bool = False, out: Path | None = None
) -> None:
    """What `interp report --ckpt FILE.py:NAME` does: one page, and its tables in a directory beside it."""
    if out is None and not json:
        raise UserError("--out is missing: name the page, for example --out report.html (or ask for --json)")
    target = None if out is None else files.page_path(out)
    model = opened(ckpt)
    if target:
        files.check_writable(target)
    origin = provenance(model, seed)
    parts = gather(model, n_controls=controls, seed=seed)
    run = origin.document(parts.sentences())
    if target:
        parts.write(ckpt, target)
        files.write_origin(run, target)
    if json:
        print_json({"checkpoint": ckpt, "seed": seed, "controls": controls} | parts.document() | {"run": run})
        return
    for sentence in parts.sentences():
        print_text(sentence, bullet="- ")


@dataclass(frozen=True)
class Parts:
    """What a page shows, in its order: headings and results."""

    results: Sequence[tuple[str, Result]]

    def sentences(self) -> list[str]:
        """What follows from all of them."""
        return [sentence for _, result in self.results for sentence in result.sentences()]

    def document(self) -> dict[str, Any]:
        """All numbers, for `--json`."""
        tables = {
            heading: {name: records(table) for name, table in files_of(result).items()}
            for heading, result in self.results
        }
        return {"verdict": self.sentences(), "results": tables}

    def write(self, title: str, page: Path) -> None:
        """One file that needs no network, and the tables beside it."""
        panels = "".join(panel(heading, result) for heading, result in self.results)
        verdict = "".join(f"<li>{escape(sentence)}</li>" for sentence in self.sentences())
        style = "body { font: 14px/1.5 system-ui, sans-serif; max-width: 75em; margin: 2em auto; padding: 0 1em; }"
        head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{style}</style>'
        body = f"<h1>{escape(title)}</h1><ul>{verdict}</ul>{panels}"
        directory = prepare_directory(files.data_directory(page))
        for number, (_, result) in enumerate(self.results):
            for name, table in files_of(result).items():
                write_table(table, directory / f"{number}_{name}.csv")
        write_text(f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n', page)


def gather(model: Attached, *, n_controls: int, seed: int) -> Parts:
    """Measure: the model's score, its highest heads removed against control sets, every head alone, and patches.

    Raises:
        CheckError: an intervention did not act.
        UserError: the score cannot be computed.
    """
    network = model.network
    n_heads = network.n_layers * network.n_heads
    results: list[tuple[str, Result]] = [("Where heads attend", model.score(seed=seed))]
    for count in dict.fromkeys(min(count, n_heads) for count in HIGHEST):
        heading = "The highest head removed" if count == 1 else f"The {count} highest heads removed together"
        results.append((heading, model.ablate(f"top:{count}", n_controls=n_controls, seed=seed)))
    results.append(("Every head removed alone", model.ablate("each", modes=["mean"], n_controls=n_controls, seed=seed)))
    if model.task.corrupt is not None:
        results.append(("Every head patched alone", model.patch(seed=seed)))
    return Parts(results)


def panel(heading: str, result: Result) -> str:
    """A heading, the figure, the table and the sentences."""
    figure = image(result.plot(), heading)
    return f"<h2>{escape(heading)}</h2>{figure}{result_html([], result.tables(), result.sentences())}"


def files_of(result: Result) -> dict[str, Any]:
    return {"scores": result.table} if isinstance(result, HeadScores) else dict(result.files)

"""A report from Python, as `interp report` makes it: measure, judge, write."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analyses.report import files, page
from analyses.report.evidence import Evidence, Settings, gather
from analyses.report.protocol import Protocol, as_json, protocol_of
from analyses.report.tables import tables
from interp.display.html import result_html
from training.checkpoints.checkpoint import Checkpoint
from training.common.output import Table

DEFAULT = Settings()


@dataclass(frozen=True, repr=False, eq=False)
class Report:
    """The evidence, what follows from it, and how it was measured.

    Attributes:
        evidence: what was measured.
        account: claims with their verdicts, sentences, warnings.
        protocol: of the measurement.
    """

    evidence: Evidence
    account: page.Account
    protocol: Protocol

    @property
    def claims(self) -> pd.DataFrame:
        """One row per claim, from 1: `statement`, `verdict` and `evidence`."""
        rows = [vars(claim) for claim in self.account.claims]
        return pd.DataFrame(rows, index=pd.RangeIndex(1, len(rows) + 1))

    @property
    def failures(self) -> list[str]:
        """What was left out because a self-check failed."""
        return [failure for part in (*self.evidence.models, *self.evidence.studies) for failure in part.failures]

    @property
    def document(self) -> dict[str, Any]:
        """The content of report.json, which `--json` prints."""
        return page.document(self.evidence, self.account, as_json(self.protocol))

    def write(self, out: Path | str) -> Path:
        """Write the page, with its numbers in a directory beside it; returns where the page is.

        Args:
            out: a name that ends in .html, or a directory.

        Raises:
            UserError: that cannot be written.
        """
        target, data = files.page_path(Path(out)), tables(self.evidence)
        files.check_writable(target)
        html = page.render(self.evidence, self.account, self.protocol, files.data_names(data, target))
        files.write(target, html, self.document, data)
        return target

    def __repr__(self) -> str:
        return f"<Report on {', '.join(model.name for model in self.evidence.models)}: write(FILE.html) makes the page>"

    def _repr_html_(self) -> str:
        rows = [[claim.statement, claim.verdict, claim.evidence] for claim in self.account.claims]
        warnings = [f"{caveat.kind}: {caveat.text}" for caveat in self.account.caveats]
        return result_html([], [Table(self.protocol.command, ["claim", "verdict", "evidence"], rows)], warnings)


def report(
    checkpoints: Sequence[Checkpoint], settings: Settings = DEFAULT, arguments: Sequence[str] | None = None
) -> Report:
    """Measure checkpoints and judge the claims.

    Args:
        checkpoints: loaded runs.
        settings: prompts, control sets, classes.
        arguments: of the `interp` command, which the page shows; None: those that give the same numbers.

    Raises:
        CheckError: an intervention did not act.
        UserError: a class or head does not exist.
    """
    evidence = gather(checkpoints, settings)
    command = equivalent_arguments(checkpoints, settings) if arguments is None else arguments
    return Report(evidence, page.account(evidence), protocol_of(evidence, command))


def equivalent_arguments(checkpoints: Sequence[Checkpoint], settings: Settings) -> list[str]:
    """The arguments of `interp` that give the same numbers.

    >>> from training.checkpoints.checkpoint import load
    >>> " ".join(equivalent_arguments([load("zoo:mixed-0")], Settings(classes=("linear",), paths=False)))
    'report --ckpt zoo:mixed-0 --classes linear --prompts 1024 --controls 200 --seed 0 --no-paths --out report.html'
    """
    named = [word for checkpoint in checkpoints for word in ("--ckpt", checkpoint.name)]
    classes = ["--classes", ",".join(settings.classes)] if settings.classes else []
    numbers = ["--prompts", settings.n_prompts, "--controls", settings.n_controls, "--seed", settings.seed]
    paths = [] if settings.paths else ["--no-paths"]
    studies = [] if settings.studies is None else ["--studies", ",".join(settings.studies) or "none"]
    return ["report", *named, *classes, *map(str, numbers), *paths, *studies, "--out", "report.html"]

"""The studies on a page: those that the models were made for, or those that were asked for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from analyses.findings import Findings
from analyses.studies.registry import STUDIES, study_function
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import CheckError, UserError
from training.common.progress import progress_bar
from training.config.clamping import ClampingConfig
from training.config.config import RunConfig

MADE_FOR: Mapping[str, Callable[[RunConfig], bool]] = {
    "diversity": lambda config: config.data.n_functions > 0,
    "transplant": lambda config: bool(config.init.source),
    "clamping": lambda config: config.clamping != ClampingConfig(),
}
"""By study, whether a run was made for it."""


@dataclass(frozen=True)
class StudyResult:
    """A study of the models of a report.

    Attributes:
        name: as in `interp study`.
        findings: None if the models do not suffice for it, or a self-check failed.
        reason: why there are none; empty otherwise.
        failures: what was left out because a self-check failed.
    """

    name: str
    findings: Findings | None
    reason: str = ""
    failures: Sequence[str] = ()

    @property
    def question(self) -> str:
        return STUDIES[self.name].question


def studies_of(configs: Sequence[RunConfig]) -> list[str]:
    """The studies for which some of these runs were made.

    >>> from training.config.parse import from_preset
    >>> studies_of([from_preset("tiny", "mixed", 0, ["data.n_functions=8"])])
    ['diversity']
    """
    return [name for name, is_made_for in MADE_FOR.items() if any(map(is_made_for, configs))]


def run_studies(
    names: Sequence[str], checkpoints: Sequence[Checkpoint], *, n_prompts: int, seed: int
) -> Iterator[StudyResult]:
    """Each study on all checkpoints; one for which they do not suffice, or whose self-check failed, says so.

    Shows progress on stderr.
    """
    for name in progress_bar(names, desc="studies", unit="question") if names else ():
        try:
            findings = study_function(name)(checkpoints, n_prompts=n_prompts, seed=seed)
        except UserError as error:
            yield StudyResult(name, None, f"these models do not suffice: {error.message}")
        except CheckError as error:
            yield StudyResult(name, None, str(error), (f"study {name}: {error}",))
        else:
            yield StudyResult(name, findings.with_unknown_seeds(checkpoints), failures=findings.failures)


def study_tables(results: Sequence[StudyResult]) -> dict[str, pd.DataFrame]:
    """The tables of all studies, by names that begin with that of the study."""
    return {
        f"{result.name}_{key}": table
        for result in results
        if result.findings is not None
        for key, table in result.findings.files.items()
        if not table.empty
    }


def study_documents(results: Sequence[StudyResult]) -> list[Mapping[str, object]]:
    """What report.json holds of every study."""
    return [
        {"study": result.name, "question": result.question, "left out": result.reason}
        if result.findings is None
        else {"study": result.name, "question": result.question, "verdict": result.findings.sentences()}
        for result in results
    ]

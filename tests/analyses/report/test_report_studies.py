"""The studies on the page of a report, against the same studies asked alone."""

from dataclasses import replace
from html import unescape
from typing import get_args

import pandas as pd
import pytest

from analyses.report import files, studies
from analyses.report.studies import run_studies, studies_of
from analyses.studies.registry import check_studies
from training.checkpoints.checkpoint import load
from training.common.errors import CheckError, UserError
from training.config.clamping import ClampingConfig
from training.config.config import RunConfig
from training.config.parse import from_preset


@pytest.fixture(scope="module")
def checkpoints():
    return [load("zoo:mixed-0"), load("zoo:mixed-1")]


def settings(*changes: str) -> RunConfig:
    return from_preset("tiny", "single:linear", 0, list(changes))


def test_the_studies_are_those_that_the_models_were_made_for():
    plain = settings()
    assert studies_of([plain, plain]) == []
    assert studies_of([plain, settings("data.n_functions=8")]) == ["diversity"]
    assert studies_of([plain, settings("init.source=zoo:mixed-0")]) == ["transplant"]
    clamped = {
        "clamp": ClampingConfig("clamp", ("0.0",)),
        "ablate": ClampingConfig("ablate", ("0.0",)),
        "forbid": ClampingConfig("forbid"),
    }
    assert {*clamped, "none"} == set(get_args(ClampingConfig.__annotations__["action"]))
    for clamping in clamped.values():
        assert studies_of([replace(plain, clamping=clamping)]) == ["clamping"]


def test_a_study_that_does_not_exist_is_refused():
    with pytest.raises(UserError, match=r"--studies 'clampings': did you mean 'clamping'.*auto, none"):
        check_studies("curricula,clampings")
    with pytest.raises(UserError, match="layers is named twice"):
        check_studies("layers,curricula,layers")


def test_a_study_whose_self_check_fails_costs_itself_and_is_a_failure_of_the_report(checkpoints, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise CheckError("the engine differs")

    monkeypatch.setattr(studies, "study_function", lambda _: fail)
    (result,) = run_studies(["layers"], checkpoints, n_prompts=16, seed=0)
    assert result.findings is None
    assert (result.reason, result.failures) == ("the engine differs", ("study layers: the engine differs",))


@pytest.mark.slow
def test_the_page_shows_what_the_study_says_alone_and_why_another_is_not_shown(shipped, written, checkpoints, tmp_path):
    results = tuple(run_studies(["layers", "transplant"], checkpoints, n_prompts=32, seed=0))
    page, given = written(replace(shipped, studies=results), tmp_path / "page.html")
    alone = results[0].findings
    assert alone is not None
    assert (alone.protocol["prompts"], alone.protocol["seed"]) == (32, 0)
    text = unescape(page)
    assert alone.sentences()
    for sentence in alone.sentences():
        assert sentence in text
    assert alone.question in text
    assert page.count(f'alt="{alone.question}') == len(alone.figures) > 0
    assert "Left out: these models do not suffice: zoo:mixed-0 trains on several function classes" in text
    shown, missing = given["studies"]
    assert shown["verdict"] == alone.sentences()
    assert missing["study"] == "transplant"
    directory = files.data_directory(tmp_path / "page.html")
    alone.write(tmp_path / "alone")
    for name in alone.files:
        of_report = pd.read_csv(directory / f"layers_{name}.csv")
        pd.testing.assert_frame_equal(of_report, pd.read_csv(tmp_path / "alone" / f"{name}.csv"))
    written(shipped, tmp_path / "page.html")
    assert not list(directory.glob("layers_*.csv"))

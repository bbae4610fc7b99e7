"""One study made up, written and shown; and the names that stand for several checkpoints."""

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from analyses.findings import Findings
from analyses.studies.registry import STUDIES
from training.checkpoints.checkpoint import zoo_path
from training.checkpoints.name_patterns import expand, load_all
from training.common.errors import UserError


@pytest.fixture
def found() -> Findings:
    return Findings(
        "Does it?",
        ("It does (0.90 [0.85, 0.95]).",),
        {"checkpoints": ["a", "b"], "prompts": 64},
        {"effects": pd.DataFrame({"model": ["a", "b"], "effect": [0.9, float("nan")]})},
        {"by model": pd.DataFrame({"model": ["a", "b"], "effect": ["0.900", "-"]})},
        {"effects": lambda: [plt.subplots()[1]]},
    )


def test_a_study_is_written_whole(found, tmp_path):
    found.write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["effects.csv", "effects.png", "summary.md"]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "effects.csv"), found.files["effects"])
    text = (tmp_path / "summary.md").read_text()
    for part in (
        "# Does it?",
        "- It does (0.90",
        "| b | - |",
        "![effects](effects.png)",
        "checkpoints: a, b; prompts: 64.",
    ):
        assert part in text
    assert not plt.get_fignums()


def test_a_study_is_shown_and_given_as_json(found, capsys):
    found.show()
    text = capsys.readouterr().out
    assert "Does it?" in text
    assert "by model" in text
    assert "0.900" in text
    given = json.loads(json.dumps(found.document(), default=str))
    assert given["verdict"] == ["It does (0.90 [0.85, 0.95])."]
    assert given["prompts"] == 64
    assert given["effects"][0] == {"model": "a", "effect": 0.9}


@pytest.mark.parametrize("name", STUDIES)
def test_every_question_has_a_module_that_studies_it(name):
    assert callable(import_module(f"analyses.studies.{STUDIES[name].module}").study)


def test_patterns_stand_for_shipped_models_and_run_directories(tmp_path):
    for name in ("mixed-0", "mixed-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text((zoo_path("mixed-0") / "config.json").read_text())
    (tmp_path / "mixed-log").mkdir()
    assert expand([f"{tmp_path}/mixed-*"]) == [f"{tmp_path}/mixed-0", f"{tmp_path}/mixed-1"]
    assert expand([f"{tmp_path}/mixed-?@200"])[0] == f"{tmp_path}/mixed-0@200"
    assert expand(["zoo:linear-0", "zoo:mixed-0*"]) == ["zoo:linear-0", "zoo:mixed-0"]
    assert [one.name for one in load_all(["zoo:[lm]i*-0"])] == ["zoo:linear-0", "zoo:mixed-0"]


def test_a_directory_may_be_called_like_a_pattern(tmp_path: Path):
    (tmp_path / "run[1]").mkdir()
    assert expand([f"{tmp_path}/run[1]"]) == [f"{tmp_path}/run[1]"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["zoo:nothing-*"], "--ckpt zoo:nothing-.*shipped ones: cubic-0"),
        (["zoo:mixed-0", "zoo:mixed-*"], "zoo:mixed-0 is named twice"),
    ],
)
def test_patterns_that_cannot_be_meant_are_refused(names, message):
    with pytest.raises(UserError, match=message):
        expand(names)


def test_sentences_on_single_rows_are_counted_on_the_screen_and_written_whole(found, capsys, tmp_path):
    sentences = ("It does.", "a: 0.90.", "b: -.", "Not always.", "Seldom.", "Never.")
    whole = replace(found, verdict=sentences, details=sentences[1:3])
    whole.show()
    text = capsys.readouterr().out
    assert "- It does." in text
    assert "a: 0.90." not in text
    assert "- 2 more sentences on single rows of the tables above: in summary.md (--out DIR) and --json" in text
    replace(whole, verdict=sentences[:5]).show()
    text = capsys.readouterr().out
    assert "- a: 0.90." in text
    assert "more sentence" not in text
    assert whole.document()["verdict"] == [*sentences]
    whole.write(tmp_path)
    assert "- a: 0.90." in (tmp_path / "summary.md").read_text()
    assert "a: 0.90." in whole._repr_html_()


def test_long_verdicts_are_five_sentences_on_the_screen():
    checkpoints = load_all(["zoo:mixed-*", "zoo:random-*", "zoo:cubic-*", "zoo:linear-*"])
    for name in ("plateaus", "efficiency"):
        findings = import_module(f"analyses.studies.{STUDIES[name].module}").study(checkpoints, n_prompts=64, seed=0)
        assert set(findings.details) <= set(findings.sentences())
        assert 3 <= len(set(findings.sentences()).difference(findings.details)) <= 5

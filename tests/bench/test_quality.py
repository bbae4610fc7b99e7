"""The bench of time to quality finds where a run gets to, and compares only runs that can be compared."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import quality
from tqdm import tqdm
from typer.testing import CliRunner

from training.checkpoints.history import read_history
from training.common.errors import UserError
from training.config.parse import from_preset
from training.loop.trainer import train


def course(errors, **more):
    config = replace(from_preset("tiny", "mixed", 0, [f"recipe.steps={100 * (len(errors) - 1)}"]), **more)
    return quality.Course("run", config, {quality.ALL: {100 * i: error for i, error in enumerate(errors)}})


def test_a_target_is_reached_where_the_error_stays_below_it():
    assert course([1.0, 0.4, 0.6, 0.5, 0.3, 0.2, 0.4]).reached(quality.ALL, 0.5) == 300
    assert course([1.0, 0.9, 0.5]).reached(quality.ALL, 0.5) == 200
    assert course([1.0, 0.9, 0.8]).reached(quality.ALL, 0.5) is None
    assert course([1.0, 0.4, np.nan, 0.4, 0.4]).reached(quality.ALL, 0.5) == 300


def test_runs_are_paired_by_their_seeds():
    first, second = (course([1.0, 0.5], seeds=from_preset("tiny", "mixed", seed).seeds) for seed in (0, 1))
    assert quality.paired([second, first], [first, second]) == [(first, first), (second, second)]
    with pytest.raises(UserError, match="has the seeds of 0 runs"):
        quality.paired([second], [first])
    with pytest.raises(UserError, match="has the seeds of 2 runs"):
        quality.paired([first, first], [first])


def test_runs_that_learned_other_things_are_refused():
    ours = course([1.0, 0.5])
    for setting in ("model.d_model=32", "data.inputs=uniform", "record.eval_prompts=64", "instruction.kind=one_hot"):
        other = course([1.0, 0.5], **vars(from_preset("tiny", "mixed", 0, [setting, "model.n_ctx=40"])))
        with pytest.raises(UserError, match="differ in their size, data or curriculum"):
            quality.paired([other], [ours])
    lost = replace(ours, errors={**ours.errors, "cubic": {0: 1.0}})
    for pair in ([ours], [lost]), ([lost], [ours]):
        with pytest.raises(UserError, match="are of other function classes"):
            quality.paired(*pair)
    recipe = course([1.0, 0.5], **vars(from_preset("tiny", "mixed", 0, ["model.init_std=0.02"], recipe="authors")))
    assert quality.paired([recipe], [ours]) == [(recipe, ours)]


@pytest.mark.slow
def test_a_step_of_more_work_takes_longer():
    sizes = [8, 256]
    configs = {
        str(size): from_preset("tiny", "mixed", 0, ["recipe.threads=1", f"recipe.batch_size={size}"]) for size in sizes
    }
    few, many = quality.step_seconds(configs, 3, tqdm(disable=True)).values()
    assert len(few) == len(many) == 3
    assert min(many) > 4 * max(few)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, quick_settings):
    """A run, and one that hardly moves."""
    folder = tmp_path_factory.mktemp("runs")
    for name, more in (("slow", ["recipe.lr=1e-7"]), ("fast", ["recipe.batch_size=4"])):
        train(from_preset("tiny", "mixed", 0, [*quick_settings[1::2], *more]), folder / name)
    return folder


@pytest.mark.slow
def test_the_document_says_what_the_histories_say(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(quality, "step_seconds", lambda *_: {"against": [0.2, 0.3], "run": [0.1, 0.1]})
    options = ["--against", str(runs / "slow"), "--runs", str(runs / "fast"), "--json", "--out", str(tmp_path / "new")]
    done = CliRunner().invoke(quality.app, options)
    row, *by_class = json.loads(done.stdout)["results"]
    slow, fast = (read_history(runs / name) for name in ("slow", "fast"))
    ends = [{one["function_class"]: one["nmse"] for one in rows if one["step"] == 60} for rows in (slow, fast)]
    assert (row["target"], row["end"]) == pytest.approx(tuple(np.mean(list(end.values())) for end in ends))
    assert [one["class"] for one in by_class] == list(ends[0])
    assert [(one["target"], one["end"]) for one in by_class] == [tuple(end[name] for end in ends) for name in ends[0]]
    reached = row["reached"]
    assert 0 < reached <= 60
    assert (row["ratio_low"], row["ratio_high"]) == pytest.approx((120 / reached, 180 / reached))
    assert row["flop_ratio"] == pytest.approx(120 / reached)
    assert (tmp_path / "new" / "bench.csv").exists()


def test_what_is_never_reached_is_told(runs, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setattr(quality, "step_seconds", lambda *_: {"against": [0.2], "run": [0.1]})
    asked = ["--against", str(runs / "fast"), "--runs", str(runs / "slow")]
    row = json.loads(CliRunner().invoke(quality.app, [*asked, "--json"]).stdout)["results"][0]
    assert (row["reached"], row["ratio"], row["flop_ratio"]) == (None, None, None)
    assert "never" in CliRunner().invoke(quality.app, asked).stdout


def test_a_target_that_was_there_before_the_first_step_is_none():
    with pytest.raises(UserError, match="ends no better than run is before its first step"):
        quality.compare(course([1.0, 2.0]), course([1.5, 0.5]), 1, tqdm(disable=True))


def test_a_run_without_a_history_is_refused(runs, tmp_path):
    shutil.copytree(runs / "fast", tmp_path / "fast")
    (tmp_path / "fast" / "history.jsonl").unlink()
    with pytest.raises(UserError, match=r"has no history$"):
        quality.read_course(str(tmp_path / "fast"))


def test_shipped_runs_have_names():
    assert quality.read_course("zoo:mixed-0").end("cubic") < 1


def test_a_run_that_has_not_ended_is_refused(runs, train_until, tmp_path, quick_settings):
    train_until(from_preset("tiny", "mixed", 0, quick_settings[1::2]), tmp_path / "cut", 30)
    done = CliRunner().invoke(quality.app, ["--against", str(tmp_path / "cut"), "--runs", str(runs / "half")])
    assert done.exit_code == 2
    assert "is not finished: it is at step 30 of 60" in " ".join(done.output.replace("│", " ").split())


def test_a_class_is_held_against_its_own_end(monkeypatch):
    monkeypatch.setattr(quality, "step_seconds", lambda *_: {"against": [3.0], "run": [1.0]})
    ends = {"all": 0.7, "linear": 0.2, "cubic": 0.4, "sine": 1.0}
    by_class = {"all": [1.0, 0.6, 0.3], "linear": [1.0, 0.2, 0.1], "cubic": [1.0, 1.0, 0.5], "sine": [0.4, 1.0, 1.0]}
    errors = {name: {100 * i: error for i, error in enumerate(each)} for name, each in by_class.items()}
    ours = replace(course([1, 2, 3]), errors=errors)
    theirs = replace(ours, errors={name: {200: end} for name, end in ends.items()})
    rows = {row["class"]: row for row in quality.compare(theirs, ours, 1, tqdm(disable=True))}
    assert {name: row["reached"] for name, row in rows.items()} == {"all": 100, "linear": 100, "cubic": None, "sine": 0}
    assert {name: row["ratio"] for name, row in rows.items()} == pytest.approx(
        {"all": 6.0, "linear": 6.0, "cubic": np.nan, "sine": np.nan}, nan_ok=True
    )
    assert quality.savings(rows["linear"]) == ["100", "600", "2.0", "6.0 [6.0, 6.0]"]
    assert quality.savings(rows["cubic"]) == quality.savings(rows["sine"]) == ["-", "600", "-", "-"]


def test_of_one_class_there_is_one_row(monkeypatch):
    monkeypatch.setattr(quality, "step_seconds", lambda *_: {"against": [3.0], "run": [1.0]})
    one = replace(course([1, 2]), errors={name: {0: 1.0, 100: 0.5} for name in ("all", "linear")})
    assert [row["class"] for row in quality.compare(one, one, 1, tqdm(disable=True))] == ["all"]

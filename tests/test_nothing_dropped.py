"""What a user writes is used or refused, and never left out of account in silence."""

from functools import partial

import numpy as np
import pandas as pd
import pytest

from interp.ablation.ablate import ablate
from interp.ablation.modes import UNIFORM
from interp.model.heads import Head
from training import options
from training.checkpoints.checkpoint import load
from training.common.errors import UserError

CKPT = ("--ckpt", "zoo:mixed-0")
SEVERAL = ("--ckpt", "zoo:mixed-*")
ONE_CHECKPOINT = [("patch",), ("path",), ("attribute",), ("circuit",), ("lens",), ("probe",)]
ONE_CHECKPOINT += [("export", "--out", "x"), ("study", "retrospective")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--seeds", "0-1", "--seed", 3, "--out", "x"), "--seed and --seeds exclude each other"),
        (("train", "--jobs", 3, "--out", "x"), "--jobs applies to a set of runs only"),
        (("ablate", *CKPT, "--heads", "0.1", "--site", "pattern", "--mode", "zero,mean"), "leave --mode out"),
        (("ablate", *CKPT, "--heads", "all", "--design", "keep"), "--design keep with all 24 heads removes nothing"),
        (
            ("ablate", *CKPT, "--heads", "all", "--design", "pairs", "--null-prompts", 7),
            "--null-prompts does not apply",
        ),
        (("ablate", *CKPT, "--heads", "all", "--design", "pairs", "--controls", 7), "--controls does not apply"),
        (("circuit", *CKPT, "--steps", 3), "--steps applies to ig, ig-activations, eap-ig only"),
        (("attribute", *CKPT, "--steps", 3, "--method", "exact,atp"), "not to --method exact,atp"),
        (("probe", *CKPT, "--controls", 3), "--controls applies to --swap only"),
        (("upgrade", *CKPT), "zoo:mixed-0 needs no upgrade"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_an_option_without_a_use_is_refused(arguments, message, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(*arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ONE_CHECKPOINT, ids=" ".join)
def test_a_command_of_one_checkpoint_says_so_of_a_pattern_that_names_several(command, refused):
    name = command[1] if command[0] == "study" else command[0]
    assert f"{name} takes one checkpoint; --ckpt zoo:mixed-* names 5: zoo:mixed-0, " in refused(*command, *SEVERAL)


def test_a_pattern_that_names_one_checkpoint_is_its_name(outcome):
    arguments = ("patch", "--classes", "linear", "--prompts", 8, "--examples", 2, "--heads", "0.1", "--json")
    assert '"checkpoint": "zoo:inherited"' in outcome(*arguments, "--ckpt", "zoo:inher*").out


def test_designs_that_compare_sets_with_one_another_use_all_prompts(outcome, monkeypatch):
    """Sets that are tested and sets that are drawn once had different numbers of prompts, which cannot be paired."""
    monkeypatch.setattr(options, "DEFAULT_NULL_PROMPTS", 8)
    arguments = ("ablate", *CKPT, "--heads", "0.1,1.2", "--prompts", 16, "--mode", "zero", "--classes", "linear")
    for design in ("cumulative", "pairs"):
        done = outcome(*arguments, "--design", design, "--json")
        assert done.code == 0, done.err
        assert '"null_prompts": 16' in done.out


def test_uniform_attention_may_be_named_at_the_site_pattern():
    alone = partial(ablate, load("zoo:linear-0"), Head(0, 1), "linear", site="pattern", n_prompts=8, n_controls=0)
    tables = [alone(modes=modes).table for modes in (None, "uniform", UNIFORM)]
    assert {*tables[0]["mode"]} == {"uniform"}
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0])
    with pytest.raises(UserError, match="does not apply to site pattern"):
        alone(modes=["mean"])


def test_history_draws_the_learning_curves(tmp_path, outcome):
    done = outcome("history", *CKPT, "--ckpt", "zoo:mixed-0@117", "--converged-below", "0.4", "--out", tmp_path)
    assert done.code == 0, done.err
    assert {path.name for path in tmp_path.iterdir()} == {"history.csv", "history.png", "run.json"}


def test_learning_curves_are_the_recorded_errors_with_the_line_of_convergence():
    from interp.display.learning_curves import plot_learning_curves
    from training.checkpoints.checkpoint import zoo_path
    from training.evaluation.convergence import recorded_errors

    history = recorded_errors(zoo_path("mixed-0"))
    axes = plot_learning_curves({"a": history}, 0.4)
    assert [ax.get_title() for ax in axes] == ["linear, gaussian", "quadratic, gaussian", "cubic, gaussian"]
    model, optimum, limit = (np.asarray(line.get_ydata()) for line in axes[1].get_lines())
    rows = history[history["function_class"] == "quadratic"]
    assert [*model] == [*rows["nmse_tail"]]
    assert [*limit] == pytest.approx([0.4 * error for error in optimum])

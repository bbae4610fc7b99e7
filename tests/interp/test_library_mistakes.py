"""What is wrong in a call is one line that names it, as on the command line, and never an error from inside."""

import inspect
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, get_args

import numpy as np
import pytest
import torch

import interp
from interp import Head, names
from interp.ablation.ablate import Design, removed_components
from interp.ablation.control_sets import MATCHES, Match
from interp.ablation.modes import MODES
from interp.attribution import edges, nodes
from interp.model import engine
from interp.patching import runner, sites
from interp.patching.prompt_pairs import CORRUPTIONS
from interp.scores.head_choice import sets_of
from interp.scores.kinds import SCORES, ScoreKind
from interp.scores.measured import MEASURED
from interp.scores.weightings import WEIGHTINGS
from training.checkpoints.checkpoint import zoo_path
from training.common.errors import ARGUMENTS, UserError

FEW: dict[str, Any] = {"n_prompts": 8}


@pytest.fixture(scope="module")
def model():
    return interp.load("zoo:linear-0")


def own_score(targets: Callable[[Any], Any]) -> Callable[[Any], object]:
    return lambda c: interp.score(c, "linear", kind=ScoreKind("own", targets), **FEW)


MISTAKES: dict[str, tuple[Callable[[Any], object], str]] = {
    "modes=[]": (lambda c: interp.ablate(c, "0.1", modes=[], **FEW), "modes is empty"),
    "modes=meen": (lambda c: interp.ablate(c, "0.1", modes="meen", **FEW), "did you mean 'mean'?"),
    "matches=layr": (lambda c: interp.ablate(c, "0.1", "linear", matches="layr", **FEW), "unknown match 'layr'"),
    "n_controls=-1": (lambda c: interp.ablate(c, "0.1", n_controls=-1), "n_controls=-1: a number of at least 0"),
    "n_prompts='8'": (lambda c: interp.ablate(c, "0.1", n_prompts="8"), "n_prompts='8': a whole number is needed"),
    "points=3": (lambda c: interp.ablate(c, "0.1", points=3), "points=3: text or None is needed"),
    "tokens=None": (lambda c: interp.ablate(c, "0.1", tokens=None), "tokens=None: text is needed"),
    "store='d'": (lambda c: interp.ablate(c, "0.1", store="d"), "store='d': a Store or None is needed"),
    "memory=0": (lambda c: interp.ablate(c, "0.1", memory=0), "memory=0: a number of at least 1 is needed"),
    "a head of text": (lambda c: interp.ablate(c, [Head("a", 1)]), "whole numbers from 0"),  # pyright: ignore
    "not a head": (lambda c: interp.ablate(c, "9.9"), "heads 9.9: there is no head 9.9"),
    "numbers as mask": (own_score(lambda _: torch.ones(8, 8)), "the targets of the score own are float32"),
    "a flat mask": (
        own_score(lambda tokens: tokens.is_x),
        "the targets of the score own are [32]: [prompts or 1, 32, 32]",
    ),
    "mlps in order": (lambda c: interp.cumulative(c, "mlps", "linear", **FEW), "which MLPs do not have"),
    "kind=[...]": (
        lambda c: interp.score(c, kind=["self"]),
        "kind=['self']: text or a ScoreKind or a MeasuredScore is needed",
    ),
    "inputs=[...]": (lambda c: interp.score(c, inputs=["gaussian"]), "inputs=['gaussian']: text or None is needed"),
    "points=[0, 3]": (lambda c: interp.score(c, points=[0, 3]), "points=[0, 3]: text or a slice or None is needed"),
    "mean of a class": (lambda c: interp.score(c, "linear", **FEW).mean(["cubic"]), "unknown function class 'cubic'"),
    "corrupt=None": (lambda c: interp.patch(c, corrupt=None), "corrupt=None: text is needed"),
    "patch tokens=3": (lambda c: interp.patch(c, tokens=3), "tokens=3: text or None is needed"),
    "no senders": (lambda c: interp.path_effects(c, [], "out", "linear", **FEW), "no senders are given"),
    "no such sender": (lambda c: interp.path_effects(c, Head(9, 9), "out", "linear", **FEW), "there is no head 9.9"),
    "n_rotations=0": (lambda c: interp.composition(c, n_rotations=0), "n_rotations=0: a number of at least 1"),
    "n_steps=0": (lambda c: interp.attribute(c, methods="ig", n_steps=0), "n_steps=0: a number of at least 1"),
    "n_random=-1": (lambda c: interp.circuits(c, n_random=-1), "n_random=-1: a number of at least 0"),
    "sizes=a": (lambda c: interp.circuits(c, "linear", sizes="a", **FEW), "sizes='a': whole numbers are needed"),
    "steps=0": (lambda c: interp.lens(c, "linear", steps=0, n_prompts=32), "steps=0: numbers from 1 upwards"),
    "examples=a": (lambda c: interp.probe(c, "linear", examples="a"), "examples='a': whole numbers are needed"),
    "units=mse": (lambda c: interp.error_curves(c, "linear", units="mse", **FEW), "unknown units 'mse'"),
    "baselines=laso": (lambda c: interp.error_curves(c, "linear", baselines="laso", **FEW), "did you mean 'lasso'?"),
    "load(*)": (lambda _: interp.load("zoo:mixed-*"), "zoo:mixed-* is a pattern, and one checkpoint is needed"),
    "judge top:K": (lambda _: interp.judge(lambda _: np.ones(8), "top:1", n_layers=2, n_heads=2), "pass scores"),
    "judge match": (
        lambda _: interp.judge(lambda _: np.ones(8), "0.1", n_layers=2, n_heads=2, match="layr"),
        "unknown match 'layr': did you mean 'layer'?",
    ),
    "judge layers": (lambda _: interp.judge(lambda _: np.ones(8), "0.1", n_layers=0, n_heads=2), "n_layers=0"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_that_names_it(model, mistake):
    call, message = MISTAKES[mistake]
    with pytest.raises(UserError) as error:
        call(model)
    assert message in str(error.value)


@pytest.mark.parametrize("given", [3, None, [3, 4], (0, 1), [(0, 1)], [None]])
def test_what_is_no_choice_of_heads_is_refused(given):
    with pytest.raises(UserError, match=r"heads are named as text such as '0.1,1.2', or as Head\(LAYER, HEAD\)"):
        sets_of(given, 2, 4, None)


def test_a_design_of_another_function_names_it(model):
    with pytest.raises(UserError, match=r"unknown design 'pairs' .*: use interp.pairs"):
        inspect.unwrap(removed_components)((Head(0, 1),), "pairs", model)  # without the check of types


def test_several_sets_may_be_text_and_receivers_heads(model):
    given: dict[str, Any] = {"n_controls": 0, "modes": "mean, zero", **FEW}
    table = interp.ablate("zoo:linear-0", ["0.1", "0.2,1.3"], "linear", **given).table
    assert [*table["heads"].unique()] == ["0.1", "0.2,1.3"]
    assert [*table["mode"].unique()] == ["mean", "zero"]
    effects = [interp.path_effects(model, "0.1", to, "linear", **FEW).table for to in (Head(1, 2), "1.2", ["1.2"])]
    assert effects[0].equals(effects[1])
    assert effects[0].equals(effects[2])


def test_error_curves_take_names(model):
    short = interp.error_curves("zoo:linear-0", "linear", inputs="gaussian", baselines="averaging", **FEW)
    long = interp.error_curves(model, ["linear"], inputs=["gaussian"], baselines=["averaging"], seed=0, **FEW)
    assert short.equals(long)


@pytest.mark.parametrize(
    ("literal", "table"),
    [
        (names.ModeName, MODES),
        (names.ScoreName, [*SCORES, *MEASURED]),
        (names.ScoreName, names.SCORE_DEFINITIONS),
        (names.WeightingName, WEIGHTINGS),
        (names.WeightingName, names.WEIGHTING_DEFINITIONS),
        (names.SiteName, sites.SITES),
        (names.NodeMethod, ("exact", *nodes.METHODS)),
        (names.EdgeMethod, ("exact", *edges.METHODS)),
        (names.CorruptionName, [f"{name}:J" if name == "pair" else name for name in CORRUPTIONS]),
        (engine.Site, engine.SITES),
        (runner.Direction, runner.DIRECTIONS),
        (Match, MATCHES),
    ],
)
def test_what_an_editor_completes_is_what_the_table_holds(literal, table):
    assert [*get_args(literal)] == [*table]


@pytest.mark.parametrize("name", ["heads", "mode", "prompts", "ablate-heads"])
def test_a_command_names_options_and_a_notebook_arguments(name):
    error = UserError(f"--{name} x: not valid; --set and --headsup stay")
    assert error.message == f"--{name} x: not valid; --set and --headsup stay"
    assert str(error) == f"{ARGUMENTS[name]} x: not valid; --set and --headsup stay"


def test_a_command_in_backticks_stays_a_command():
    error = UserError("--heads 9.9 is wrong: `interp score --heads all` lists them")
    assert str(error) == "heads 9.9 is wrong: `interp score --heads all` lists them"


def test_every_translated_option_is_an_argument():
    functions = [value for value in map(partial(getattr, interp), interp.__all__) if inspect.isfunction(value)]
    arguments = {name for function in functions for name in inspect.signature(function).parameters}
    assert {name.replace("-", "_") for name in ARGUMENTS.values()} - arguments == {"edges"}


def test_designs_of_the_command_are_those_of_the_functions():
    assert (*get_args(Design), "cumulative", "pairs") == names.DESIGN_NAMES


def test_a_module_of_the_users_that_hides_ours_is_named(tmp_path):
    (tmp_path / "training.py").write_text("")
    home = zoo_path("linear-0").parents[2]
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(home)!r}]; from interp import load"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"ImportError: `import training` finds {tmp_path / 'training.py'}" in done.stderr
    assert "PYTHONSAFEPATH=1" in done.stderr


def test_an_empty_choice_of_classes_is_refused_and_one_pair_may_be_a_number():
    with pytest.raises(UserError, match="no function class is named"):
        interp.score("zoo:linear-0", [], n_prompts=8)
    patterns = interp.patterns("zoo:linear-0", "0.1", "linear", n_prompts=8)
    assert patterns.span(7) == patterns.span("7")

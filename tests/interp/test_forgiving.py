"""What a user of the library writes first works: one name for a list, text for heads and pairs."""

import pandas as pd
import pytest

import interp
from interp import Head
from training.common.errors import UserError

FEW = {"n_prompts": 8}


@pytest.fixture(scope="module")
def trained():
    return interp.load("zoo:linear-0")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (
            lambda c: interp.score(c, "linear", points="0-3", **FEW),
            lambda c: interp.score(c, ["linear"], points=slice(0, 4), **FEW),
        ),
        (lambda c: interp.patterns(c, Head(0, 1), "linear"), lambda c: interp.patterns(c, (Head(0, 1),), "linear")),
        (lambda c: interp.patterns(c, "L0H1", "linear"), lambda c: interp.patterns(c, "0.1", "linear")),
        (
            lambda c: interp.patch(c, "linear", heads=Head(0, 1), **FEW),
            lambda c: interp.patch(c, "linear", heads=[(Head(0, 1),)], **FEW),
        ),
        (
            lambda c: interp.cumulative(c, "0.2,0.1", "linear", n_orders=2, modes="zero", **FEW),
            lambda c: interp.cumulative(c, [Head(0, 2), Head(0, 1)], "linear", n_orders=2, modes=["zero"], **FEW),
        ),
        (
            lambda c: interp.path_effects(c, "0.1", "out", "linear", **FEW),
            lambda c: interp.path_effects(c, [(Head(0, 1),)], "out", ["linear"], **FEW),
        ),
        (
            lambda c: interp.lens(c, "linear", steps=2, n_prompts=32),
            lambda c: interp.lens(c, ["linear"], steps=[2], n_prompts=32),
        ),
        (
            lambda c: interp.attribute(c, "linear", methods="gradient", n_validate=0, **FEW),
            lambda c: interp.attribute(c, ["linear"], methods=["gradient"], n_validate=0, **FEW),
        ),
        (
            lambda c: interp.circuits(c, "linear", sizes=50, method="eap", n_random=0, **FEW),
            lambda c: interp.circuits(c, ["linear"], sizes=[50], method="eap", n_random=0, **FEW),
        ),
    ],
    ids=["points", "Head", "L0H1", "heads of patches", "order", "senders", "steps", "methods", "sizes"],
)
def test_the_short_form_is_the_long_one(trained, written, meant):
    for short, long in zip(written(trained).files.values(), meant(trained).files.values(), strict=True):
        pd.testing.assert_frame_equal(short, long)


def test_an_order_by_a_rule_is_by_score(trained):
    table = interp.cumulative(trained, "top:2", "linear", n_orders=2, modes="zero", **FEW).table
    scores = interp.scores.score.selection_scores(trained, 8, 0)
    first, second = (Head(*map(int, name.split("."))) for name in table["added"].unique())
    assert scores[first] == scores.max() > scores[second]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda _: interp.load("zoo:linear-0", device="cuda:99"), r"--device cuda:99: not available here"),
        (lambda c: interp.score(c, "linaer"), "unknown function class 'linaer': did you mean 'linear'?"),
        (lambda _: interp.load("zoo:mixd-0"), "unknown zoo checkpoint 'mixd-0': did you mean 'mixed-0'?"),
        (lambda c: interp.score(c, "linear", points="0-3,5", n_prompts=8), "points=0-3,5: one range of pairs"),
        (lambda c: interp.patterns(c, "L9H1"), "there is no head 9.1"),
        (lambda c: interp.ablate(c, []), "no heads are given"),
    ],
    ids=["device", "class", "checkpoint", "ranges", "head", "no heads"],
)
def test_what_is_wrong_is_one_line(trained, call, message):
    with pytest.raises(UserError) as error:
        call(trained)
    assert message in str(error.value)


def test_the_public_names_hold_the_types_that_annotations_need():
    assert isinstance(interp.load("zoo:linear-0"), interp.Checkpoint)
    assert interp.to_prompt.__module__ == "training.tasks.prompts"

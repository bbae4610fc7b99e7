"""Settings that nobody would write: a configuration that survives its file, or a refusal in one line."""

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.checkpoints.checkpoint import read_config, write_config
from training.common.errors import UserError
from training.config.config import RunConfig
from training.config.parse import from_dict, from_preset, settable_keys, to_dict

fuzz = settings(derandomize=True, deadline=None, max_examples=150)

FITTING = {
    "data.classes": ["linear,cubic", '["linear", "relu_network:4", "cubic"]', "linear"],
    "data.inputs": ["gaussian,skewed", "student_t:4"],
    "data.n_points": ["8", "16", "17"],
    "schedule.inputs": ["mixed", "sequential"],
    "schedule.edges": ["[10, 20]", "[5]", "[2997, 2998]", "[2998, 2999]", "[3, 2]"],
    "schedule.probabilities": ["[[1.0, 0.0, 0.0], [0.2, 0.8, 0.0]]", "[[0.5, 0.5]]", "[[0.5, 0.4]]"],
    "instruction.kind": ["vector", "one_hot"],
    "instruction.at": ["0", "3", "99"],
    "growth.points": ["4"],
    "recipe.steps": ["1", "2", "3000"],
    "recipe.lr": ["1e-3", "0x10", "1_000"],
    "model.d_model": ["64", "63"],
}
words = st.sampled_from(
    ["0", "-1", "1e-3", "true", "nan", "-inf", "[]", "[[]]", "linear", "''", "\0", "9" * 5000, "1e400"]
)
values = words | st.text(max_size=8) | st.integers(-5, 70).map(str) | st.floats().map(str)
fits = st.sampled_from([f"{key}={value}" for key, some in FITTING.items() for value in some])
odd = st.builds("{}={}".format, st.sampled_from(settable_keys()), values)
changes = st.integers(0, 3).flatmap(lambda draw: odd if draw == 3 else fits)
curricula = st.sampled_from(["mixed", "sequential", "random", "mixed", "custom", "single:cubic", "single:", ""])


def check(config: RunConfig) -> None:
    """It can be asked for everything that follows from it."""
    schedule, last = config.parsed_schedule(), config.recipe.steps - 1
    for step in {0, last // 2, last}:
        assert sum(schedule.classes.probabilities(step)) == pytest.approx(1)
        assert sum(schedule.input_probabilities(step)) == pytest.approx(1)
    assert {*config.trained_classes} <= {*config.evaluated_classes}
    assert config.layout.n_tokens(config.data.n_points) <= config.model.n_ctx


@given(curriculum=curricula, preset=st.sampled_from(["tiny", "paper"]), given_settings=st.lists(changes, max_size=3))
@fuzz
def test_any_settings_are_a_run_that_survives_its_file_or_are_refused_in_one_line(
    tmp_path_factory, curriculum, preset, given_settings
):
    try:
        config = from_preset(preset, curriculum, 0, given_settings)
    except UserError as error:
        message = str(error)
    else:
        check(config)
        directory = tmp_path_factory.mktemp("run")
        write_config(directory, config)
        assert read_config(directory) == config
        return
    assert message
    assert len(message.splitlines()) == 1


WHOLE = to_dict(from_preset("tiny", "mixed", 0))
PLACES = [(key,) for key in WHOLE] + [
    (key, inner) for key, table in WHOLE.items() if isinstance(table, dict) for inner in table
]
extremes = st.sampled_from([math.inf, -math.inf, math.nan, 2**64, 1e300, True, 1, -3])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
)


def changed(document: dict[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    """A copy with another value in one place."""
    copy = json.loads(json.dumps(document))
    table = copy
    for key in place[:-1]:
        table = table[key]
    table[place[-1]] = value
    return copy


def said(value: Any) -> Any:
    """Names may be written as one text with commas, whole numbers for numbers: the same thing said otherwise."""
    if isinstance(value, dict):
        return {key: said(one) for key, one in value.items()}
    return value.split(",") if isinstance(value, str) else value


@given(place=st.sampled_from(PLACES), value=extremes | json_values)
@settings(fuzz, max_examples=300)
def test_one_odd_value_anywhere_is_taken_as_it_is_or_refused_by_its_name(place, value):
    document = changed(WHOLE, place, value)
    try:
        config = from_dict(RunConfig, document)
    except UserError as error:
        message = str(error)
    else:
        found = to_dict(config)
        for key in place:
            found, document = found[key], document[key]
        if isinstance(document, dict):
            found = {key: found[key] for key in document}  # what a table does not say has a default
        assert said(found) == said(document)
        assert isinstance(found, bool) == isinstance(document, bool)
        assert not isinstance(found, float) or math.isfinite(found)
        assert not isinstance(found, int) or abs(found) <= 2**63
        check(config)
        return
    assert len(message.splitlines()) == 1
    assert any(key in message for key in (place[-1], "function class", "input distribution", "curriculum"))

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.model.heads import MLP, Head, all_heads, head_set, parse_heads, refuse_absent_mlps, show
from training.common.errors import UserError
from training.common.terminal import one_line
from training.config.config import ModelConfig

SCORES = np.arange(24).reshape(3, 8) / 24


def parse(text):
    return [show(heads) for heads in parse_heads(text, 3, 8, SCORES.tolist)]


@pytest.mark.parametrize(
    ("text", "sets"),
    [
        ("0.3", ["0.3"]),
        ("1.2, 0.3", ["0.3,1.2"]),
        ("layer:1", ["1.0,1.1,1.2,1.3,1.4,1.5,1.6,1.7"]),
        ("top:2", ["2.6,2.7"]),
        ("above:0.9", ["2.6,2.7"]),
        ("each", [str(head) for head in all_heads(3, 8)]),
        ("all", [show(all_heads(3, 8))]),
    ],
)
def test_head_sets_are_parsed(text, sets):
    assert parse(text) == sets


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("9.0", r"there is no head 9\.0; this model has layers 0-2 with heads 0-7"),
        ("0.8", r"no head 0\.8"),
        ("layer:3", "layers 0-2"),
        ("1-2", r"'1-2' is not a head \(valid: LAYER\.HEAD"),
        ("", "'' is not a head"),
        ("0.1,,0.2", "'' is not a head"),
        ("0.1,0.1", "named twice"),
        ("top:0", "K is 1 to 24"),
        ("top:25", "K is 1 to 24"),
        ("top:x", "'x' is not a whole number"),
        ("above:high", "'high' is not a number"),
        ("above:0.99", r"no head scores that high \(the highest is 2\.7 with 0\.958\)"),
        ("layer:", "'' is not a whole number"),
        ("-1.0", "'-1.0' is not a head"),
        ("1.²", "is not a head"),
    ],
)
def test_wrong_heads_are_refused_in_one_line(text, message):
    with pytest.raises(UserError, match=message) as error:
        parse(text)
    assert "\n" not in str(error.value)


@given(st.sets(st.sampled_from(all_heads(3, 8)), min_size=1))
def test_what_is_shown_is_what_is_parsed(chosen):
    heads = head_set(chosen)
    assert parse_heads(show(heads), 3, 8) == [heads]


numbers = st.integers(0, 9).map(str) | st.sampled_from(
    ["mlp", "", "007", "-1", "1.5", "nan", "inf", "٣", "²", "9" * 30]
)
names = st.builds("{}.{}".format, numbers, numbers)
texts = (
    st.text(max_size=12)
    | st.builds("{}:{}".format, st.sampled_from(["top", "above", "layer", "each", ""]), numbers)
    | st.lists(names, max_size=4).map(",".join)
    | st.lists(st.sampled_from([*all_heads(3, 8), Head(1, MLP)]).map(str), max_size=4).map(" ,\n".join)
    | st.sampled_from(
        ["all", "each", "layers", "mlps", "embed", "all,0.1", "layer:1,0.1", "above:", "above:nan", "0.1:"]
    )
)


@given(texts)
@settings(derandomize=True, deadline=None, max_examples=300)
def test_any_text_is_parsed_or_refused_in_one_line_that_names_it(text):
    """And what is parsed is what its sets are called."""
    try:
        sets = parse_heads(text, 3, 8, SCORES.tolist)
    except UserError as error:
        message = str(error)
    else:
        for heads in sets:
            assert heads == head_set(heads) != ()
            assert {(one.layer in range(3), one.number in range(MLP, 8)) for one in heads} == {(True, True)}
            assert parse_heads(show(heads), 3, 8) == [heads]
        return
    assert len(message.splitlines()) == 1
    assert one_line(text) in message


def test_heads_sort_by_layer():
    assert head_set([Head(1, 0), Head(0, 7), Head(1, 0)]) == (Head(0, 7), Head(1, 0))


def test_an_mlp_of_a_model_without_any_is_refused():
    model = ModelConfig(2, 4, 32, 5, 8, d_mlp=0)
    refuse_absent_mlps([(Head(0, 1),)], model)
    refuse_absent_mlps([(Head(0, MLP),)], ModelConfig(2, 4, 32, 5, 8))
    with pytest.raises(UserError, match=r"there is no component 1\.mlp: this model has no MLPs"):
        refuse_absent_mlps([(Head(0, 1), Head(1, MLP))], model)

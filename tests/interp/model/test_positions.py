import pytest
import torch

from interp.model.positions import check_points, parse_points, parse_tokens, show_points
from training.common.errors import UserError
from training.tasks.prompts import Layout


def test_ranges_of_pairs():
    assert [show_points(one) for one in parse_points("0-3, 12-15,5")] == ["0-3", "12-15", "5"]


@pytest.mark.parametrize("text", ["", "3-1", "0-16", "a-b", "-3", "1-2-3", "0-3,0-3", "0-3,"])
def test_wrong_ranges_are_refused(text):
    with pytest.raises(UserError, match="points"):
        [check_points(one, 16) for one in parse_points(text)]


@pytest.mark.parametrize("layout", [Layout(), Layout(n_instruction=1), Layout(n_instruction=2, at=2)])
@pytest.mark.parametrize(
    ("text", "stream"), [("x", [0, 2, 4, 6]), ("y", [1, 3, 5]), ("y:1-2", [3, 5]), ("0-1", [0, 1, 2, 3])]
)
def test_tokens_are_those_of_the_layout(layout, text, stream):
    """`stream` counts tokens without instructions; the last y token is not needed."""
    mask = parse_tokens(text, layout, 4)
    shifted = [place + layout.n_instruction * (place >= layout.at) for place in stream]
    assert mask is not None
    assert torch.nonzero(mask).flatten().tolist() == shifted
    assert len(mask) == layout.n_needed(layout.n_tokens(4))


@pytest.mark.parametrize("text", ["", "z", "x:", "y:0-9", "xy:0-1", "4"])
def test_wrong_tokens_are_refused(text):
    with pytest.raises(UserError, match="tokens"):
        parse_tokens(text, Layout(), 4)

"""What each replacement gives, on a reference small enough to work out by hand."""

from dataclasses import replace

import pytest
import torch

from interp.ablation.modes import MODES, Mode, Reference, find_mode
from training.common.errors import UserError
from training.tasks.prompts import PLAIN, Layout

MEAN = torch.tensor([1.0, 10, 3, 30, 5])[None, :, None]  # x y x y x
STD = torch.tensor([1.0, 2, 3, 4, 5])[None, :, None]
PARTNER = torch.tensor([[1.0, 1, 1, 1, 1], [-1, 0, 1, 2, 3]])[..., None]


def given(name, layout=PLAIN, average=MEAN) -> list[list[float]]:
    """What is given in the first of two coordinates; the second is its negative."""
    mean, std = (torch.cat((one, -one), -1) for one in (average, STD))
    two = Reference(mean, std, torch.cat((PARTNER, PARTNER), -1), layout)
    kept = two.mean.clone()
    found = MODES[name].replacement(two)
    assert torch.equal(two.mean, kept), "the reference is not the replacement's to change"
    if name != "resample":
        assert torch.equal(found[..., 1], -found[..., 0])
    return found[..., 0].tolist()


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("zero", [[0, 0, 0, 0, 0]]),
        ("mean", [[1, 10, 3, 30, 5]]),
        ("mean:global", [[9.8] * 5]),
        ("mean:parity", [[3, 20, 3, 20, 3]]),
        ("resample", [[1, 1, 1, 1, 1], [-1, 0, 1, 2, 3]]),
        ("noise", [[2, 12, 6, 34, 10], [0, 10, 6, 38, 20]]),
        ("optimal", [[1, 10, 3, 30, 5]]),  # where its fit starts
    ],
)
def test_a_replacement_is_what_its_definition_says(name, wanted):
    assert given(name) == [pytest.approx(row) for row in wanted]


def test_an_instruction_is_no_x_and_no_y():
    told = torch.full((1, 1, 1), 100.0)
    in_front, within = torch.cat((told, MEAN), 1), torch.cat((MEAN[:, :2], told, MEAN[:, 2:]), 1)
    assert given("mean:parity", Layout(1), in_front) == [pytest.approx([100, 3, 20, 3, 20, 3])]
    assert given("mean:parity", Layout(1, at=2), within) == [pytest.approx([3, 20, 100, 3, 20, 3])]


def test_partners_are_those_of_the_names():
    partners = {name: one.partner for name, one in MODES.items() if one.partner}
    resampled = {"resample": "other"} | {f"resample:{kind}": kind for kind in ("function", "class", "inputs")}
    assert partners == resampled | {"noise": "noise"}
    assert [name for name, one in MODES.items() if one.fitted] == ["optimal"]


def test_a_mode_is_found_by_its_name_and_is_itself():
    own = replace(MODES["zero"], name="own")
    assert find_mode("mean:parity") is MODES["mean:parity"]
    assert find_mode(own) is own
    assert isinstance(find_mode("zero"), Mode)
    message = r"unknown modes 'median': did you mean 'mean'\? \(valid: zero, mean, mean:global, "
    with pytest.raises(UserError, match=message):
        find_mode("median")

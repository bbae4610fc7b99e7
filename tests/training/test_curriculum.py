from collections import Counter

import pytest
import torch

from training.curriculum import Curriculum, block_of, parse_curriculum
from training.errors import UserError

CLASSES = ("linear", "quadratic", "cubic")
PAPER_STEPS = 500_001


def test_blocks_of_the_paper_have_the_papers_sizes():
    first_of_block = [0, 166_668, 333_335]
    assert [block_of(step, PAPER_STEPS, 3) for step in first_of_block] == [0, 1, 2]
    assert [block_of(step - 1, PAPER_STEPS, 3) for step in [*first_of_block[1:], PAPER_STEPS]] == [0, 1, 2]
    assert [166_668 - 0, 333_335 - 166_668, PAPER_STEPS - 333_335] == [166_668, 166_667, 166_666]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("mixed", [[1, 0, 0], [1 / 2, 1 / 2, 0], [1 / 3, 1 / 3, 1 / 3]]),
        ("sequential", [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
        ("random", [[1 / 3, 1 / 3, 1 / 3]] * 3),
    ],
)
def test_probabilities_by_block(kind, expected):
    curriculum = Curriculum(kind, CLASSES, PAPER_STEPS)
    assert [curriculum.probabilities(step) for step in (166_667, 333_334, 500_000)] == expected


def test_expected_steps_per_class_under_mixed_are_the_papers():
    curriculum = Curriculum("mixed", CLASSES, 3000)
    expected = [sum(curriculum.probabilities(step)[c] for step in range(3000)) for c in range(3)]
    assert expected == pytest.approx([1000 * 11 / 6, 1000 * 5 / 6, 1000 / 3], rel=2e-3)


def test_choices_follow_the_probabilities_and_the_seed():
    curriculum = Curriculum("random", CLASSES, 30_000)
    first, again = torch.Generator().manual_seed(5), torch.Generator().manual_seed(5)
    draws = [curriculum.choose(step, first) for step in range(30_000)]
    assert draws == [curriculum.choose(step, again) for step in range(30_000)]
    assert all(abs(count - 10_000) < 5 * (30_000 * 2 / 9) ** 0.5 for count in Counter(draws).values())


def test_task_choice_consumes_one_draw_per_step_whatever_the_curriculum():
    states = []
    for kind in ("mixed", "sequential", "random"):
        generator = torch.Generator().manual_seed(0)
        for step in range(10):
            Curriculum(kind, CLASSES, 10).choose(step, generator)
        states.append(generator.get_state())
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], states[2])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("spiral", r"curriculum 'spiral' \(valid: mixed, sequential, random, single:CLASS\)"),
        ("single:sine", "function class 'sine'"),
        ("single", "names no class"),
    ],
)
def test_unknown_curriculum_is_refused(name, message):
    with pytest.raises(UserError, match=message):
        parse_curriculum(name, CLASSES, 10)

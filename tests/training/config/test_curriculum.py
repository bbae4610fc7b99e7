import math
from collections import Counter

import pytest
import torch

from training.common.errors import UserError
from training.config.curriculum import Arm, Curriculum, Schedule, curriculum, draw, parse_curriculum

CLASSES = ("linear", "quadratic", "cubic")
PAPER_STEPS = 500_001


def test_blocks_of_the_paper_have_the_papers_sizes():
    paper = curriculum("mixed", CLASSES, PAPER_STEPS)
    first_of_block = [0, 166_668, 333_335]
    assert [paper.block_of(step) for step in first_of_block] == [0, 1, 2]
    assert [paper.block_of(step - 1) for step in [*first_of_block[1:], PAPER_STEPS]] == [0, 1, 2]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("mixed", [(1, 0, 0), (1 / 2, 1 / 2, 0), (1 / 3, 1 / 3, 1 / 3)]),
        ("sequential", [(1, 0, 0), (0, 1, 0), (0, 0, 1)]),
        ("random", [(1 / 3, 1 / 3, 1 / 3)] * 3),
    ],
)
def test_probabilities_by_block(kind, expected):
    of_kind = curriculum(kind, CLASSES, PAPER_STEPS)
    assert [of_kind.probabilities(step) for step in (166_667, 333_334, 500_000)] == expected


def test_expected_steps_per_class_under_mixed_are_the_papers():
    mixed = curriculum("mixed", CLASSES, 3000)
    expected = [sum(mixed.probabilities(step)[c] for step in range(3000)) for c in range(3)]
    assert expected == pytest.approx([1000 * 11 / 6, 1000 * 5 / 6, 1000 / 3], rel=2e-3)


def test_choices_follow_the_probabilities_and_the_seed():
    first, again = torch.Generator().manual_seed(5), torch.Generator().manual_seed(5)
    chances = (0.5, 0.2, 0.3)
    draws = [draw(CLASSES, chances, first) for _ in range(30_000)]
    assert draws == [draw(CLASSES, chances, again) for _ in range(30_000)]
    counts = Counter(draws)
    for name, chance in zip(CLASSES, chances, strict=True):
        assert abs(counts[name] - 30_000 * chance) < 5 * (30_000 * chance * (1 - chance)) ** 0.5


def test_a_name_is_drawn_where_its_chance_begins():
    """The stream of every run that is kept hangs on it: one double from the generator, below the sum of chances."""
    for seed in range(20):
        uniform = torch.rand((), generator=torch.Generator().manual_seed(seed), dtype=torch.float64).item()
        for first, name in ((uniform, "cubic"), (math.nextafter(uniform, 1), "linear")):
            generator = torch.Generator().manual_seed(seed)
            assert draw(("linear", "cubic"), (first, 1 - first), generator) == name


def test_a_sum_of_chances_just_below_one_leaves_the_last_name_that_has_any(generator):
    assert draw((*CLASSES, "other"), (1e-12, 1e-12, 1e-12, 0.0), generator) == "cubic"


def test_task_choice_consumes_one_draw_per_step_whatever_the_curriculum():
    states = []
    for kind in ("mixed", "sequential", "random"):
        generator = torch.Generator().manual_seed(0)
        for step in range(10):
            Schedule(curriculum(kind, CLASSES, 10), "random", ("gaussian",)).choose(step, generator)
        states.append(generator.get_state())
    assert torch.equal(states[0], states[1])
    assert torch.equal(states[0], states[2])


def test_custom_edges_move_the_blocks():
    of_two = parse_curriculum("sequential", CLASSES, 100, edges=(9, 59))
    assert [of_two.block_of(step) for step in (0, 9, 10, 59, 60, 99)] == [0, 0, 1, 1, 2, 2]


def test_equal_blocks_end_at_whole_steps_and_a_step_beyond_the_run_is_of_the_last_one():
    thirds = curriculum("sequential", CLASSES, 100)
    assert thirds.edges == (34, 67, 100)
    assert all(isinstance(edge, int) for edge in thirds.edges)
    assert thirds.block_of(101) == 2


def test_a_first_block_may_be_one_step():
    assert parse_curriculum("sequential", CLASSES, 100, edges=(0, 59)).probabilities(1) == (0, 1, 0)


def test_custom_probabilities_are_taken_as_they_are():
    custom = parse_curriculum("custom", CLASSES, 90, probabilities=((1.0, 0.0, 0.0), (0.2, 0.8, 0.0)))
    assert [custom.probabilities(step) for step in (0, 45, 46, 89)] == [
        (1, 0, 0),
        (1, 0, 0),
        (0.2, 0.8, 0),
        (0.2, 0.8, 0),
    ]
    assert custom.reached == ("linear", "quadratic")


def test_one_class_alone_has_every_step_whatever_the_others_are():
    alone = parse_curriculum("single:cubic", CLASSES, 90)
    assert alone == Curriculum(("cubic",), ((1.0,),), (90,))
    assert parse_curriculum("random", CLASSES, 90) == Curriculum(CLASSES, ((1 / 3, 1 / 3, 1 / 3),), (90,))


def test_custom_blocks_end_at_custom_edges():
    blocks = ((1.0, 0.0, 0.0), (0.0, 0.5, 0.5))
    assert parse_curriculum("custom", CLASSES, 90, (9,), blocks) == Curriculum(CLASSES, blocks, (9, 90))


INPUTS = ("gaussian", "skewed", "student_t:4")


def test_both_curricula_at_once_reach_every_pair_in_its_own_block():
    """The authors' code shows only the third distribution in the third block of classes (paper.md, section 4.2)."""
    sequential = curriculum("sequential", CLASSES, 900)
    schedule = Schedule(sequential, "sequential", INPUTS, within_blocks=True)
    generator = torch.Generator().manual_seed(0)
    arms = [schedule.choose(step, generator) for step in range(900)]
    in_order = list(dict.fromkeys(arms))
    assert in_order == [Arm(name, inputs) for name in CLASSES for inputs in INPUTS]
    assert all(abs(count - 100) <= 2 for count in Counter(arms).values())


def test_inputs_over_the_whole_run_change_once_per_third():
    schedule = Schedule(curriculum("random", CLASSES, 900), "sequential", INPUTS)
    assert [schedule.input_probabilities(step).index(1) for step in (0, 300, 301, 600, 601, 899)] == [0, 0, 1, 1, 2, 2]


def starts(schedule: Schedule, steps: int) -> list[int]:
    """The steps at which the inputs change."""
    chances = [schedule.input_probabilities(step) for step in range(steps + 1)]
    return [step for step in range(1, steps + 1) if chances[step] != chances[step - 1]]


def test_inputs_change_at_thirds_of_the_run_or_of_the_block():
    """Blocks of classes end at 304, 606 and 910; a third that does not divide gives what remains to the first."""
    classes = parse_curriculum("sequential", CLASSES, 910, edges=(304, 606))
    assert starts(Schedule(classes, "sequential", INPUTS), 910) == [305, 608]
    within = Schedule(classes, "sequential", INPUTS, within_blocks=True)
    assert starts(within, 910) == [103, 204, 305, 407, 507, 607, 709, 810]


def test_choices_come_from_the_given_stream_alone():
    one, both = (Schedule(curriculum("mixed", CLASSES, 90), "random", inputs) for inputs in (INPUTS[:1], INPUTS))
    before = torch.get_rng_state()
    first, again = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    for schedule in (one, both):
        assert [schedule.choose(80, first) for _ in range(30)] == [schedule.choose(80, again) for _ in range(30)]
        assert schedule.counts(80, 30, first) == schedule.counts(80, 30, again)
    assert torch.equal(before, torch.get_rng_state())
    assert one.choose(0, first) == Arm("linear", "gaussian")


def test_mixed_inputs_within_a_block_start_again_in_the_next():
    schedule = Schedule(curriculum("sequential", CLASSES, 900), "mixed", INPUTS, within_blocks=True)
    assert schedule.input_probabilities(299) == (1 / 3, 1 / 3, 1 / 3)
    assert schedule.input_probabilities(301) == (1, 0, 0)


def test_a_mixed_batch_holds_every_open_arm_in_proportion():
    schedule = Schedule(curriculum("mixed", CLASSES, 900), "random", ("gaussian", "uniform"))
    counts = schedule.counts(450, 8000, torch.Generator().manual_seed(1))
    assert sum(counts.values()) == 8000
    assert {arm.function_class for arm in counts} == {"linear", "quadratic"}
    assert all(abs(count - 2000) < 5 * (8000 * 3 / 16) ** 0.5 for count in counts.values())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("spiral", {}, r"curriculum 'spiral' \(valid: mixed, sequential, random, single:CLASS, custom\)"),
        ("single", {}, r"curriculum 'single' names no class \(for example single:linear\)"),
        ("single:cubic", {"edges": (5,)}, "0 rising steps below 9"),
        ("custom", {}, "^curriculum custom and schedule.probabilities need each other$"),
        ("mixed", {"probabilities": ((1.0, 0.0, 0.0),)}, "need each other"),
        ("custom", {"probabilities": ((0.5, 0.6, 0.0),)}, r"3 chances .* \(linear, quadratic, cubic\)"),
        ("custom", {"probabilities": ((0.5, 0.5),)}, "3 chances that sum to 1"),
        ("mixed", {"edges": (5,)}, "2 rising steps below 9"),
        ("mixed", {"edges": (5, 3)}, "2 rising steps below 9 are needed, one per block but the last$"),
        ("mixed", {"edges": (-1, 3)}, "2 rising steps"),
        ("mixed", {"edges": (5, 9)}, "2 rising steps"),
    ],
)
def test_what_is_no_curriculum_is_refused(name, options, message):
    with pytest.raises(UserError, match=message):
        parse_curriculum(name, CLASSES, 10, **options)

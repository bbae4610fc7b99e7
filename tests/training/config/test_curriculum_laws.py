"""What holds of every curriculum: what may be chosen when, how often, and that nothing else decides."""

from collections import Counter
from itertools import accumulate

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from training.config.curriculum import Arm, Schedule, block_edges, parse_curriculum
from training.config.parse import from_preset

CLASSES = ("linear", "quadratic", "cubic", "relu")
INPUTS = ("gaussian", "skewed", "uniform")
FALSE_ALARM = 1e-6  # of one count; all draws are seeded

laws = settings(derandomize=True, deadline=None, max_examples=80)


@st.composite
def chances(draw, n: int) -> tuple[float, ...]:
    parts = draw(st.lists(st.sampled_from([0, 1, 2, 9]), min_size=n, max_size=n).filter(any))
    return tuple(part / sum(parts) for part in parts)


@st.composite
def curricula(draw):
    """(name, classes, steps, the last step of every block but the last or nothing, blocks of a custom one)."""
    name = draw(st.sampled_from(["mixed", "sequential", "random", "single:cubic", "custom"]))
    classes = CLASSES[: draw(st.integers(1, 4))]
    steps = draw(st.integers(1, 120))
    blocks = tuple(draw(st.lists(chances(len(classes)), min_size=1, max_size=4))) if name == "custom" else ()
    n_blocks = {"mixed": len(classes), "sequential": len(classes), "custom": len(blocks)}.get(name, 1)
    edges = ()
    if 1 < n_blocks <= steps and draw(st.booleans()):
        inner = st.lists(st.integers(0, steps - 2), min_size=n_blocks - 1, max_size=n_blocks - 1, unique=True)
        edges = tuple(sorted(draw(inner)))
    return name, classes, steps, edges, blocks


def block_at(step: int, edges, n_blocks: int, steps: int) -> int:
    """How many blocks have ended before this step: edges are inclusive, the first blocks take what remains."""
    lengths = [steps // n_blocks + (block < steps % n_blocks) for block in range(n_blocks)]
    return sum(step > edge for edge in edges or [*accumulate(lengths)][:-1])


def wanted(name: str, classes, blocks, block: int) -> dict[str, float]:
    """The chances that a curriculum's definition gives (arXiv 2404.03558)."""
    if name == "custom":
        return {one: chance for one, chance in zip(classes, blocks[block], strict=True) if chance}
    if name.startswith("single:"):
        return {name.removeprefix("single:"): 1.0}
    some = {"mixed": classes[: block + 1], "sequential": classes[block : block + 1], "random": classes}[name]
    return dict.fromkeys(some, 1 / len(some))


def chances_at(curriculum, step: int) -> dict[str, float]:
    found = zip(curriculum.names, curriculum.probabilities(step), strict=True)
    return {name: chance for name, chance in found if chance}


@given(curricula())
@laws
def test_every_step_has_the_chances_of_its_block(made):
    curriculum, (name, classes, steps, edges, blocks) = parse_curriculum(*made), made
    n_blocks = len(curriculum.blocks)
    for step in range(steps):
        expected = wanted(name, classes, blocks, block_at(step, edges, n_blocks, steps))
        assert chances_at(curriculum, step) == pytest.approx(expected)


@given(curricula())
@laws
def test_a_run_trains_on_what_some_step_may_choose_and_on_nothing_else(made):
    """Also in a run that is shorter than its curriculum."""
    curriculum, steps = parse_curriculum(*made), made[2]
    chosen = {name for step in range(steps) for name in chances_at(curriculum, step)}
    assert {*curriculum.reached} == chosen
    assert list(curriculum.reached) == [name for name in curriculum.names if name in chosen]


def test_a_run_that_ends_before_a_class_comes_does_not_claim_it():
    assert from_preset("tiny", "mixed", 0, ["recipe.steps=3"]).trained_classes == ("linear", "quadratic")
    assert from_preset("tiny", "mixed", 0, ["recipe.steps=6"]).trained_classes == ("linear", "quadratic", "cubic")


@given(steps=st.integers(1, 10**7), n=st.integers(1, 40))
@laws
def test_equal_blocks_are_equal(steps, n):
    """Within one step, in order, and together the run."""
    edges = block_edges(steps, n)
    sizes = [edge - before for before, edge in zip([0, *edges], edges, strict=False)]
    assert edges[-1] == sum(sizes) == steps
    assert set(sizes) <= {steps // n, steps // n + 1}


def create_schedule(num_tasks: int, train_steps: int) -> list[int]:
    """That of the authors' train.py at 1c896e3, as it stands there."""
    steps_per_task = train_steps // num_tasks
    remaining_steps = train_steps % num_tasks
    task_intervals = [steps_per_task] * num_tasks
    for i in range(remaining_steps):
        task_intervals[i] += 1
    return [sum(task_intervals[: i + 1]) for i in range(num_tasks)]


@given(steps=st.integers(1, 10**6), n=st.integers(1, 40))
@laws
def test_equal_blocks_end_where_those_of_the_authors_do(steps, n):
    assert block_edges(steps, n) == create_schedule(n, steps)


schedules = st.tuples(curricula(), st.sampled_from(["mixed", "sequential", "random"]), st.integers(1, 3), st.booleans())


def schedule_of(made) -> tuple[Schedule, int]:
    arguments, kind, n_inputs, within = made
    return Schedule(parse_curriculum(*arguments), kind, INPUTS[:n_inputs], within), arguments[2]


@given(schedules)
@laws
def test_inputs_have_a_curriculum_of_their_own_over_the_run_or_within_every_block(made):
    schedule, steps = schedule_of(made)
    (*_, edges, _), kind, n, within = made
    ends = [*(edges or block_edges(steps, len(schedule.classes.blocks))[:-1]), steps]
    for step in range(steps):
        block = block_at(step, edges, len(ends), steps) if within else len(ends) - 1
        first = ends[block - 1] + 1 if within and block else 0
        expected = wanted(
            kind, INPUTS[:n], (), block_at(step - first, (), 1 if kind == "random" else n, ends[block] - first)
        )
        found = zip(schedule.inputs, schedule.input_probabilities(step), strict=True)
        assert {one: chance for one, chance in found if chance} == pytest.approx(expected)


@given(made=schedules, place=st.floats(0, 0.999), seed=st.integers(0, 99))
@settings(laws, max_examples=60)
def test_arms_are_chosen_as_often_as_they_should_be(made, place, seed):
    """Class and inputs independently, prompt by prompt; what has no chance never."""
    schedule, steps = schedule_of(made)
    step, n = int(place * steps), 400
    counts = schedule.counts(step, n, torch.Generator().manual_seed(seed))
    inputs = dict(zip(schedule.inputs, schedule.input_probabilities(step), strict=True))
    assert sum(inputs.values()) == pytest.approx(1)
    assert sum(counts.values()) == n
    expected = {
        Arm(name, one): chance * part
        for name, chance in chances_at(schedule.classes, step).items()
        for one, part in inputs.items()
        if part
    }
    assert set(counts) <= set(expected)
    for arm, chance in expected.items():
        low, high = binom.ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2], n, min(chance, 1.0))
        assert low <= counts.get(arm, 0) <= high


@given(made=schedules, other=schedules, seed=st.integers(0, 99))
@settings(laws, max_examples=40)
def test_where_two_curricula_give_the_same_chances_they_choose_alike(made, other, seed):
    """Whatever came before: every step takes as many random numbers as any other, with as many input distributions."""
    (one, steps), (two, other_steps) = schedule_of(made), schedule_of(other)
    if (len(one.inputs) == 1) != (len(two.inputs) == 1):
        return
    generators = [torch.Generator().manual_seed(seed) for _ in range(2)]
    for step in range(min(steps, other_steps)):
        arms = [schedule.choose(step, own) for schedule, own in zip((one, two), generators, strict=True)]
        classes = [(schedule.classes.names, schedule.classes.probabilities(step)) for schedule in (one, two)]
        if classes[0] == classes[1]:
            assert arms[0].function_class == arms[1].function_class
        inputs = [(schedule.inputs, schedule.input_probabilities(step)) for schedule in (one, two)]
        if inputs[0] == inputs[1]:
            assert arms[0].inputs == arms[1].inputs
    assert torch.equal(*(own.get_state() for own in generators))


@given(made=schedules, seed=st.integers(0, 99), n_first=st.integers(0, 60))
@settings(laws, max_examples=40)
def test_a_sequence_is_the_same_in_one_go_in_two_and_after_any_question(made, seed, n_first):
    """As after an interruption, with the generator's state; asking for chances takes nothing from it."""
    schedule, steps = schedule_of(made)
    whole = torch.Generator().manual_seed(seed)
    arms = [schedule.choose(step, whole) for step in range(steps)]
    cut, later = torch.Generator().manual_seed(seed), torch.Generator()
    parts = [schedule.choose(step, cut) for step in range(min(n_first, steps))]
    for step in reversed(range(steps)):
        assert schedule.input_probabilities(step)
        assert schedule.classes.probabilities(step)
    later.set_state(cut.get_state())
    again, _ = schedule_of(made)
    parts += [again.choose(step, later) for step in range(len(parts), steps)]
    assert parts == arms
    assert {arm.function_class for arm in arms} <= {*schedule.classes.reached}
    assert Counter(arms).total() == steps

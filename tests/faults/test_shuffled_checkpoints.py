"""Accidents that leave files readable: values, keys, lines and whole files changed, swapped, lost, doubled, renamed.

test_damaged_checkpoints.py changes bytes. Here too everything that is read is what was written, or is refused; and
every reading is looked at on its own, since a command may make only one of them.
"""

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from damage import CONFIG, HISTORY, RESUME, SNAPSHOT, WEIGHTS

from training.checkpoints.checkpoint import load, read_config, read_history, saved_step, snapshot_steps
from training.common.errors import UserError
from training.evaluation.convergence import convergence
from training.loop.state import restore
from training.loop.trainer import train

Damage = Callable[[Path, random.Random], object]
ODD = [None, True, False, 0, 1, -1, 2, 60, 0.5, 1e300, float("nan"), 10**30, "", "linear", "60", [], [1], {}, {"a": 1}]


def places(value: Any, way: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The way to every value inside a JSON document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([way] if way else []), *(place for key, one in inner for place in places(one, (*way, key)))]


def at(document: Any, way: tuple[str | int, ...]) -> Any:
    for key in way:
        document = document[key]
    return document


def odd_value(document: Any, rng: random.Random) -> None:
    *way, last = rng.choice(places(document))
    at(document, tuple(way))[last] = rng.choice(ODD)


def near_value(document: Any, rng: random.Random) -> None:
    """A number that is another one, as a slip of the finger leaves it."""
    numbers = [place for place in places(document) if type(at(document, place)) in (int, float)]
    *way, last = rng.choice(numbers)
    table = at(document, tuple(way))
    table[last] = rng.choice([table[last] + 1, table[last] * 2, table[last] / 3, -table[last], str(table[last])])


def swapped_values(document: Any, rng: random.Random) -> None:
    (*one, a), (*other, b) = rng.choices(places(document), k=2)
    first, second = at(document, tuple(one)), at(document, tuple(other))
    first[a], second[b] = json.loads(json.dumps([second[b], first[a]]))


def lost_or_renamed(document: Any, rng: random.Random) -> None:
    *way, last = rng.choice(places(document))
    value, table = at(document, (*way, last)), at(document, tuple(way))
    del table[last]
    if rng.random() < 0.5 and isinstance(table, dict):
        table[rng.choice([f"{last}s", str(last).upper(), "steps", "lr"])] = value


VALUES = [odd_value, near_value, swapped_values, lost_or_renamed]


def edit_json(text: str, rng: random.Random) -> str:
    """One accident to a JSON text; a key that stands twice is one, too."""
    document = json.loads(text)
    if rng.random() < 0.1:
        key, value = rng.choice(list(document.items()))
        return text.replace("{", "{" + f"{json.dumps(key)}: {json.dumps(rng.choice([value, *ODD]))},", 1)
    try:
        rng.choice(VALUES)(document, rng)
    except (TypeError, KeyError, IndexError):  # swapped with a part of itself
        return text
    return json.dumps(document)


def config_value(run: Path, rng: random.Random) -> None:
    (run / CONFIG).write_text(edit_json((run / CONFIG).read_text(), rng))


def history_value(run: Path, rng: random.Random) -> None:
    lines = (run / HISTORY).read_text().splitlines()
    place = rng.randrange(len(lines))
    lines[place] = edit_json(lines[place], rng)
    (run / HISTORY).write_text("".join(f"{line}\n" for line in lines))


def history_lines(run: Path, rng: random.Random) -> None:
    """Lines doubled, lost or moved."""
    lines = (run / HISTORY).read_text().splitlines(True)
    start, stop = sorted(rng.sample(range(len(lines) + 1), 2))
    block, rest = lines[start:stop], lines[:start] + lines[stop:]
    place = rng.randrange(len(rest) + 1)
    (run / HISTORY).write_text(
        "".join(rng.choice([rest, lines[:stop] + lines[start:], rest[:place] + block + rest[place:]]))
    )


def files_of(run: Path) -> list[Path]:
    return sorted(path for path in run.rglob("*") if path.is_file())


def swapped_files(run: Path, rng: random.Random) -> None:
    one, other = rng.sample(files_of(run), 2)
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def lost_file(run: Path, rng: random.Random) -> None:
    rng.choice(files_of(run)).unlink()


def copied_file(run: Path, rng: random.Random) -> None:
    """In another's place, or under a name that there was not."""
    source, target = rng.sample(files_of(run), 2)
    names = [target.name, "step-000020.safetensors", "step-14.safetensors", f"{target.name}.bak"]
    shutil.copy(source, target.with_name(rng.choice(names)))


def renamed_file(run: Path, rng: random.Random) -> None:
    path = rng.choice(files_of(run))
    path.rename(path.with_name(rng.choice(["step-000020.safetensors", "step-000014.safetensors", path.name.upper()])))


def emptied_directory(run: Path, rng: random.Random) -> None:
    directory = rng.choice([path for path in run.rglob("*") if path.is_dir()])
    shutil.rmtree(directory)
    if rng.random() < 0.5:
        directory.write_bytes(b"")


def foreign_file(other: Path) -> Damage:
    """A file of another run of the same shape in the place of this one's."""

    def damage(run: Path, rng: random.Random) -> None:
        path = rng.choice(files_of(other))
        (run / path.relative_to(other)).parent.mkdir(exist_ok=True)
        shutil.copy(path, run / path.relative_to(other))

    return damage


@dataclass(frozen=True)
class Truth:
    """What an undamaged run says."""

    run: Path

    @cached_property
    def weights(self) -> dict[int, dict[str, torch.Tensor]]:
        names = [str(self.run), *(f"{self.run}@{step}" for step in snapshot_steps(self.run))]
        return {one.step: one.model.state_dict() for one in map(load, names)}

    @cached_property
    def config(self):
        return read_config(self.run)

    def check_weights(self, name: str, step: int | None) -> None:
        """Weights of this run, of the step that they say."""
        found = load(name)
        assert found.config == self.config
        assert step in (None, found.step)
        for key, tensor in found.model.state_dict().items():
            assert torch.equal(tensor, self.weights[found.step][key])

    def check_history(self, run: Path) -> None:
        """The errors of this run at the step of the weights."""
        found = convergence(run)
        last = saved_step(run / WEIGHTS)
        rows = [row for row in read_history(self.run) if row["step"] <= last]
        for row in found.to_dict("records"):
            (own,) = [
                one
                for one in rows
                if (one["function_class"], one["inputs"]) == (row["function_class"], row["inputs"])
                and one["step"] == max(other["step"] for other in rows)
            ]
            assert [row[key] for key in ("nmse", "nmse_tail", "no_context_tail")] == [
                own[key] for key in ("nmse", "nmse_tail", "no_context_tail")
            ]

    def n_refused(self, run: Path) -> int:
        """How many of three readings were refused; the others are right."""
        readings = [
            lambda: self.check_weights(str(run), None),
            lambda: self.check_weights(f"{run}@14", 14),
            lambda: self.check_history(run),
        ]
        return sum(refuses(reading) for reading in readings)


def refuses(reading: Callable[[], object]) -> bool:
    try:
        reading()
    except UserError as error:
        message = str(error)
    else:
        return False
    assert message
    assert len(message.splitlines()) == 1
    return True


def again(run: Path, whole: Path) -> None:
    shutil.rmtree(run)
    shutil.copytree(whole, run)


DAMAGES = [
    config_value,
    history_value,
    history_lines,
    swapped_files,
    lost_file,
    copied_file,
    renamed_file,
    emptied_directory,
]


def count_refused(run: Path, whole: Path, other: Path, n: int) -> int:
    """How many of so many accidents made some reading a refusal."""
    rng, truth, refused = random.Random(n), Truth(whole), 0
    for _ in range(n):
        rng.choice([*DAMAGES, foreign_file(other)])(run, rng)
        refused += truth.n_refused(run) > 0
        again(run, whole)
    return refused


def test_the_truth_is_read(whole_run):
    truth = Truth(whole_run)
    assert truth.n_refused(whole_run) == 0
    assert {0, 14, 60} <= set(truth.weights)


@pytest.mark.slow
def test_nothing_that_is_moved_or_changed_is_read_as_something_else(copied, whole_run, other_run):
    assert count_refused(copied(whole_run), whole_run, other_run, 80) > 40


@pytest.mark.slow
def test_nothing_among_thousands_that_is_moved_or_changed_is_read_as_something_else(copied, whole_run, other_run):
    assert count_refused(copied(whole_run), whole_run, other_run, 4000) > 2000


def test_the_history_of_another_run_is_refused(copied, whole_run, other_run):
    """Of the same classes and steps, with rows that are whole."""
    run = copied(whole_run)
    shutil.copy(other_run / HISTORY, run)
    with pytest.raises(UserError, match=r"history\.jsonl is of another run than the one that config\.json describes"):
        convergence(run)


def state_of(config, run: Path) -> dict[str, Any] | None:
    """What a resumed run would go on from; None for a run that would start from step 0."""
    state = restore(config, run, "cpu")
    if state is None:
        return None
    counters = {name: getattr(state, name) for name in ("step", "flops", "prompts_seen", "losses")}
    rng = {"data": state.data.get_state(), "task": state.task.get_state()}
    return {**counters, **rng, **state.model.state_dict(), **state.optimizer.tensors()}


def same_state(found: dict[str, Any], truth: dict[str, Any]) -> bool:
    return found.keys() == truth.keys() and all(
        torch.equal(one, truth[key]) if isinstance(one, torch.Tensor) else one == truth[key]
        for key, one in found.items()
    )


def restore_accidents(run: Path, cut_run: Path, config, n: int) -> int:
    """How many of so many accidents to an interrupted run are refused; from the others it goes on as it was."""
    rng, truth, refused = random.Random(n), state_of(config, cut_run), 0
    assert truth is not None
    for _ in range(n):
        rng.choice(DAMAGES)(run, rng)

        def reading() -> None:
            found = state_of(config, run)
            assert found is None or same_state(found, truth)
            assert (found is None) == (not (run / RESUME).exists())

        refused += refuses(reading)
        again(run, cut_run)
    return refused


def test_a_run_goes_on_from_what_it_saved_or_not_at_all(copied, cut_run, run_config):
    assert restore_accidents(copied(cut_run), cut_run, run_config, 60) > 15


@pytest.mark.slow
def test_a_run_goes_on_from_what_it_saved_or_not_at_all_after_thousands_of_accidents(copied, cut_run, run_config):
    assert restore_accidents(copied(cut_run), cut_run, run_config, 2000) > 500


def test_a_resumed_history_is_of_its_run(copied, cut_run, other_run, run_config):
    run = copied(cut_run)
    shutil.copy(other_run / HISTORY, run)
    with pytest.raises(UserError, match=r"is of another run .* \(start again with --force\)$"):
        train(run_config, run, resume=True, progress=False)
    assert (run / SNAPSHOT).exists()

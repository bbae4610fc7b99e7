"""Sweep files that nobody would write: every one of them is a plan, or is refused in one line."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from damage import mutated
from hypothesis import given, settings
from hypothesis import strategies as st

from analyses.sweep.commands import planned
from analyses.sweep.plan import Cell, plan
from analyses.sweep.settings import parsed, read
from training.common.errors import UserError
from training.config.parse import from_preset, settable_keys

fuzz = settings(derandomize=True, deadline=None, max_examples=150)

FILE = """
out = "grid"
ckpt = ["zoo:mixed-[01]", "zoo:cubic-0"]

[train]
preset = "tiny"
curriculum = ["mixed", "single:linear"]
seeds = "0-1"
set = { model.n_heads = [4, 8], recipe.steps = 3000, data.classes = "linear,cubic" }

[[analyse]]
command = "ablate --heads top:1"
on = "mixed-*"
steps = [3000]
set = { mode = ["mean", "zero"], classes = "linear" }

[[study]]
command = "study cause"
name = "heads"
"""

scalars = (
    st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=6)
    | st.dates()
    | st.sampled_from(
        ["0-3", "3,1", "..", ".", "*", "[", "zoo:mixed-0", "mixed", "tiny", "linear", "all", "\0", "--", "'"]
    )
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2)
)


def mostly(fit, other=values):
    """Seven times of eight what fits."""
    return st.integers(0, 7).flatmap(lambda draw: other if draw == 7 else fit)


def table(known: dict[str, Any]):
    """Some of these keys, each with what may stand there or with anything; perhaps one that is unknown."""
    some = st.fixed_dictionaries({}, optional={key: mostly(st.sampled_from(fit)) for key, fit in known.items()})
    return st.builds(
        lambda one, more: one | more, some, mostly(st.just({}), st.dictionaries(st.text(max_size=4), values))
    )


setting_tables = st.dictionaries(st.sampled_from(settable_keys()), scalars | st.lists(scalars, max_size=3), max_size=2)
about = {"name": ["one", "two"], "on": ["*", "mixed-*"], "steps": ["all", [3000]]}
commands = ["score", "ablate --heads 0.1", "eval", "lens", "score --prompts 64", "train", "study cause", "history"]
options = [{"prompts": 64}, {"classes": ["linear", "cubic"]}, {"ckpt": 1}, {"mode": "mean"}, {"help": 1}]
trains = table(
    {
        "preset": ["tiny", ["tiny", "small"]],
        "recipe": ["fast"],
        "curriculum": ["mixed", "custom", ["random", "sequential"]],
        "seeds": [0, "0-2", [1, 2]],
        "device": ["cpu"],
        "set": [{"recipe.lr": [0.1, 0.2]}, {"recipe": {"lr": 1}, "recipe.lr": 2}],
    }
)
analyses = table({"command": commands, "set": options, **about}).map(lambda one: {"command": "score"} | one)
studies = table({"command": commands, "name": about["name"], "on": about["on"]}).map(
    lambda one: {"command": "study cause"} | one
)
documents = st.fixed_dictionaries(
    {
        "out": mostly(st.sampled_from(["grid", "a/b", ".."])),
        "train": st.one_of(trains, setting_tables.map(lambda one: {"set": one}), st.lists(trains, max_size=2)),
    },
    optional={
        "ckpt": mostly(st.just(["zoo:mixed-*"])),
        "analyse": mostly(st.lists(analyses, max_size=2)),
        "study": mostly(studies),
    },
)


def attempted(make: Callable[[], tuple[str, list[Cell]]]) -> tuple[str, list[Cell]] | None:
    """What is made; None where it is refused, for which one line has to do."""
    try:
        return make()
    except UserError as error:
        message = str(error)
    assert message
    assert len(message.splitlines()) == 1
    return None


def check_cells(cells: list[Cell], root: Path, out: str) -> None:
    """They lie apart, in the sweep's own directory, can be started, and are the runs that their commands make."""
    places = [(root / out / cell.name).resolve() for cell in cells]
    assert len(set(places)) == len(places)
    assert all((root / out).resolve() in place.parents for place in places)
    assert not any("\0" in word for cell in cells for word in cell.task.arguments)
    for cell in (one for one in cells if one.config):
        words = list(cell.arguments)
        given = {
            name: words[words.index(name) + 1]
            for name in ("--preset", "--curriculum", "--seed", "--recipe")
            if name in words
        }
        changed = [word.removeprefix("--set=") for word in words if word.startswith("--set=")]
        seed = int(given["--seed"])
        assert cell.config == from_preset(
            given["--preset"], given["--curriculum"], seed, changed, given.get("--recipe")
        )


@given(documents)
@fuzz
def test_any_document_is_a_plan_or_is_refused_in_one_line(document):
    def make():
        asked = parsed(document)
        return asked.out, plan(asked, Path("somewhere"))

    if found := attempted(make):
        out, cells = found
        check_cells(cells, Path("somewhere"), out)


def plan_of(path: Path, content: bytes) -> list[Cell] | None:
    """What the command makes of a file with this content; None where it refuses it."""
    path.write_bytes(content)
    found = attempted(lambda: planned(path))
    if found is None:
        return None
    check_cells(found[1], path.parent, found[0])
    return found[1]


def survive(path: Path, n: int) -> int:
    """How many of so many damaged files were refused."""
    rng, whole = random.Random(n), FILE.encode()
    return sum(plan_of(path, mutated(whole, rng)) is None for _ in range(n))


def test_the_file_is_whole(tmp_path):
    cells = plan_of(tmp_path / "sweep.toml", FILE.encode())
    assert cells is not None
    assert len(cells) == 8 + 4 * 2 + 1


def test_accidents_to_a_file_give_a_plan_or_a_refusal(tmp_path):
    assert survive(tmp_path / "sweep.toml", 40) > 20


@pytest.mark.slow
def test_thousands_of_accidents_to_a_file_give_a_plan_or_a_refusal(tmp_path):
    assert survive(tmp_path / "sweep.toml", 3000) > 1500


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("out = " + "[" * 5000, "is nested too deeply"),
        ('out = "g"\n[train.set.' + ".".join("a" * 1500) + "]\nb = 1", "is nested too deeply"),
        ('out = "g"\n[train]\nset = { recipe.lr = 0.1, "recipe.lr" = 0.2 }', "recipe.lr is set twice"),
        ('out = "g\\u0000"\n[train]\n', "cannot hold the character"),
        ('out = "g"\n[train]\n[[study]]\ncommand = "study cause"\nname = ".."', r"study.name='\.\.'"),
        (
            'out = "g"\n[train]\nset = { '
            + ", ".join(f"recipe.{key} = [{','.join(map(str, range(1, 40)))}]" for key in ("steps", "lr", "beta2"))
            + " }",
            "59319 combinations; at most 10000",
        ),
    ],
)
def test_what_would_end_in_a_traceback_or_never_is_refused(tmp_path, content, message):
    path = tmp_path / "sweep.toml"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        plan(read(path), tmp_path)


def test_a_checkpoint_above_the_file_has_a_directory_of_its_own(tmp_path, random_checkpoint):
    """`..` is a checkpoint like any other; its results do not go to where its name, as a path, would lead."""
    from training.checkpoints.checkpoint import WEIGHTS, write_config, write_weights

    write_config(tmp_path, random_checkpoint.config)
    write_weights(tmp_path / WEIGHTS, random_checkpoint.model, 0, random_checkpoint.config)
    root = tmp_path / "below"
    root.mkdir()
    cells = plan(parsed({"out": "grid", "ckpt": [".."], "analyse": {"command": "score"}}), root)
    assert len(cells) == 1
    check_cells(cells, root, "grid")

"""Every example in every help is a command that runs; with fewer prompts and steps than a user would take."""

import shlex
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.main import get_command

from interp.cli import build
from training.checkpoints.checkpoint import zoo_path

SECONDS = 300  # of a processor, so that no load matters; the slowest takes 40
NEEDS_MORE = {
    "'runs/inputs/*/*'": "a sweep of its own",
    "'runs/sizes/*/*'": "a sweep of its own",
    "'runs/architectures/*/*'": "a sweep of its own",
    "'runs/diversity/*/*'": "a sweep of its own",
    "'runs/transplant/*/*'": "a sweep of its own",
    "'runs/clamping/*/*'": "a sweep of its own",
    "--cluster": "Ray",
    "model.pt": "a model of TransformerLens with its configuration",
    "interp upgrade": "a run of an older format version",
}
SHORTER = {"0-4": "0-1", "clamping.until=500": "clamping.until=10"}
FEWER = {"--prompts": 16, "--controls": 3}
SWEEP = """
out = "grid"
[train]
preset = "tiny"
seeds = "0"
set = { recipe.steps = 2 }
"""


def commands(command: Any = None, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All commands by their words."""
    command = command or get_command(build())
    if not hasattr(command, "commands"):
        yield words, command
    for name, part in getattr(command, "commands", {}).items():
        yield from commands(part, (*words, name))


def examples() -> Iterator[tuple[str, list[str]]]:
    """Every example with the options that make it short."""
    for words, command in commands():
        options = {option for parameter in command.params for option in parameter.opts}
        for line in map(str.strip, (command.help or "").replace("\\", "").splitlines()):
            if not line.startswith(f"interp {' '.join(words)}"):
                continue
            given = shlex.split(line)[1:]
            takes = [name for name in FEWER if name in options and name not in given and "lm.py" not in line]
            takes = [name for name in takes if name != "--controls" or words[0] != "probe" or "--swap" in line]
            fewer = [f"{name}={FEWER[name]}" for name in takes]
            more = ["--set=recipe.steps=20"] if words == ("train",) else []
            yield line, [SHORTER.get(word, word) for word in (*given, *fewer, *more)]


@pytest.fixture
def user_directory(tmp_path, monkeypatch) -> Path:
    """What a user of the examples has: prompts, a sweep, a run with a snapshot, and a run of another program."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    xs = generator.normal(size=(64, 16, 4)).astype("f4")
    np.savez("mine.npz", xs=xs, ys=xs @ np.ones(4, dtype="f4"))
    Path("sweep.toml").write_text(SWEEP)
    shutil.copytree(zoo_path("mixed-0"), "runs/mixed-0")
    return tmp_path


def needs_more(line: str) -> bool:
    return any(part in line for part in NEEDS_MORE)


def test_every_reason_to_skip_an_example_is_used():
    lines = [line for line, _ in examples()]
    assert all(any(part in line for line in lines) for part in NEEDS_MORE)
    assert sum(map(needs_more, lines)) == 10


@pytest.mark.slow
@pytest.mark.usefixtures("user_directory")
@pytest.mark.parametrize(("line", "words"), [pytest.param(*example, id=example[0]) for example in examples()])
def test_an_example_runs(line, words, outcome):
    if needs_more(line):
        pytest.skip("needs " + next(reason for part, reason in NEEDS_MORE.items() if part in line))
    if "theirs/8f2c" in line:
        outcome("export", "--ckpt", "zoo:mixed-0", "--format", "garg", "--out", "theirs/8f2c")
    if "lm.py" in line and "init" not in words:
        outcome("init", "lm.py")
    if words[0] == "train":
        shutil.rmtree("runs")
    started = time.process_time()
    done = outcome(*words)
    assert done.code == 0, done.err
    assert time.process_time() - started < SECONDS
    assert done.out or done.err

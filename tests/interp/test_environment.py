"""The command line whatever its environment is: optimised bytecode, odd variables, no home, closed standard input."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from interp.cli import build
from interp.scores.kinds import SCORES
from training.tasks.function_classes import FAMILIES
from training.tasks.inputs import INPUTS
from training.tasks.registry import describe
from training.tasks.shifts import SHIFTS

ODD = {"PYTHONWARNINGS": "error", "HOME": "/dev/null", "TERM": "nonsense", "COLUMNS": "-5", "LINES": "x"}
UNSET = ("MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")


def texts() -> dict[str, str | None]:
    """Every sentence of the help that is read from a docstring."""
    texts = {}
    for name, command in typer.main.get_command(build()).commands.items():  # type: ignore[attr-defined]
        texts |= {f"{name} {part}": nested.help for part, nested in getattr(command, "commands", {}).items()}
        texts[name] = command.help
    for families in (FAMILIES, INPUTS, SHIFTS):
        texts |= {f"{name}{parameter}": definition for name, parameter, definition in describe(families)}
    return texts | {f"score {name}": kind.definition for name, kind in SCORES.items()}


@pytest.mark.slow
def test_help_is_complete_without_docstrings():
    code = f"import sys, json; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    code += "import test_environment; print(json.dumps(test_environment.texts()))"
    ended = subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, text=True, check=True)
    assert all(texts().values())
    assert json.loads(ended.stdout) == texts()


@pytest.mark.slow
def test_an_odd_environment_changes_no_result(tmp_path, outcome):
    arguments = ("score", "--ckpt", "zoo:linear-0", "--prompts", "8", "--json", "--out", str(tmp_path))
    environment = {name: value for name, value in os.environ.items() if name not in UNSET} | ODD
    ended = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", sys.executable, "-OO", "-m", "interp", *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    from same_documents import assert_same_document  # not found by the process that imports this file

    assert_same_document(json.loads(ended.stdout), json.loads(outcome(*arguments).out))

"""What holds for the house as a whole."""

import importlib
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from jaxtyping import TypeCheckError
from torch import zeros

from interp.scores.score import weigh
from training.checkpoints.checkpoint import read_config, read_history, zoo_names, zoo_path, zoo_root, zoo_truth

ROOT = Path(__file__).parents[1]
PACKAGES = ("training", "interp", "analyses")


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_shapes_are_checked_at_run_time_where_make_asks_for_it(package, pytestconfig):
    """jaxtyping's import hook can be off without a word; then no shape is checked."""
    if not pytestconfig.getoption("jaxtyping_packages"):
        pytest.skip("`make test-slow` and `make test-shapes` install the hook")
    assert "jaxtyping" in type(importlib.import_module(package).__loader__).__module__
    with pytest.raises(TypeCheckError):
        weigh(zeros(2, 3, 4, 4), zeros(1, 4, 5))


@pytest.mark.slow
def test_shapes_are_not_checked_for_users():
    code = "import torch; from interp.scores.weightings import shares; print(shares(torch.zeros(2, dtype=int)).shape)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch.Size" in done.stdout


@pytest.mark.parametrize("package", PACKAGES)
def test_the_package_is_this_checkouts(package):
    """The names are common: another distribution could have put its own `training` in the environment."""
    assert Path(str(importlib.import_module(package).__file__)).is_relative_to(ROOT)


def test_importing_interp_imports_no_torch():
    code = "import sys, interp; assert not {'torch', 'transformer_lens'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_the_command_line_and_training_never_import_transformer_lens():
    code = (
        "import sys, interp.commands, interp.ablation.figures, interp.scores.figures, analyses.studies.retrospective\n"
        "import training.loop.trainer; assert 'transformer_lens' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_training_imports_little_at_run_time():
    """So that it runs wherever there is torch: a cluster node, a borrowed GPU."""
    code = "import sys, training.loop.trainer; print(*{m.split('.')[0] for m in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert not imported & {"pandas", "matplotlib", "seaborn", "typer", "rich", "transformer_lens", "scipy", "pydantic"}


def test_no_module_hides_a_function_of_the_same_name():
    modules = {path.stem for path in (ROOT / "interp").iterdir()}
    assert not modules & set(importlib.import_module("interp").__all__)


def test_commands_are_registered_by_the_package_that_owns_them():
    owners = {entry.name: entry.module for entry in entry_points(group="interp.commands")}
    assert owners["train"] == "training.commands"
    assert owners["eval"] == "interp.commands"
    assert owners["ablate"] == "interp.ablation.command"
    assert owners["study"] == "analyses.commands"


def test_the_zoo_is_complete_small_and_reproducible():
    curricula = ("mixed", "sequential", "random", "linear", "quadratic", "cubic")
    names = [f"{curriculum}-{seed}" for curriculum in curricula for seed in range(5)]
    planted = {name for name in zoo_names() if zoo_truth(name)}
    assert len(planted) == 5
    small = [f"small_mixed_{seed}" for seed in range(3)]
    assert set(zoo_names()) - planted == {*names, *small, "inherited", "paper_mixed"}
    files = [path for path in zoo_root().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 60_000_000
    seeds = [read_config(zoo_path(name)).seeds for name in names]
    assert len({seed for triple in seeds for seed in (triple.init, triple.data, triple.task)}) == 3 * len(seeds)
    inherited, parent = (read_config(zoo_path(name)) for name in ("inherited", "mixed-0"))
    assert inherited.seeds == parent.seeds
    assert (inherited.curriculum, parent.curriculum) == ("sequential", "mixed")
    for name in zoo_names():
        config = read_config(zoo_path(name))
        assert read_history(zoo_path(name))[-1]["step"] == (0 if name in planted else config.recipe.steps)
        assert not re.search("dirty", (zoo_path(name) / "config.json").read_text())


def test_nothing_in_the_tree_names_a_machine():
    paths = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for path in (ROOT / p for p in paths if not p.endswith((".safetensors", ".png"))):
        if path.exists() and path != Path(__file__):
            assert not re.search(r"/(work|root|home)/\w", path.read_text()), path

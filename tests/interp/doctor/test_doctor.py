import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pytest

from interp import hooked
from interp.doctor import smoke_tests as trial
from interp.doctor.command import doctor
from interp.doctor.installation import check_directory, check_package, examine_installation
from training.common.errors import CheckError

ROOT = Path(__file__).parents[3]


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts the records of a distribution in front of all others, as pip would have left them."""
    monkeypatch.syspath_prepend(tmp_path)

    def put(name: str, number: str, *lines: str, files: str = "") -> None:
        directory = tmp_path / f"{name}-{number}.dist-info"
        directory.mkdir()
        (directory / "METADATA").write_text("\n".join([f"Name: {name}", f"Version: {number}", *lines]))
        (directory / "RECORD").write_text(files)
        packages = {line.partition("/")[0] for line in files.splitlines()}  # Python 3.12 leaves missing files out
        (directory / "top_level.txt").write_text("\n".join(packages))

    return put


@pytest.fixture
def problems(capfd):
    """Runs the command in this process and gives the lines with which it ends."""

    def run() -> list[str]:
        with contextlib.suppress(CheckError):
            doctor()
        return [line for line in capfd.readouterr().out.rpartition("┘")[2].split("\n") if line]

    return run


def python(*arguments: str, cwd: Path, path: Sequence[Path] = ()) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [*path, ROOT]))}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)


def test_a_healthy_installation_has_no_problems(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    doctor(json=True)
    document = json.loads(capfd.readouterr().out)
    found = {check["check"]: check["found"] for check in document["checks"]}
    assert document["problems"] == []
    assert found["torch"] == f"{version('torch')} (>=2.6)"
    assert found["package training"] == str(ROOT / "training" / "__init__.py")
    assert found["TransformerLens"].endswith("of zoo:mixed-0")
    assert not list(tmp_path.iterdir())


def test_a_transformer_lens_out_of_range_is_named_with_the_command_that_mends_it(install, problems):
    install("transformer_lens", "5.0.0")
    assert problems() == [
        'transformer-lens 5.0.0 is installed, <5,>=3.9 is needed: pip install "transformer-lens<5,>=3.9"'
    ]


def test_a_missing_dependency_is_a_problem_and_a_missing_extra_is_not(install, tmp_path):
    needs = ["absent>=2", "elsewhere>=1; sys_platform == 'nowhere'", "toy>=3; extra == 'dev'", "rich; extra == 'dev'"]
    install(
        "incontext_interp",
        "0.1.0",
        "Requires-Python: >=3.11",
        "Provides-Extra: dev",
        *map("Requires-Dist: {}".format, needs),
    )
    findings = {finding.check: finding for finding in examine_installation(tmp_path)}
    problems = [finding.problem for finding in findings.values() if finding.problem]
    assert problems == ['absent is not installed, >=2 is needed: pip install "absent>=2"']
    assert findings["extra dev"].result == "1 of 2 packages; without toy"
    assert "elsewhere" not in findings


def test_a_distribution_that_may_have_overwritten_a_package_is_named(install):
    install("other", "1.0", files="training/__init__.py,,\ntraining/loop.py,,\n")
    assert check_package("interp").problem is None
    assert str(check_package("training").problem).startswith("other also has a package 'training'")


def test_a_distribution_whose_package_comes_first_is_to_be_uninstalled(install, tmp_path):
    install("other", "1.0", files="analyses/__init__.py,,\n")
    (tmp_path / "analyses").mkdir()
    (tmp_path / "analyses" / "__init__.py").touch()
    code = "from interp.doctor.package_origin import misplaced; print(misplaced('analyses'))"
    done = python("-c", code, path=[tmp_path], cwd=ROOT.parent)
    assert (
        f"finds {tmp_path}/analyses/__init__.py, not this project's {ROOT}/analyses: pip uninstall other" in done.stdout
    )


@pytest.mark.parametrize("file", ["training.py", "training/__init__.py", "analyses.py"])
def test_a_module_in_the_current_directory_that_hides_a_package_is_one_line_and_exit_1(file, tmp_path):
    """Before anything of it has run: the command line itself imports `training`."""
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("raise SystemExit('run by mistake')")
    done = python("-m", "interp", "--help", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert f"finds {path}, not this project's" in done.stderr
    assert "start `interp` or Python from another directory" in done.stderr


def test_a_directory_of_that_name_hides_nothing(tmp_path):
    """Python passes over a directory without `__init__.py` for a package further on."""
    (tmp_path / "training").mkdir()
    assert python("-m", "interp", "--help", cwd=tmp_path).returncode == 0


def test_it_speaks_where_torch_numpy_and_pandas_are_broken(tmp_path):
    for name in ("torch", "numpy", "pandas"):
        (tmp_path / f"{name}.py").write_text("raise OSError('libcudart.so.12: no such file')")
    done = python("-c", "from interp.doctor.command import doctor; doctor()", cwd=tmp_path)
    assert "devices: OSError: libcudart.so.12: no such file: fix the problems listed above" in done.stdout
    assert done.stderr.endswith("training.common.errors.CheckError: problems: 1\n")


def test_a_model_that_does_not_do_what_it_learned_is_a_problem(random_checkpoint, monkeypatch):
    monkeypatch.setattr(trial, "load", lambda _: random_checkpoint)
    assert "has lost what it learned (error 3.5" in str(trial.check_zoo().problem)
    monkeypatch.setattr(trial, "zoo_names", list)
    assert str(trial.check_zoo().problem).startswith("no shipped checkpoint is installed")


def test_a_twin_that_computes_something_else_is_a_problem(monkeypatch):
    twin = hooked("zoo:mixed-1")
    monkeypatch.setattr(sys.modules["interp.model.hooked_transformer"], "hooked", lambda _: twin)
    assert "differs from zoo:mixed-0 by" in str(trial.check_hooked().problem)


def test_a_directory_that_cannot_be_written_is_a_problem(tmp_path):
    (tmp_path / "file").touch()
    problem = str(check_directory(tmp_path / "file" / "results").problem)
    assert problem.startswith("cannot write to")
    assert problem.endswith("start in another directory, or name one with --out")


def test_without_pips_records_it_says_how_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr("interp.doctor.installation.DISTRIBUTION", "never-installed")
    assert [finding.problem for finding in examine_installation(tmp_path)] == [
        "pip does not know never-installed: run `make install` in its checkout"
    ]

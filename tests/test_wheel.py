"""The wheel: builds, installs into an empty environment, and works from a directory that holds nothing of ours."""

import json
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
COMMANDS = (
    "score --ckpt zoo:mixed-0 --classes linear --prompts 64 --out scores",
    "train --preset tiny --set recipe.steps=20 --out run",
    "ablate --ckpt run --heads 0.1 --classes linear --prompts 32 --controls 2 --out effects",
    "study published --ckpt zoo:mixed-0 --prompts 64 --out published",
    "report --ckpt zoo:mixed-0 --classes linear --prompts 64 --controls 2 --no-paths --out report.html",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    directory = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", directory, ROOT, cwd=directory)
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def scripts(wheel, tmp_path_factory):
    """The directory of executables of a new environment with nothing but the wheel and what it needs."""
    directory = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", directory, cwd=directory)
    install = ("-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt", wheel)
    run(directory / "bin" / "python", *install, cwd=directory)
    return directory / "bin"


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_the_wheel_holds_the_packages_and_their_data_and_nothing_else(wheel):
    names = ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"training", "interp", "analyses"}
    tracked = subprocess.run(
        ["git", "ls-files", "training", "interp", "analyses"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    assert {path for path in tracked if path} <= set(names)


@pytest.mark.slow
def test_it_works_in_an_empty_environment_from_anywhere(scripts, tmp_path):
    about = json.loads(run(scripts / "interp", "doctor", "--json", cwd=tmp_path))
    assert about["problems"] == []
    places = {check["check"]: check["found"] for check in about["checks"]}
    assert all(str(scripts.parent) in places[f"package {name}"] for name in ("training", "interp", "analyses"))
    for command in COMMANDS:
        run(scripts / "interp", *command.split(), cwd=tmp_path)
    assert {"scores", "run", "effects", "published", "report.html"} <= {path.name for path in tmp_path.iterdir()}

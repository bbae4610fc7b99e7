"""What makes the package usable by others: its licence, citation, declared dependencies, platforms and version."""

import ast
import re
import subprocess
import sys
import tarfile
import tomllib
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import interp
from interp.doctor.platforms import unsupported
from training.common.errors import UserError
from training.common.locks import lock_exclusively

ROOT = Path(__file__).parents[1]
PACKAGES = ("training", "interp", "analyses")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()


def declared(*lists: list[str]) -> set[str]:
    return {Requirement(text).name for requirements in lists for text in requirements}


def imported() -> tuple[set[str], set[str]]:
    """Distributions that the packages import by statement, and modules that they import by name."""
    by_statement, by_name = set(), set()
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Import(names):
                    by_statement |= {alias.name for alias in names}
                case ast.ImportFrom(module=str(module), level=0):
                    by_statement.add(module)
                case ast.Call(func=ast.Name("import_module"), args=[ast.Constant(str(module))]):
                    by_name.add(module)
    return distributions(by_statement), distributions(by_name)


def distributions(modules: set[str]) -> set[str]:
    known = packages_distributions()
    tops = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names - {*PACKAGES}
    return {known.get(top, [top])[0].lower().replace("_", "-") for top in tops}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported():
    by_statement, by_name = imported()
    assert by_statement == declared(PROJECT["dependencies"])
    assert by_name == declared(PROJECT["optional-dependencies"]["cluster"])


def test_every_dependency_has_a_lowest_version():
    """`make test-oldest` tests on these."""
    for text in PROJECT["dependencies"]:
        assert [specifier.operator for specifier in Requirement(text).specifier].count(">=") == 1, text


def test_licence_and_citation_agree_with_the_package():
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    assert "the incontext-interp authors" in (ROOT / "LICENSE").read_text()
    assert PROJECT["license"] == CITATION["license"] == "MIT"
    assert PROJECT["version"] == str(CITATION["version"])
    assert PROJECT["urls"]["Paper"] == CITATION["references"][0]["url"]


def test_the_changelog_dates_the_version_as_the_citation_does():
    assert f"## {PROJECT['version']} - {CITATION['date-released']}\n" in CHANGELOG


def test_sentences_of_the_changelog_are_short():
    for entry in re.split(r"\n- |\n#", CHANGELOG)[1:]:
        for sentence in re.split(r"(?<=[.:;])\s", entry):
            assert len(sentence.split()) <= 25, sentence


def test_interp_knows_its_version(outcome):
    assert interp.__version__ == version("incontext-interp")
    done = outcome("--version")
    assert (done.code, done.out) == (0, f"interp {interp.__version__}\n")


def test_h_is_help(outcome):
    assert outcome("-h").out == outcome("--help").out
    assert "Example" in outcome("score", "-h").out


@pytest.mark.parametrize("platform", ["win32", "freebsd14", "emscripten"])
def test_on_another_platform_the_command_line_ends_with_one_line(platform):
    code = (
        # what other modules of the standard library import by platform comes first
        f"import sys, importlib.metadata; sys.platform = {platform!r}; sys.modules['fcntl'] = None\n"
        "sys.argv = ['interp', 'zoo', 'list']\n"
        "from interp.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert f"this platform ({platform}) is not supported: the commands run on Linux and macOS" in done.stderr
    assert ("WSL" in done.stderr) == (platform == "win32")


def test_classifiers_name_the_supported_platforms(monkeypatch):
    named = [line.split(" :: ")[-1] for line in PROJECT["classifiers"] if line.startswith("Operating System")]
    assert sorted(named) == ["Linux", "MacOS"]
    for platform in ("linux", "darwin"):
        monkeypatch.setattr(sys, "platform", platform)
        assert unsupported() is None


def test_a_lock_that_the_platform_lacks_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with (tmp_path / "lock").open("w") as file, pytest.raises(UserError, match="needs Linux or macOS"):
        lock_exclusively(file.fileno())


def test_a_lock_is_held_once_and_released_with_its_file(tmp_path):
    with (tmp_path / "lock").open("w") as first, (tmp_path / "lock").open("w") as second:
        assert lock_exclusively(first.fileno())
        assert not lock_exclusively(second.fileno())
        first.close()
        assert lock_exclusively(second.fileno())


@pytest.mark.slow
def test_the_source_distribution_holds_licence_and_citation(tmp_path):
    code = f"from hatchling.build import build_sdist; build_sdist({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "hatchling>=1.27"], check=True, stderr=subprocess.DEVNULL
    )
    subprocess.run([python, "-c", code], cwd=ROOT, check=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    assert {"LICENSE", "CITATION.cff", "README.md", "CHANGELOG.md", "pyproject.toml"} <= names

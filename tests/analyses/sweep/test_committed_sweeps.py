"""The sweep files of this repository: all can be planned, and `zoo.toml` describes the models that ship."""

from pathlib import Path

import pytest

import analyses
from analyses.sweep.commands import planned
from training.checkpoints.checkpoint import fingerprint, read_config, zoo_names, zoo_path, zoo_truth

FILES = sorted((Path(analyses.__file__).parent / "sweeps").glob("*.toml"))


def shipped_name(cell_name: str) -> str:
    """The name in the zoo of a run that a sweep trains."""
    return cell_name.removeprefix("runs/").removeprefix("single-")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_sweep_file_can_be_planned_and_trains_a_run_only_once(file):
    _, cells = planned(file)
    configs = [fingerprint(cell.config) for cell in cells if cell.config]
    assert len(configs) == len({*configs}) == len(cells)


def test_the_zoo_is_what_its_sweep_files_describe():
    _, cells = planned(FILES[0].with_name("zoo.toml"))
    _, (inherited,) = planned(FILES[0].with_name("zoo_inherited.toml"))
    _, (paper,) = planned(FILES[0].with_name("paper.toml"))
    _, small = planned(FILES[0].with_name("small.toml"))
    described = {shipped_name(cell.name): cell.config for cell in cells}
    described |= {"inherited": inherited.config, "paper_mixed": paper.config}
    described |= {
        cell.name.replace("runs/mixed-", "small_mixed_"): cell.config for cell in small if "mixed" in cell.name
    }
    assert {*described} == {name for name in zoo_names() if not zoo_truth(name)}
    for name, config in described.items():
        assert config is not None
        assert fingerprint(config) == fingerprint(read_config(zoo_path(name))), name

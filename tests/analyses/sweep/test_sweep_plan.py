"""From a sweep file to its cells: pure, and every mistake is refused before anything starts."""

import math
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from documents import ROOT, blocks
from hypothesis import given, settings
from hypothesis import strategies as st

from analyses.sweep.commands import planned
from analyses.sweep.plan import Cell, plan
from analyses.sweep.settings import parsed
from training.checkpoints.checkpoint import snapshot_steps, zoo_path
from training.common.errors import UserError
from training.config.parse import from_preset
from training.model.transformer import Transformer


def cells_of(document, root=Path("somewhere")):
    return plan(parsed({"out": "grid"} | document), root)


VALUES = {
    "preset": ["tiny", "small"],
    "curriculum": ["mixed", "random", "single:linear", "single:cubic"],
    "model.n_heads": [2, 4, 8],
    "recipe.lr": [1e-3, 0.5, 3],
    "recipe.compile": [True, False],
    "data.inputs": ["gaussian", "gaussian,skewed", "student_t:4"],
    "data.weights": ["unit"],
}


@st.composite
def grids(draw) -> dict[str, Any]:
    """Axes of the grid of one file: single values and lists."""
    chosen = draw(st.lists(st.sampled_from(sorted(VALUES)), unique=True))
    axes = {}
    for key in chosen:
        values = draw(st.lists(st.sampled_from(VALUES[key]), min_size=1, unique=True))
        axes[key] = values if len(values) > 1 or draw(st.booleans()) else values[0]
    return axes | {"seeds": draw(st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True))}


def train_table(axes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in axes.items() if "." not in key} | {
        "set": {key: value for key, value in axes.items() if "." in key}
    }


def runs_of(axes: dict[str, Any]) -> dict[str, Cell]:
    return {cell.name: cell for cell in cells_of({"train": train_table(axes)})}


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(grids())
def test_a_grid_is_the_product_of_its_axes_and_every_run_what_its_name_says(axes):
    runs = runs_of(axes)
    assert len(runs) == math.prod(len(value) if isinstance(value, list) else 1 for value in axes.values())
    assert len({cell.config for cell in runs.values()}) == len(runs)
    for name, cell in runs.items():
        for key in (key for key, value in axes.items() if "." in key and isinstance(value, list)):
            section, _, field = key.partition(".")
            value = getattr(getattr(cell.config, section), field)
            text = ",".join(value) if isinstance(value, tuple) else f"{value:g}" if type(value) is float else str(value)
            shown = text.lower().replace(":", "-")
            assert f"{key}={shown}-" in name


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(grids(), st.data())
def test_a_grid_that_grows_keeps_what_it_has(axes, data):
    """Names and commands, so that nothing is trained again."""
    listed = [key for key, value in axes.items() if isinstance(value, list)]
    key = data.draw(st.sampled_from(listed))
    more = [value for value in VALUES.get(key, range(100, 200)) if value not in axes[key]][:1]
    before, after = runs_of(axes), runs_of(axes | {key: axes[key] + more})
    assert {name: cell.arguments for name, cell in before.items()}.items() <= {
        name: cell.arguments for name, cell in after.items()
    }.items()


def test_a_run_is_what_train_makes_of_the_same_words():
    (cell,) = cells_of(
        {"train": {"preset": "small", "recipe": "fast", "curriculum": "random", "seeds": 7, "set": {"recipe.lr": 0.1}}}
    )
    assert cell.name == "runs/random-7"
    assert cell.config == from_preset("small", "random", 7, ["recipe.lr=0.1"], "fast")
    assert " ".join(cell.arguments) == (
        "train --preset small --curriculum random --seed 7 --recipe fast --set=recipe.lr=0.1 --device cpu --resume "
        "--out grid/runs/random-7"
    )


def test_every_run_is_followed_by_its_analyses_and_studies_come_last():
    cells = cells_of(
        {
            "train": {"curriculum": ["mixed", "single:linear"], "seeds": "0-1"},
            "analyse": [{"command": "score", "on": "mixed-*"}, {"command": "eval --prompts=64", "name": "errors"}],
            "study": [{"command": "study cause", "on": ["mixed-*"]}, {"command": "history"}],
        }
    )
    assert [cell.name for cell in cells] == [
        "runs/mixed-0", "analyses/score/mixed-0", "analyses/errors/mixed-0",
        "runs/mixed-1", "analyses/score/mixed-1", "analyses/errors/mixed-1",
        "runs/single-linear-0", "analyses/errors/single-linear-0",
        "runs/single-linear-1", "analyses/errors/single-linear-1",
        "studies/cause", "studies/history",
    ]  # fmt: skip
    by_name = {cell.name: cell for cell in cells}
    assert by_name["analyses/errors/mixed-1"].needs == ("runs/mixed-1",)
    assert by_name["studies/cause"].needs == ("runs/mixed-0", "runs/mixed-1")
    assert len(by_name["studies/history"].needs) == 4
    assert by_name["analyses/errors/mixed-1"].command_line == (
        "interp eval --prompts 64 --ckpt grid/runs/mixed-1 --out grid/analyses/errors/mixed-1"
    )


def test_an_analysis_is_cut_into_snapshots_times_options():
    cells = cells_of(
        {
            "train": {"set": {"recipe": {"steps": 1000}, "record": {"snapshots": 4}}},
            "analyse": {
                "command": "ablate",
                "steps": "all",
                "set": {"heads": ["layer:0", "0.1"], "classes": ["linear"], "controls": 0},
            },
        }
    )[1:]
    assert [cell.name.removeprefix("analyses/ablate/mixed-0@") for cell in cells] == [
        f"{step}-heads={heads}-classes=linear" for step in (0, 9, 99, 1000) for heads in ("layer-0", "0.1")
    ]
    assert " ".join(cells[2].arguments[:9]) == (
        "ablate --heads layer:0 --classes linear --controls 0 --ckpt grid/runs/mixed-0@9"
    )
    assert cells[2].point == {"run": "mixed-0@9", "heads": "layer:0", "classes": "linear"}


def test_checkpoints_that_are_there_are_found_from_the_file_and_need_nothing(tmp_path, monkeypatch):
    for name in ("one", "two"):
        shutil.copytree(zoo_path("mixed-0"), tmp_path / "models" / name)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    document = {"ckpt": ["zoo:linear-[01]", "models/*"], "analyse": {"command": "score"}}
    cells = cells_of(document, tmp_path)
    assert [cell.arguments[2] for cell in cells] == ["zoo:linear-0", "zoo:linear-1", "models/one", "models/two"]
    assert [cell.name.removeprefix("analyses/score/") for cell in cells] == [
        "zoo-linear-0", "zoo-linear-1", "models-one", "models-two",
    ]  # fmt: skip
    assert {cell.needs for cell in cells} == {()}
    assert len(cells_of({"ckpt": "models/one", "analyse": {"command": "score", "steps": [232]}}, tmp_path)) == 1


def test_several_grids_are_one_sweep():
    tables = [{"set": {"model.n_heads": [4]}}, {"seeds": 1, "set": {"model.n_layers": [2]}}]
    assert [cell.name for cell in cells_of({"train": tables})] == [
        "runs/mixed-model.n_heads=4-0", "runs/mixed-model.n_layers=2-1",
    ]  # fmt: skip


def test_the_file_on_the_page_has_the_cells_that_the_page_says(tmp_path):
    page = (ROOT / "notebooks" / "concepts" / "sweeps.md").read_text()
    text, parts = blocks(page, "toml")
    (tmp_path / "sweep.toml").write_text(text)
    out, cells = planned(tmp_path / "sweep.toml")
    sentence = r"has (\d+) cells: (\d+) runs .*? (\d+) of `scores`.*? (\d+) of `ablation`"
    said = re.search(sentence, " ".join(page.split()))
    assert said
    total, *groups = map(int, said.groups())
    expected = dict(zip(("train", "scores", "ablation"), groups, strict=True)) | {"cause": 1}
    assert Counter(cell.group for cell in cells) == expected
    assert total == len(cells)
    for name in re.findall(r"^\| `((?:runs|analyses|studies)/.*)/` \|", page, re.MULTILINE):
        assert name in {cell.name for cell in cells}
    assert out == "grid"
    (tmp_path / "parts.toml").write_text(parts)
    _, cells = planned(tmp_path / "parts.toml")
    n_snapshots = len(snapshot_steps(zoo_path("mixed-0")))
    assert Counter(cell.group for cell in cells) == {"map": n_snapshots * 2 * 3 * 4, "heads": 3 * 2}


WRONG = [
    ("out = ", "is no TOML file"),
    ("seeds = 1", "unknown key 'seeds' (valid: out, ckpt, train, analyse, study)"),
    ("out = 3", "out is missing"),
    ('out = "grid"', "there is nothing to sweep"),
    ('out = "grid"\ntrain = 3', "train: a table is needed"),
    ("[train]\nspeed = 9", "unknown key 'train.speed': did you mean 'train.seeds'? (valid: train.preset"),
    ("[train]\npreset = ['tiny', 'huge']", "unknown preset 'huge'"),
    ("[train]\nrecipe = 'slow'", "unknown recipe 'slow'"),
    ("[train]\ncurriculum = 'spiral'", "unknown curriculum 'spiral'"),
    ("[train]\ncurriculum = ['mixed', 'single:sine']", "unknown function class 'sine'"),
    ("[train]\ncurriculum = ['mixed', 'mixed']", "curriculum: mixed is named twice"),
    ("[train]\ncurriculum = []", "curriculum is an empty list"),
    ("[train]\nseeds = '3-1'", "'3-1' is not a seed"),
    ("[train]\nset = 3", "train.set=3: a table of settings is needed"),
    ("[train.set]\nmodel.n_head = 3", "unknown key 'train.set.model.n_head' (valid: "),
    ("[train.set]\nmodel.n_heads = [4, 5]", "model.d_model=64 is not a multiple of model.n_heads=5"),
    ("[train.set]\nrecipe.lr = [['a']]", "recipe.lr: ['a'] is no single value"),
    ("[train.set]\nsteps = 3", "unknown key 'train.set.steps' (valid: seeds.init"),
    ("[train]\n[[analyse]]\nname = 'x'", "analyse.command is missing"),
    (
        "[train]\n[[analyse]]\ncommand = 'juggle --fast'",
        "unknown command for a sweep 'juggle --fast' (valid: ",
    ),
    ("[train]\n[[analyse]]\ncommand = ''", "analyse.name='': letters"),
    ("[train]\n[[analyse]]\ncommand = 'score \"'", "No closing quotation"),
    ("[train]\n[[analyse]]\ncommand = 'study'", "unknown command for a sweep 'study'"),
    ("[train]\n[[analyse]]\ncommand = 'zoo list'", "unknown command for a sweep 'zoo list'"),
    ("[train]\n[[analyse]]\ncommand = 'ablate'", "'ablate': Missing option '--heads'"),
    ("[train]\n[[analyse]]\ncommand = 'score --scoer self'", "No such option: --scoer"),
    ("[train]\n[[analyse]]\ncommand = 'score --prompts=1'", "'--prompts': 1 (a whole number of at least 2"),
    ("[train]\n[[analyse]]\ncommand = 'score --ckpt=x'", "--ckpt cannot be set in the file"),
    ("[train]\n[[analyse]]\ncommand = 'score --help'", "--help cannot be set in the file"),
    ("[train]\n[[analyse]]\ncommand = 'score'\nset = {seed = [0, 'x']}", "'--seed': x (a whole number"),
    ("[train]\n[[analyse]]\ncommand = 'score'\nname = '../x'", "analyse.name='../x': letters, digits"),
    ("[train]\n[[analyse]]\ncommand = 'score'\non = 'random-*'", "unknown run for score: 'random-*' (valid: mixed-0)"),
    ("[train]\n[[analyse]]\ncommand = 'score'\nsteps = [7]", "unknown step of mixed-0 '7' (valid: 0, "),
    ("[train]\n[[analyse]]\ncommand = 'score'\nsteps = 7", "analyse.steps=7: a list of steps is needed, or all"),
    (
        "[train]\n[[analyse]]\ncommand = 'score'\n[[analyse]]\ncommand = 'score'",
        "two cells have the dir",
    ),
    ("[train]\n[[study]]\ncommand = 'patch'", "`interp patch` takes one checkpoint; under [[analyse]]"),
    ("[train]\n[[study]]\ncommand = 'study caus'", "unknown command for a sweep 'study caus'"),
    ("ckpt = 'zoo:none'", "unknown zoo checkpoint 'none'"),
    ("ckpt = ['nowhere/*']", "there is no such checkpoint"),
    ("ckpt = 3", "ckpt=3: a list of names is needed"),
    ("[[train]]\n[[train]]", "two cells have the directory runs/mixed-0"),
]


@pytest.mark.parametrize(("text", "message"), WRONG, ids=lambda value: " ".join(value.split()))
def test_a_mistake_is_refused_in_one_line_that_names_the_file(text, message, tmp_path):
    file = tmp_path / "sweep.toml"
    file.write_text(text if "out" in text or text == "seeds = 1" else f'out = "grid"\n{text}')
    with pytest.raises(UserError) as refused:
        planned(file)
    assert refused.value.message.startswith(f"{file}: ")
    assert refused.value.message.count(str(file)) == 1
    assert message in refused.value.message
    assert "\n" not in refused.value.message
    assert [*tmp_path.iterdir()] == [file]


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"there is no file '.*absent.toml'"):
        planned(tmp_path / "absent.toml")
    with pytest.raises(UserError, match="is no TOML file"):
        planned(tmp_path)


def test_a_directory_with_another_run_is_refused(tmp_path, quick_config):
    from training.checkpoints.checkpoint import WEIGHTS, write_config, write_weights

    run, file = tmp_path / "grid" / "runs" / "mixed-0", tmp_path / "sweep.toml"
    write_config(run, quick_config)
    write_weights(run / WEIGHTS, Transformer(quick_config.model), 60)
    file.write_text('out = "grid"\n[train]')
    with pytest.raises(UserError, match=r"mixed-0 holds a run with another model\.d_model, .*cannot be resumed as"):
        planned(file)

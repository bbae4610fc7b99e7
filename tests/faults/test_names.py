"""Names that a file system allows and strangers choose: every command takes them, and none steers terminal or sheet."""

import json
import os
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from damage import CALM, FEW, HISTORY, WEIGHTS

from training.checkpoints.checkpoint import load, zoo_path
from training.checkpoints.history import history_text, read_history
from training.checkpoints.name_patterns import expand
from training.common.errors import UserError
from training.common.output import print_table, write_table
from training.common.progress import progress_bar
from training.common.terminal import UNSAFE, echo

ESCAPE = "\x1b]0;owned\x07\x1b[31m\x9b1m\x00\u202e"
ODD = [
    "runs[1]",
    "a@b",
    "x*y",
    "what?",
    "$\\alpha$",
    "$x",
    "_hidden",
    "tab\there",
    "line\nbreak",
    "red\x1b[31m",
    "é\udcff",
]


def run_at(directory: Path) -> None:
    """As much of a run as a pattern looks for."""
    directory.mkdir(parents=True)
    (directory / "config.json").touch()


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_patterns_hold_below_a_directory_of_any_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for run in ("a-0", "a-1", "b@2"):
        run_at(tmp_path / name / run)
    (tmp_path / "other").mkdir()
    assert expand([f"{name}/a-*"]) == [f"{name}/a-0", f"{name}/a-1"]
    assert expand([f"{name}/a-[01]@20"]) == [f"{name}/a-0@20", f"{name}/a-1@20"]
    assert expand([f"{name}/b@*"]) == [f"{name}/b@2"]
    assert expand([str(tmp_path / name / "*")]) == [str(tmp_path / name / run) for run in ("a-0", "a-1", "b@2")]
    assert expand(["a-*"], tmp_path / name) == ["a-0", "a-1"]
    for pattern in (f"{name}/c*", f"{name}/a-*/*", "nowhere/*"):
        with pytest.raises(UserError, match="there is no such checkpoint"):
            expand([pattern])


def test_brackets_are_a_set_where_nothing_is_called_so(tmp_path):
    for name in ("r1", "r2", "s[1]", "s1"):
        run_at(tmp_path / name)
    assert expand(["r[12]"], tmp_path) == ["r1", "r2"]
    assert expand(["s[1]"], tmp_path) == ["s[1]"]
    assert expand(["?[1]"], tmp_path) == ["s[1]"]


def test_a_run_in_a_directory_of_any_name_is_read_and_drawn(outcome, whole_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Path("".join(name for name in ODD if "?" not in name))
    shutil.copytree(whole_run, run)
    for given in (f"{run}@14", str(run).replace("red", "re?")):
        found = outcome("ablate", "--ckpt", given, "--heads", "0.1", *CALM, *FEW, "--out", "results")
        assert found.code == 0, found
        assert not UNSAFE.search(found.out + found.err)
    table = pd.read_csv(tmp_path / "results" / "ablation.csv")
    assert len(table) == 1


@pytest.mark.slow
@pytest.mark.parametrize("locale", ["C", "POSIX"])
def test_a_run_in_a_directory_that_the_locale_cannot_spell_is_read_and_written(tmp_path, locale):
    root = tmp_path / "Mödelle é\udcff"
    shutil.copytree(zoo_path("mixed-0"), root / "größe")
    plain = {"LC_ALL": locale, "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "interp", "history", "--ckpt", "größe", "--out", "résultats"]
    done = subprocess.run(command, cwd=root, env={**os.environ, **plain}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    assert done.stdout.isascii()
    table = pd.read_csv(root / "résultats" / "history.csv")
    assert set(table["checkpoint"]) == {"größe"}


def test_a_hostile_class_in_a_history_reaches_neither_terminal_nor_spreadsheet(outcome, copied, whole_run, tmp_path):
    run, name = copied(whole_run), f"=cmd|' /C calc'!A0{ESCAPE}"
    rows = [{**row, "function_class": name + row["function_class"]} for row in read_history(run)]
    (run / HISTORY).write_text(history_text(rows))
    found = outcome("history", "--ckpt", run, "--out", tmp_path / "out")
    assert found.code == 0, found
    assert "cmd|" in found.out
    assert not UNSAFE.search(found.out + found.err)
    cells = pd.read_csv(tmp_path / "out" / "history.csv")["function_class"]
    assert all(cell.startswith("'=cmd") for cell in cells)
    assert not UNSAFE.search((tmp_path / "out" / "history.csv").read_text())


def test_nothing_that_is_printed_holds_control_characters(capsys, monkeypatch):
    echo(ESCAPE)
    echo(ESCAPE, err=True)
    print_table(ESCAPE, [ESCAPE, "b"], [[ESCAPE, ESCAPE]], ESCAPE)
    assert str(UserError(ESCAPE)).isprintable()
    out, err = capsys.readouterr()
    assert out.count("owned") == 6
    assert not UNSAFE.search(out + err)
    written = StringIO()
    monkeypatch.setattr(written, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", written)
    with progress_bar(range(2), desc=ESCAPE, unit=ESCAPE, disable=False, file=sys.stderr) as bar:
        list(bar)
    shown = written.getvalue().replace("\r", "").replace("\x1b[A", "")  # what tqdm itself moves the cursor by
    assert "owned" in shown
    assert not UNSAFE.search(shown)


def test_a_line_break_in_a_name_breaks_no_line(capsys):
    name = "a\nb\tc"
    echo(f"\n{name} is a name\n")
    print_table(name, [name, "b"], [[name, name]], name)
    out, _ = capsys.readouterr()
    assert out.startswith("\n" + r"a\nb\tc is a name" + "\n\n")
    assert out.count(r"a\nb\tc") == 6


def test_no_name_becomes_an_emoji(capsys):
    """Rich draws a thumb for `:-1:` and a face for `:smile:`, as in the title of `--shift scale_x:-1`."""
    names = ["zoo:linear-0, shift scale_x:-1: error", "runs/:smile:/a", "student_t:100:"]
    print_table(names[0], ["run", names[1]], [["linear", names[2]]], names[1])
    out, _ = capsys.readouterr()
    assert [out.count(name) for name in names] == [1, 2, 1]


CELLS = ["=1+1", "+cmd", "-cmd", "@SUM(A1)", "\t=1", "\r=1", "＝1", "a;=1+1", "-1-cmd|' /C calc'!A0"]


@pytest.mark.parametrize("cell", CELLS, ids=ascii)
def test_no_cell_is_a_formula(tmp_path, cell):
    write_table(pd.DataFrame({"name": [cell], cell: [1.5]}), tmp_path / "table.csv")
    table = pd.read_csv(tmp_path / "table.csv")
    for text in (table["name"][0], table.columns[1]):
        for field in str(text).split(";"):
            assert field[0] not in "=+-@\t\r＝", text


def test_numbers_stay_numbers(tmp_path):
    rows = pd.DataFrame({"value": [-0.5, float("nan")], "text": ["-0.5", "-"], "head": ["0.1,1.2", "linear"]})
    write_table(rows, tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text() == 'value,text,head\n-0.5,-0.5,"0.1,1.2"\n,-,linear\n'


def test_a_message_repeats_no_more_than_anyone_would_read(refused):
    for given in ("x" * 5000, "x y " * 2000, "zoo:" + "é\x1b" * 3000):
        assert len(refused("score", "--ckpt", given)) < 4000
    assert len(refused("score", "--ckpt", "x" * 5000)) < 1000
    assert len(refused("score", "x" * 5000)) < 1000


@pytest.mark.parametrize("damage", [lambda text: "\ufeff" + text, lambda text: text.replace("\n", "\r\n")])
def test_a_byte_order_mark_and_other_line_ends_change_nothing(copied, whole_run, damage):
    run = copied(whole_run)
    for name in ("config.json", HISTORY):
        text = (run / name).read_text()
        (run / name).write_bytes(damage(text).encode())
    assert load(run).config == load(whole_run).config
    assert read_history(run) == read_history(whole_run)


def test_a_name_that_stands_twice_in_a_file_is_refused(copied, whole_run):
    run = copied(whole_run)
    text = (run / "config.json").read_text()
    (run / "config.json").write_text(text.replace('"run"', '"format_version": 2, "run"', 1))
    with pytest.raises(UserError, match=r"config\.json is damaged: the key 'format_version' is there twice"):
        load(run)


def test_weights_are_read_below_a_name_that_is_not_utf_8(whole_run, tmp_path):
    run = tmp_path / "\udcff\udc9b31m"
    shutil.copytree(whole_run, run)
    assert load(run).step == load(f"{run}@60").step == 60
    assert json.dumps(str(run))
    assert os.fsencode(run / WEIGHTS).endswith(b"\xff\x9b31m/model.safetensors")

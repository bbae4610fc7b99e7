"""Checkpoints by someone who means harm: nothing of theirs runs, takes memory beyond its size, or becomes markup."""

import json
import multiprocessing
import os
import pickle
import re
import resource
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from damage import CALM, CONFIG, FEW, HISTORY, RESUME, SNAPSHOT, WEIGHTS, edit_config, edit_header, unsealed

from training.checkpoints.checkpoint import load
from training.common.errors import UserError
from training.evaluation.convergence import convergence
from training.loop.trainer import train

ROOM = 2**28  # bytes of address space beyond what the process has


class Trojan:
    """Unpickled, it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch '{self.target}'",)


WATCHED = """
import sys
seen, watching = [], False
BAD = {"pickle.find_class", "os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "marshal.loads", "compile"}
sys.addaudithook(lambda event, _: seen.append(event) if watching and event in BAD else None)
from pathlib import Path
import training.evaluation.convergence, training.loop.state, training.config.parse
from training.checkpoints.checkpoint import load, read_config
from training.common.errors import UserError
runs = Path(sys.argv[1])
load(runs / "whole"), training.evaluation.convergence.convergence(runs / "whole")  # whatever is imported late
for name in runs.iterdir():
    attempts = [
        lambda: load(name), lambda: load(f"{name}@14"), lambda: training.evaluation.convergence.convergence(name),
        lambda: training.loop.state.restore(read_config(name), name, "cpu"),
    ]
    watching = True
    for attempt in attempts:
        try:
            attempt()
        except UserError:
            pass
    watching = False
print(sorted(set(seen)))
"""


def test_nothing_is_executed_by_loading(whole_run, cut_run, tmp_path):
    target = tmp_path / "executed"
    trojan = pickle.dumps(Trojan(target))
    for name in (CONFIG, WEIGHTS, HISTORY, SNAPSHOT, RESUME):
        run = tmp_path / "runs" / name.replace("/", "-")
        shutil.copytree(cut_run if name == RESUME else whole_run, run)
        (run / name).write_bytes(trojan)
    shutil.copytree(whole_run, tmp_path / "runs" / "whole")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", WATCHED, str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
    assert not target.exists()
    pickle.loads(trojan)
    assert target.exists(), "the trojan is none"


def refuse_in_little_room(directory: str) -> None:
    """Exit code 0 if the run is refused, with `ROOM` bytes to do so."""
    sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - of a process that is about to end
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, taken + ROOM))
    for attempt in (lambda: load(directory), lambda: convergence(Path(directory))):
        try:
            attempt()
        except UserError:
            os._exit(0)
    os._exit(1)


def announced(n_bytes: int):
    """A file that is as large as its header says, and holds nothing."""

    def make(run: Path) -> None:
        edit_header(run / WEIGHTS, lambda _: {"a": {"dtype": "U8", "shape": [n_bytes], "data_offsets": [0, n_bytes]}})
        with (run / WEIGHTS).open("r+b") as file:
            start = 8 + int.from_bytes(file.read(8), "little")
            file.truncate(start + n_bytes)

    return make


def header_of(n_bytes: int):
    return lambda run: (run / WEIGHTS).write_bytes(n_bytes.to_bytes(8, "little") + (run / WEIGHTS).read_bytes()[8:])


def sparse(name: str, n_bytes: int):
    return lambda run: os.truncate(run / name, n_bytes)


def replaced(name: str, make):
    return lambda run: ((run / name).unlink(), make(run / name))


def shape(*sizes: int):
    def edit(header: dict[str, Any]) -> dict[str, Any]:
        return header | {"embed.W_E": header["embed.W_E"] | {"shape": list(sizes)}}

    return lambda run: (unsealed(run / WEIGHTS), edit_header(run / WEIGHTS, edit))


HOSTILE = {
    "many layers": lambda run: edit_config(run, "run.model.n_layers", 10**9),
    "very many layers": lambda run: edit_config(run, "run.model.n_layers", 10**30),
    "layers below the cap": lambda run: edit_config(run, "run.model.n_layers", 10**5),
    "wide": lambda run: edit_config(run, "run.model.d_model", 8 * 10**8),
    "wide below the cap": lambda run: edit_config(run, "run.model.d_model", 6000),
    "long": lambda run: edit_config(run, "run.model.n_ctx", 10**7),
    "high-dimensional": lambda run: edit_config(run, "run.model.n_dims", 10**7),
    "large tree": lambda run: edit_config(run, "run.curriculum", "single:decision_tree:60"),
    "large network": lambda run: edit_config(run, "run.data.classes", ["relu_network:100000000000"]),
    "many names": lambda run: edit_config(run, "run.data.classes", ["linear"] * 100_000),
    "many snapshots": lambda run: edit_config(run, "run.record.snapshots", 10**12),
    "huge number": lambda run: edit_config(run, "run.recipe.lr", 10**400),
    "huge digits": lambda run: (run / CONFIG).write_text('{"format_version": ' + "9" * 10**5 + "}"),
    "huge config": sparse(CONFIG, 2**40),
    "nested config": lambda run: (run / CONFIG).write_text('{"run":' * 10**5),
    "pipe for config": replaced(CONFIG, os.mkfifo),
    "device for config": replaced(CONFIG, lambda path: path.symlink_to("/dev/zero")),
    "loop for config": replaced(CONFIG, lambda path: path.symlink_to(path)),
    "huge weights": sparse(WEIGHTS, 2**40),
    "huge tensor": announced(2**36),
    "header of exabytes": header_of(2**63),
    "header of 90 MB": header_of(90_000_000),
    "nested header": lambda run: edit_header(run / WEIGHTS, lambda _: b"[" * 10**5),
    "tensor of exabytes": shape(2**60, 2),
    "negative shape": shape(-4, 16),
    "empty huge shape": shape(0, 2**60),
    "pipe for weights": replaced(WEIGHTS, os.mkfifo),
    "device for weights": replaced(WEIGHTS, lambda path: path.symlink_to("/dev/zero")),
    "huge history": sparse(HISTORY, 2**40),
    "device for history": replaced(HISTORY, lambda path: path.symlink_to("/dev/zero")),
    "pipe for history": replaced(HISTORY, os.mkfifo),
}


@pytest.mark.sample(15)
@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_file_is_refused_before_it_takes_memory_or_time(copied, whole_run, attack):
    run = copied(whole_run)
    HOSTILE[attack](run)
    child = multiprocessing.get_context("fork").Process(target=refuse_in_little_room, args=(str(run),))
    child.start()
    child.join(20)
    hung = child.is_alive()
    child.kill()
    child.join()
    assert not hung
    assert child.exitcode == 0


def test_a_model_that_could_never_be_trained_is_refused(outcome, tmp_path):
    for setting in ("model.n_layers=1000000000", "model.d_model=800000000", "recipe.threads=1000000"):
        found = outcome("train", "--out", tmp_path / "x", "--set", setting)
        assert found.refused
        assert "at most" in found.err
    assert not (tmp_path / "x").exists()


class Tags(HTMLParser):
    """Every element with its attributes, and the text outside scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


NAMES = [
    "<img src=x onerror=alert(1)>",
    "<",  # followed by a slash and the next name: an end tag
    "script><svg onload=alert(2)>",
    "\" onmouseover='alert(3)' x=\"",
    "{{7*7}}${7*7}",
    "&lt;b&gt;",
]


def test_names_of_directories_never_become_markup(outcome, cut_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = Path(*NAMES)
    shutil.copytree(cut_run, run)
    document = json.loads((run / CONFIG).read_text())
    document["environment"] = {"commit": "<script>alert(4)</script>", "<b>": None}
    (run / CONFIG).write_text(json.dumps(document))
    found = outcome("report", "--ckpt", run, "--no-paths", "--controls", "2", *FEW, "--out", "r.html")
    assert found.code == 0, found
    html = (tmp_path / "r.html").read_text()
    tags = Tags()
    tags.feed(html)
    assert str(run) in "".join(tags.text)
    assert [tag for tag, _ in tags.found].count("script") == 1
    assert not [tag for tag, _ in tags.found if tag in ("iframe", "object", "embed", "base", "meta http-equiv")]
    sources = [attributes["src"] or "" for tag, attributes in tags.found if tag == "img"]
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    assert not [name for _, attributes in tags.found for name in attributes if name.startswith("on")]
    assert "49${49}" not in html
    assert not re.search(r"alert\(\d\)</script>", html)


def test_names_of_checkpoints_never_leave_the_output_directory(outcome, cut_run, tmp_path, monkeypatch):
    """Several checkpoints have a directory each, called after them; `..` and names that clash stay apart, inside."""
    monkeypatch.chdir(tmp_path)
    names = ["a/b", "a-b", "x" * 100 + "/" + "y" * 100 + "/" + "z" * 100]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sub").mkdir(exist_ok=True)
        shutil.copytree(cut_run, tmp_path / name)
    monkeypatch.chdir(tmp_path / "sub")
    names = [f"../{name}" for name in names] + [".."]
    shutil.copytree(cut_run, tmp_path, dirs_exist_ok=True)
    given = [part for name in names for part in ("--ckpt", name)]
    found = outcome("ablate", *given, "--heads", "0.1", *CALM, *FEW, "--out", "results")
    assert found.code == 0, found
    places = sorted(path.parent for path in tmp_path.rglob("ablation.csv"))
    assert len(places) == len(names)
    assert {place.parent for place in places} == {tmp_path / "sub" / "results"}


def test_an_untrusted_save_cannot_be_resumed_into_another_run(copied, cut_run, run_config):
    run = copied(cut_run)
    (run / RESUME).write_bytes(pickle.dumps(Trojan(run / "executed")))
    with pytest.raises(UserError, match="is damaged"):
        train(run_config, run, resume=True, progress=False)
    assert not (run / "executed").exists()

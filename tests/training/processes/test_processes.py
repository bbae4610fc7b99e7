"""Processes that are started, watched and stopped together, on tasks of a twentieth of a second."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from training.processes.processes import Processes, Queue, Task, carry_out, last_words
from training.processes.run_sets import visible_gpus, workers_here


class Line(Queue):
    """A queue of tasks without conditions that keeps what it hears."""

    def __init__(self, tasks: list[Task]) -> None:
        self.waiting, self.running, self.codes, self.most = tasks, set[str](), dict[str, int](), 0

    @property
    def is_over(self) -> bool:
        return not self.waiting and not self.running

    def next(self) -> Task | None:
        if not self.waiting:
            return None
        self.running.add(self.waiting[0].name)
        self.most = max(self.most, len(self.running))
        return self.waiting.pop(0)

    def ended(self, task: Task, code: int) -> None:
        self.running.remove(task.name)
        self.codes[task.name] = code


@pytest.fixture
def task(tmp_path):
    def make(name: str, code: str, **options) -> Task:
        return Task(name, ("-c", code), f"python -c {name}", tmp_path / f"{name}.log", **options)

    return make


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 60
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return path.read_text()


def is_alive(pid: int) -> bool:
    """A process that has ended and that nobody has asked about is no longer alive."""
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


def test_so_many_run_at_once_and_every_exit_code_is_heard(task):
    queue = Line([task(str(number), f"raise SystemExit({number})") for number in range(5)])
    carry_out(queue, Processes(2), lambda: None)
    assert queue.codes == {str(number): number for number in range(5)}
    assert queue.most == 2


def test_a_log_has_every_try_and_its_last_words_are_those_of_the_last_try(task, tmp_path):
    for code in ("print('first')", "print('second'); print(); print('end')", ""):
        carry_out(Line([task("one", code)]), Processes(1), lambda: None)
        if code:
            assert last_words(tmp_path / "one.log", 2)[-1] == code.split("'")[-2]
    assert (tmp_path / "one.log").read_text().count("$ python -c one\n") == 3
    assert last_words(tmp_path / "one.log", 2) == []
    assert last_words(tmp_path / "none.log", 2) == []


def test_a_process_sees_its_directory_its_threads_and_the_modules_of_this_one(task, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "16")
    (tmp_path / "root").mkdir()
    code = "import os, training; print(os.getcwd(), os.environ['OMP_NUM_THREADS'], training.__file__)"
    carry_out(Line([task("one", code, root=tmp_path / "root", threads=3)]), Processes(1), lambda: None)
    here = Path(__file__).parents[3] / "training" / "__init__.py"
    assert last_words(tmp_path / "one.log", 1) == [f"{tmp_path / 'root'} 3 {here}"]


SAVING = """
import pathlib, signal, sys, time
def save(*_):
    pathlib.Path({saved!r}).write_text("saved")
    sys.exit(130)
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
time.sleep(60)
"""


def test_when_asked_to_stop_all_that_run_save_and_stop_and_no_other_starts(task, tmp_path):
    queue = Line([task(name, SAVING.format(saved=str(tmp_path / name))) for name in ("a", "b", "c")])

    def stop_when_ready() -> None:
        if all("ready" in (tmp_path / f"{name}.log").read_text() for name in ("a", "b")):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        carry_out(queue, Processes(2), stop_when_ready)
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text() == "saved"
    assert not (tmp_path / "c.log").exists()


def test_an_interruption_at_the_keyboard_reaches_children_through_their_parent_only(task, tmp_path):
    """The terminal sends it to a whole process group; a second signal would be the order not to save."""
    code = "import os; print(os.getpgrp() == os.getpid())"
    carry_out(Line([task("one", code)]), Processes(1), lambda: None)
    assert last_words(tmp_path / "one.log", 1) == ["True"]


def test_a_child_hears_when_its_parent_is_killed(tmp_path):
    heard, pid = tmp_path / "heard", tmp_path / "pid"
    child = f"import os, pathlib, sys; pathlib.Path({str(pid)!r}).write_text(str(os.getpid())); sys.stdin.read(); "
    child += f"pathlib.Path({str(heard)!r}).write_text('gone')"
    parent = (
        "import time; from pathlib import Path; from training.processes.processes import Processes, Task\n"
        f"Processes(1).start(Task('one', ('-c', {child!r}), 'one', Path({str(tmp_path / 'log')!r})))\n"
        "time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", parent], env=environment)
    number = int(wait_for(pid))
    assert is_alive(number)
    assert not heard.exists()
    process.kill()
    process.wait()
    assert wait_for(heard) == "gone"


SEEN = "import os, time; print(os.environ.get('CUDA_VISIBLE_DEVICES')); time.sleep(0.5)"


def test_every_gpu_takes_its_share_of_what_needs_one(task, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,2")
    queue = Line([task(str(number), SEEN, on_gpu=number < 4) for number in range(5)])
    carry_out(queue, Processes(5, ["5", "2"]), lambda: None)
    assert queue.most == 5
    seen = [last_words(Path(task("x", "").log).with_name(f"{number}.log"), 1)[0] for number in range(5)]
    assert sorted(seen[:4]) == ["2", "2", "5", "5"]
    assert seen[4] == "5,2"


def test_a_gpu_that_is_free_again_is_taken_again(task):
    queue = Line([task(str(number), SEEN, on_gpu=True) for number in range(4)])
    workers = Processes(2, ["0", "1"])
    together: list[set[str | None]] = []

    def look() -> None:
        together.append({workers.gpu_of[one] for one in workers.running})
        assert len(together[-1]) == len(workers.running)  # no two on one GPU

    carry_out(queue, workers, look)
    assert {"0", "1"} in together


@pytest.mark.parametrize(
    ("given", "count", "gpus"),
    [(None, 3, ["0", "1", "2"]), ("7,GPU-ab", 2, ["7", "GPU-ab"]), ("", 0, []), (None, 0, [])],
)
def test_gpus_have_the_names_that_children_are_given(monkeypatch, given, count, gpus):
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible_gpus() == gpus
    assert workers_here({"cpu", "cuda"}, 2).n_at_once == max(1, len(gpus))
    assert workers_here({"cuda:1"}, 2).n_at_once == 1
    assert workers_here({"cuda"}, 2, jobs=5).n_at_once == 5


@pytest.mark.parametrize(
    ("threads", "jobs", "is_warned"), [(2, 2, True), (2, 1, False), (2, None, False), (1, 2, False), (1, 9, False)]
)
def test_more_threads_than_cores_are_named(monkeypatch, capsys, threads, jobs, is_warned):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert workers_here({"cpu"}, threads, jobs).n_at_once == (jobs or 2 // threads)
    assert ("asks for 4 threads on 2 cores" in capsys.readouterr().err) == is_warned

"""Cells on the machines of a Ray cluster: a task of Ray starts the process that a cell is everywhere, and waits for it.

The directory of the sweep has to lie on storage that all machines share, under one path; that is where results, logs,
saves and locks are. Nothing else passes between them, so any machine may go at any moment: its cells go on elsewhere
from their last save.

The machine of every cell is chosen here and not by Ray, for two reasons. A machine that joins later gets none before it
has been asked what it runs. And of a machine that is cut off, Ray says that it is dead, but not that its tasks are: the
connection to them just stays silent, for as long as TCP waits.
"""

import logging
import os
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from subprocess import Popen
from typing import Any

from analyses.sweep.nodes import Need, Node, about_node, check_node, check_sizes, needed, node_of
from analyses.sweep.plan import Place
from training.common.atomic_files import temporary_file
from training.common.errors import UserError
from training.common.output import prepare_directory
from training.common.terminal import echo
from training.processes.processes import LOST, POLL, Task, Workers, close, import_path

PATIENCE = 120  # seconds in which every node has to answer, a first import of this package included


class Cluster(Workers):
    """The CPUs of a Ray cluster.

    Args:
        address: `auto`, or HOST:PORT of its head.
        place: of the sweep.
        tasks: all that may have to run.

    Raises:
        UserError: ray is not installed, there is no cluster, no machine is large enough for a task, or one of them has
            other code or does not see the sweep's directory.
    """

    def __init__(self, address: str, place: Place, tasks: Iterable[Task]) -> None:
        try:
            self.ray: Any = import_module("ray")
        except ImportError:
            raise UserError("--cluster needs Ray: pip install 'incontext-interp[cluster]'") from None
        check_address(address)
        self.place = place
        self.needs = {needed(task) for task in tasks}
        self.running: dict[Any, tuple[Task, Node]] = {}
        self.connect(address)
        nodes = self.living()
        check_sizes(nodes, self.needs)
        for fault in self.faults(nodes).values():
            raise fault
        self.accepted = dict.fromkeys(nodes, True)  # whether each machine may have cells

    def connect(self, address: str) -> None:
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        path = {"env_vars": {"PYTHONPATH": import_path()}}
        try:
            self.ray.init(address, runtime_env=path, **quiet)
        except Exception as error:
            raise UserError(f"--cluster {address}: {str(error) or type(error).__name__}") from None

    def living(self) -> list[Node]:
        return [node_of(told) for told in self.ray.nodes() if told["Alive"]]

    def usable(self) -> list[Node]:
        """The machines that are there now and may have cells. One that has joined and differs is left alone."""
        living = self.living()
        if new := [node for node in living if node not in self.accepted]:
            faults = self.faults(new)
            self.accepted |= {node: node not in faults for node in new}
            for fault in faults.values():
                echo(f"{fault}; it gets no cells", err=True)
        return [node for node in living if self.accepted[node]]

    def faults(self, nodes: Sequence[Node]) -> dict[Node, UserError]:
        """Ask machines what they see and run, all at once; what is wrong with those that cannot be used."""
        found = {}
        with self.probe() as probe:
            asked = [self.sent(node, about_node, probe) for node in nodes]
            here = about_node(probe)
            for node, reference in zip(nodes, asked, strict=True):
                try:
                    check_node(node.name, here, self.told(node, reference), self.place)
                except UserError as error:
                    found[node] = error
        return found

    @contextmanager
    def probe(self) -> Iterator[Path]:
        """A file that every machine has to see. What is refused leaves no directory behind."""
        with temporary_file(prepare_directory(self.place.directory) / "probe") as (file, handle):
            os.write(handle, file.name.encode())
            os.fsync(handle)
            try:
                yield file
            finally:
                file.unlink()
                with suppress(OSError):  # only an empty directory goes
                    self.place.directory.rmdir()

    def told(self, node: Node, reference: Any) -> dict[str, str]:
        try:
            return self.ray.get(reference, timeout=PATIENCE)
        except self.ray.exceptions.RayError as error:
            reason = str(getattr(error, "cause", None) or error).strip().partition("\n")[0]
            raise UserError(f"--cluster: node {node.name} cannot run this package: {reason}") from None

    def sent(self, node: Node, function: Any, *arguments: object, cpus: int = 0, gpus: int = 0) -> Any:
        """Have a machine run a function; a reference to what it will return."""
        there = import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy(node.id, soft=False)
        task = self.ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0, scheduling_strategy=there)(function)
        return task.remote(*arguments)

    def room(self, node: Node, need: Need) -> int:
        """For how many more tasks there is room on a machine."""
        return node.room(need, [needed(task) for task, there in self.running.values() if there == node])

    @property
    def n_at_once(self) -> int:
        """What runs, and what there is room for now; machines may come and go."""
        rooms = (max(self.room(node, need) for need in self.needs) for node in self.usable())
        return len(self.running) + sum(rooms)

    def start(self, task: Task) -> None:
        need, usable = needed(task), self.usable()
        able = [node for node, is_accepted in self.accepted.items() if is_accepted and node.room(need)]
        chosen = max(able, key=lambda node: (node in usable, self.room(node, need)))  # one that has just gone loses it
        self.running[self.sent(chosen, run_on_node, task, cpus=need[0], gpus=need[1])] = task, chosen

    def ended(self) -> list[tuple[Task, int]]:
        if not self.running:
            return []
        ready, silent = self.ray.wait([*self.running], num_returns=len(self.running), timeout=0)
        living = self.living()
        codes = {reference: self.code(reference) for reference in ready}
        codes |= {reference: LOST for reference in silent if self.running[reference][1] not in living}
        return [(self.running.pop(reference)[0], code) for reference, code in codes.items()]

    def code(self, reference: Any) -> int:
        try:
            return self.ray.get(reference)
        except self.ray.exceptions.RayError:  # the worker has crashed or its machine is gone
            return LOST

    def stop(self) -> None:
        for reference in self.running:
            self.ray.cancel(reference)
        while self.running:
            self.ended()
            time.sleep(POLL)

    def close(self) -> None:
        self.ray.shutdown()


def check_address(address: str) -> None:
    """Refuse at once an address at which nobody answers; Ray would go on trying.

    Raises:
        UserError: nobody does, or it is no address.
    """
    host, _, port = address.rpartition(":")
    if address == "auto":
        return
    if not host or not port.isdecimal():
        raise UserError(f"--cluster {address}: auto or HOST:PORT is needed")
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"--cluster {address}: nobody answers there ({error})") from None


def run_on_node(task: Task) -> int:
    """Run a task as a process of this node. Ray cancels by KeyboardInterrupt; then the process saves and stops.

    That arrives between two steps of Python, so a call that waits until the process ends would never hear of it.
    """
    process: Popen[bytes] = task.start()
    try:
        while (code := process.poll()) is None:
            time.sleep(POLL)
        return code
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        close(process)

"""Runs sweep cells on a Ray cluster: a Ray task per cell starts its process and waits for it.

The directory of the sweep has to be on storage that all machines share, under the same path; it holds results, logs,
saves and locks. Nothing else passes between machines, so a machine may be lost at any moment: its cells resume
elsewhere from their last save.

This module and not Ray chooses the machine of every cell, for two reasons. A machine that joins later gets no cell
before its code and directory are checked. And when a machine is cut off, Ray reports that it is dead, but not that its
tasks are: the connection to them stays silent until TCP times out.
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

from analyses.sweep.nodes import Need, Node, about_node, check_node, check_sizes, needed, parse_node
from analyses.sweep.plan import Location
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
        location: of the sweep.
        tasks: all that may have to run.

    Raises:
        UserError: ray is not installed, there is no cluster, no machine is large enough for a task, or one of them has
            other code or does not see the sweep's directory.
    """

    def __init__(self, address: str, location: Location, tasks: Iterable[Task]) -> None:
        try:
            self.ray: Any = import_module("ray")
        except ImportError:
            raise UserError("--cluster needs Ray: pip install 'incontext-interp[cluster]'") from None
        check_address(address)
        self.location = location
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
        return [parse_node(entry) for entry in self.ray.nodes() if entry["Alive"]]

    def usable(self) -> list[Node]:
        """The living machines that may have cells; a machine that has joined and differs gets none."""
        living = self.living()
        if new := [node for node in living if node not in self.accepted]:
            faults = self.faults(new)
            self.accepted |= {node: node not in faults for node in new}
            for fault in faults.values():
                echo(f"{fault}; it gets no cells", err=True)
        return [node for node in living if self.accepted[node]]

    def faults(self, nodes: Sequence[Node]) -> dict[Node, UserError]:
        """Check machines, all at once; the reason for every one that cannot be used."""
        faults = {}
        with self.probe() as probe:
            references = [self.submit(node, about_node, probe) for node in nodes]
            here = about_node(probe)
            for node, reference in zip(nodes, references, strict=True):
                try:
                    check_node(node.name, here, self.answer(node, reference), self.location)
                except UserError as error:
                    faults[node] = error
        return faults

    @contextmanager
    def probe(self) -> Iterator[Path]:
        """A file that every machine has to see. A directory that was made for it alone is removed."""
        with temporary_file(prepare_directory(self.location.directory) / "probe") as (file, handle):
            os.write(handle, file.name.encode())
            os.fsync(handle)
            try:
                yield file
            finally:
                file.unlink()
                with suppress(OSError):  # only an empty directory goes
                    self.location.directory.rmdir()

    def answer(self, node: Node, reference: Any) -> dict[str, str]:
        try:
            return self.ray.get(reference, timeout=PATIENCE)
        except self.ray.exceptions.RayError as error:
            reason = str(getattr(error, "cause", None) or error).strip().partition("\n")[0]
            raise UserError(f"--cluster: node {node.name} cannot run this package: {reason}") from None

    def submit(self, node: Node, function: Any, *arguments: object, cpus: int = 0, gpus: int = 0) -> Any:
        """Run a function on a machine; returns a reference to its result."""
        there = import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy(node.id, soft=False)
        task = self.ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0, scheduling_strategy=there)(function)
        return task.remote(*arguments)

    def room(self, node: Node, need: Need) -> int:
        """The number of further tasks of this need for which a machine has room."""
        return node.room(need, [needed(task) for task, there in self.running.values() if there == node])

    @property
    def n_at_once(self) -> int:
        """Running tasks and room for more, now; machines may come and go."""
        rooms = (max(self.room(node, need) for need in self.needs) for node in self.usable())
        return len(self.running) + sum(rooms)

    def start(self, task: Task) -> None:
        need, usable = needed(task), self.usable()
        able = [machine for machine, is_accepted in self.accepted.items() if is_accepted and machine.room(need)]
        node = max(
            able, key=lambda machine: (machine in usable, self.room(machine, need))
        )  # a task on a machine just lost is lost
        self.running[self.submit(node, run_on_node, task, cpus=need[0], gpus=need[1])] = task, node

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
    """Refuse at once an address at which nothing listens; Ray would keep trying.

    Raises:
        UserError: no connection is possible, or it is no address.
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

    The interrupt arrives between two instructions of Python; a call that blocks until the process ends would miss it.
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

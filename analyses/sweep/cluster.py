"""Cells on the machines of a Ray cluster: a task of Ray starts the process that a cell is everywhere, and waits for it.

The directory of the sweep has to lie on storage that all machines share, under one path; that is where results, logs,
saves and locks are. Nothing else passes between them, so any machine may go at any moment: its cells go on elsewhere
from their last save.
"""

import importlib.metadata
import logging
import platform
import socket
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from subprocess import Popen
from typing import Any

from analyses.sweep.plan import Place
from analyses.sweep.record import PACKAGES
from interp.store import source_hash
from training.errors import UserError
from training.output import prepare_directory
from training.processes import LOST, POLL, Task, Workers, close, import_path

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
        self.checked: set[str] = set()
        self.running: dict[Any, Task] = {}
        self.connect(address)
        self.check_sizes(tasks)
        self.check_new_nodes()

    def connect(self, address: str) -> None:
        quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        path = {"env_vars": {"PYTHONPATH": import_path()}}
        try:
            self.ray.init(address, runtime_env=path, **quiet)
        except Exception as error:
            raise UserError(f"--cluster {address}: {str(error) or type(error).__name__}") from None

    def nodes(self) -> list[dict[str, Any]]:
        return [node for node in self.ray.nodes() if node["Alive"]]

    def check_sizes(self, tasks: Iterable[Task]) -> None:
        """Refuse what would wait for ever."""
        sizes = [node["Resources"] for node in self.nodes()]
        for threads, gpus in {needed(task) for task in tasks}:
            if not any(size.get("CPU", 0) >= threads and size.get("GPU", 0) >= gpus for size in sizes):
                raise UserError(f"--cluster: no node has the {threads} CPUs and {gpus} GPUs that a cell needs")

    def check_new_nodes(self) -> None:
        """Ask the nodes that have joined since the last call what they see and run."""
        new = [node for node in self.nodes() if node["NodeID"] not in self.checked]
        if not new:
            return
        probe = prepare_directory(self.place.directory) / f".probe-{uuid.uuid4().hex}"
        probe.write_text(probe.name)
        try:
            here = about_node(probe)
            for name, there in self.ask(new, probe):
                check_node(name, here, there, self.place)
        finally:
            probe.unlink()
            with suppress(OSError):  # only what is empty goes: a sweep that is refused leaves nothing behind
                self.place.directory.rmdir()
        self.checked |= {node["NodeID"] for node in new}

    def ask(self, nodes: list[dict[str, Any]], probe: Path) -> list[tuple[str, dict[str, str]]]:
        """What `about_node` says on each of these nodes, by name; one that is gone by then says nothing."""
        strategy = import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy
        ask = self.ray.remote(num_cpus=0, max_retries=0)(about_node)
        asked = [ask.options(scheduling_strategy=strategy(node["NodeID"], soft=False)).remote(probe) for node in nodes]
        answers = []
        for node, reference in zip(nodes, asked, strict=True):
            name = f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            try:
                answers.append((name, self.ray.get(reference, timeout=PATIENCE)))
            except self.ray.exceptions.RayError as error:
                if node["NodeID"] in {living["NodeID"] for living in self.nodes()}:
                    reason = getattr(error, "cause", None) or error
                    raise UserError(f"--cluster: node {name} cannot run this package: {reason}") from None
        return answers

    @property
    def n_at_once(self) -> int:
        """As many as the cluster has CPUs now; machines may come and go."""
        return int(self.ray.cluster_resources().get("CPU", 0))

    def start(self, task: Task) -> None:
        self.check_new_nodes()
        cpus, gpus = needed(task)
        run = self.ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(run_on_node)
        self.running[run.remote(task)] = task

    def ended(self) -> list[tuple[Task, int]]:
        if not self.running:
            return []
        ready, _ = self.ray.wait([*self.running], num_returns=len(self.running), timeout=0)
        return [(self.running.pop(reference), self.code(reference)) for reference in ready]

    def code(self, reference: Any) -> int:
        try:
            return self.ray.get(reference)
        except self.ray.exceptions.RayError:  # the worker has crashed or its machine is gone
            return LOST

    def stop(self) -> None:
        for reference in self.running:
            self.ray.cancel(reference)
        self.ray.wait([*self.running], num_returns=len(self.running))
        self.running.clear()

    def close(self) -> None:
        self.ray.shutdown()


def needed(task: Task) -> tuple[int, int]:
    """CPUs and GPUs."""
    return task.threads, int(task.on_gpu)


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


def about_node(probe: Path) -> dict[str, str]:
    """What has to be the same on all nodes, for the same bits and for one directory."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", "numpy")}
    return {
        "probe": probe.read_text() if probe.exists() else "",
        "code": source_hash(PACKAGES),
        "Python": platform.python_version(),
        **versions,
    }


def check_node(name: str, here: dict[str, str], there: dict[str, str], place: Place) -> None:
    """Refuse a node that would not do what this process would do.

    Raises:
        UserError: it does not see the directory, or has other versions.
    """
    if there["probe"] != here["probe"]:
        raise UserError(
            f"--cluster: node {name} does not see {place.directory}: a sweep lies on storage that all nodes share"
        )
    for what, version in here.items():
        if there[what] != version:
            raise UserError(f"--cluster: node {name} has {what} {there[what]:.12}, this machine {version:.12}")

"""The machines of a cluster: how much each can take, and whether it does what this one would do."""

import importlib.metadata
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analyses.sweep.plan import Place
from analyses.sweep.record import PACKAGES
from interp.ablation.store import source_hash
from training.common.errors import UserError
from training.processes.processes import Task

Need = tuple[int, int]  # CPUs and GPUs


@dataclass(frozen=True)
class Node:
    """A machine.

    Attributes:
        id: by which Ray knows it.
        name: its hostname and address.
        cpus: that it has.
        gpus: that it has.
    """

    id: str
    name: str
    cpus: int
    gpus: int

    def room(self, need: Need, taken: Iterable[Need] = ()) -> int:
        """For how many tasks of this need there is room beside those that it has."""
        used = [*taken]
        cpus, gpus = self.cpus - sum(one[0] for one in used), self.gpus - sum(one[1] for one in used)
        return max(0, min(cpus // need[0], gpus // need[1] if need[1] else cpus))


def node_of(told: dict[str, Any]) -> Node:
    """One of `ray.nodes()`."""
    name = f"{told['NodeManagerHostname']} ({told['NodeManagerAddress']})"
    has = told["Resources"]
    return Node(told["NodeID"], name, int(has.get("CPU", 0)), int(has.get("GPU", 0)))


def needed(task: Task) -> Need:
    """The CPUs and GPUs of a task."""
    return task.threads, int(task.on_gpu)


def check_sizes(nodes: Iterable[Node], needs: Iterable[Need]) -> None:
    """Refuse what would wait for ever.

    Raises:
        UserError: no machine is large enough for one of the needs.
    """
    for need in needs:
        if not any(node.room(need) for node in nodes):
            raise UserError("--cluster: no node has the {} CPUs and {} GPUs that a cell needs".format(*need))


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

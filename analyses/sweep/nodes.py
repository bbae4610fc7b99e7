"""The machines of a cluster: their room for tasks, and whether they run the same code in the same directory."""

import importlib.metadata
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analyses.sweep.plan import Location
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
        """The number of tasks of this need for which there is room beside those that it runs."""
        used_cpus, used_gpus = (sum(column) for column in zip((0, 0), *taken, strict=True))
        cpus, gpus = self.cpus - used_cpus, self.gpus - used_gpus
        return max(0, min(cpus // need[0], gpus // need[1] if need[1] else cpus))


def parse_node(entry: dict[str, Any]) -> Node:
    """The machine of an entry of `ray.nodes()`."""
    name = f"{entry['NodeManagerHostname']} ({entry['NodeManagerAddress']})"
    resources = entry["Resources"]
    return Node(entry["NodeID"], name, int(resources.get("CPU", 0)), int(resources.get("GPU", 0)))


def needed(task: Task) -> Need:
    """The CPUs and GPUs of a task."""
    return task.threads, int(task.on_gpu)


def check_sizes(nodes: Iterable[Node], needs: Iterable[Need]) -> None:
    """Refuse tasks that would wait for ever.

    Raises:
        UserError: no machine is large enough for one of the needs.
    """
    for need in needs:
        if not any(node.room(need) for node in nodes):
            raise UserError("--cluster: no node has the {} CPUs and {} GPUs that a cell needs".format(*need))


def about_node(probe: Path) -> dict[str, str]:
    """What has to be equal on all nodes: the shared directory, for which a probe file stands, and the code."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", "numpy")}
    return {
        "probe": probe.read_text() if probe.exists() else "",
        "code": source_hash(PACKAGES),
        "Python": platform.python_version(),
        **versions,
    }


def check_node(name: str, here: dict[str, str], there: dict[str, str], location: Location) -> None:
    """Refuse a node that would not compute what this process would.

    Raises:
        UserError: it does not see the directory, or has other versions.
    """
    if there["probe"] != here["probe"]:
        raise UserError(
            f"--cluster: node {name} does not see {location.directory}: a sweep lies on storage that all nodes share"
        )
    for what, version in here.items():
        if there[what] != version:
            raise UserError(f"--cluster: node {name} has {what} {there[what]:.12}, this machine {version:.12}")

"""Two machines that share a directory and nothing else: Linux namespaces with a network, processes, a name and a local
disk each, joined by one cable. Making them takes root.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from subprocess import DEVNULL, Popen
from threading import Event, Thread

KINDS = ("--net", "--mount", "--pid", "--uts")
LOCAL = Path("/tmp/ray")  # where Ray keeps its sockets and logs: their paths may not be long
HEAD = "10.77.0.1:6379"
SMALL = ("--num-cpus", "1", "--object-store-memory", "80000000")

can_be_made = os.geteuid() == 0 and all(map(which, ("unshare", "nsenter", "ip", "mount")))


@dataclass
class Machine:
    """One of the two.

    Attributes:
        name: its hostname, and that of its end of the cable.
        address: its own.
        process: all that runs there ends with it.
    """

    name: str
    address: str
    process: "Popen[bytes]"

    @property
    def pid(self) -> int:
        """Of its first process."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        while not (found := children.read_text().split()):
            time.sleep(0.01)
        return int(found[0])

    def inside(self, *command: object) -> list[str]:
        """The command line that runs a command on this machine."""
        return ["nsenter", "--target", str(self.pid), *KINDS, *map(str, command)]

    def start(self, *command: object, **options) -> "Popen[str]":
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "RAY_USAGE_STATS_ENABLED": "0"}
        return Popen(self.inside(*command), env=environment, text=True, **options)

    def run(self, *command: object) -> None:
        """Run a command and wait for it; what it leaves running does not hold our pipes."""
        with Path(f"/tmp/machine-{self.process.pid}.log").open("w+") as log:
            if self.start(*command, stdin=DEVNULL, stdout=log, stderr=log).wait(timeout=180):
                log.seek(0)
                raise RuntimeError(log.read())
        Path(log.name).unlink()

    def python(self, *arguments: object, **options) -> "Popen[str]":
        return self.start(sys.executable, *arguments, **options)

    def join(self) -> None:
        """Become a node of the cluster; the first machine is its head."""
        ray = (sys.executable, "-m", "ray.scripts.scripts", "start", "--node-ip-address", self.address, *SMALL)
        if HEAD.startswith(f"{self.address}:"):
            self.run(*ray, "--head", "--port", HEAD.partition(":")[2], "--include-dashboard", "false")
        else:
            self.run(*ray, "--address", HEAD)

    def processes(self) -> list[int]:
        """Those that run on it, but for the first, by the numbers that they have outside."""
        space = Path(f"/proc/{self.pid}/ns/pid").readlink()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (entry / "ns" / "pid").readlink() == space and int(entry.name) != self.pid:
                    found.append(int(entry.name))
        return found

    @contextmanager
    def slowed(self, awake: float = 0.1, asleep: float = 0.4) -> Iterator[None]:
        """Let its processes have only this share of the time, in seconds."""
        over = Event()

        def rhythm() -> None:
            while not over.is_set():
                for kind, seconds in ((signal.SIGSTOP, asleep), (signal.SIGCONT, awake)):
                    for process in self.processes():
                        with suppress(ProcessLookupError):
                            os.kill(process, kind)
                    over.wait(seconds)
            for process in self.processes():
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGCONT)

        thread = Thread(target=rhythm)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def boot(name: str, address: str) -> Machine:
    alone = ["unshare", *KINDS, "--fork", "--kill-child", "--mount-proc", "sleep", "infinity"]
    return Machine(name, address, Popen(alone))


def plug_in(first: Machine, second: Machine) -> None:
    """Lay the cable, and give each machine its address, name and local disk."""
    ends = [("netns", str(machine.pid)) for machine in (first, second)]
    cable = ["ip", "link", "add", first.name, *ends[0], "type", "veth", "peer", "name", second.name, *ends[1]]
    subprocess.run(cable, check=True)
    for machine in (first, second):
        machine.run("ip", "address", "add", f"{machine.address}/24", "dev", machine.name)
        for device in ("lo", machine.name):
            machine.run("ip", "link", "set", device, "up")
        machine.run("hostname", machine.name)
        machine.run("mount", "-t", "tmpfs", "-o", "size=300m", "disk", LOCAL)


@contextmanager
def two_machines() -> Iterator[tuple[Machine, Machine]]:
    LOCAL.mkdir(exist_ok=True)
    machines = boot("first", "10.77.0.1"), boot("second", "10.77.0.2")
    try:
        plug_in(*machines)
        yield machines
    finally:
        for machine in machines:
            machine.process.kill()
            machine.process.wait()

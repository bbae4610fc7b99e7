"""One cell of a sweep, as a process: `python -m analyses.sweep.cell LOCK [--record DIR] -- ARGUMENTS` of `interp`.

1. While a process holds the lock of a cell, no other process on any machine runs that cell.
2. The command runs in this process. When the process that started this one ends, it saves and stops.
3. After success the record of the cell is written.
"""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from analyses.sweep import record
from analyses.sweep.plan import Location
from interp.__main__ import main as interp
from interp.cli import fail
from training.common.atomic_files import open_own
from training.common.errors import UserError
from training.common.locks import lock_exclusively

BUSY = 75  # the exit code where another process has the cell (a temporary failure, in sysexits.h)


@contextmanager
def locked(path: Path) -> Iterator[int | None]:
    """Try to hold a cell's lock; gives a handle of its file, or None where another process holds it.

    It ends with the process, however that ends. A file that is open for writing is what Linux can lock between the
    machines that share an NFS directory.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = open_own(path)
    try:
        yield handle if lock_exclusively(handle) else None
    finally:
        os.close(handle)


def holder(path: Path) -> str | None:
    """The process that holds the lock, in words; None if none does."""
    if not path.exists():
        return None
    with locked(path) as handle:
        return None if handle is not None else path.read_text(errors="replace") or "another process"


def stop_with_parent() -> None:
    """Ask this process to stop when its stdin comes to an end, which is when the process at the other end is gone."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    Thread(target=wait, daemon=True).start()


def run(lock: Path, directory: Path | None, arguments: list[str]) -> int:
    """Run a cell unless another process runs it or has just run it; returns the exit code."""
    with locked(lock) as handle:
        if handle is None:
            return BUSY
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
        stop_with_parent()
        if directory is None:
            return exit_code(arguments)
        now = record.record(arguments, Location(Path.cwd(), ""))
        if record.holds_results(directory, now):
            return 0
        record.begin(directory, now)
        code = exit_code(arguments)
        if code == 0:
            record.finish(directory, now)
        return code


def exit_code(arguments: list[str]) -> int:
    """Run `interp` in this process."""
    sys.argv = ["interp", *arguments]
    try:
        interp()
    except SystemExit as stop:
        if isinstance(stop.code, str):  # not this project's packages: Python says so and exits with 1
            raise
        return stop.code or 0


def main() -> None:
    options, arguments = sys.argv[1 : sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1 :]
    directory = Path(options[2]) if len(options) > 1 else None
    try:
        sys.exit(run(Path(options[0]), directory, arguments))
    except UserError as error:  # a checkpoint has gone
        fail(error, 2)


if __name__ == "__main__":
    main()

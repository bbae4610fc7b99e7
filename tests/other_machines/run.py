"""The numerical tests, and the digits that commands print, as other machines compute them.

    python tests/other_machines/run.py                      # all settings: `make test-machines`
    python tests/other_machines/run.py "four threads"       # some of them

Every command has to print the same under all settings; tests/interp, tests/training and tests/truth have to pass under
each: these hold the arithmetic. The other tests read, write, tabulate and draw what these packages compute.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import unified_diff
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TESTS = ("tests/interp", "tests/training", "tests/truth")
COMMANDS = (
    "ablate --ckpt zoo:mixed-0 --heads above:0.5 --classes linear --prompts 64",
    "ablate --ckpt zoo:random-0 --heads each --mode mean --classes quadratic --prompts 64 --controls 3",
    "score --ckpt zoo:mixed-0 --prompts 64",
    "eval --ckpt zoo:sequential-0 --prompts 64",
    "patch --ckpt zoo:mixed-0 --classes linear --prompts 32",
    "attribute --ckpt zoo:mixed-0 --classes linear --prompts 32",
)


@dataclass(frozen=True)
class Setting:
    """A machine to imitate.

    Attributes:
        environment: variables that choose kernels and threads.
        plugins: modules of this directory that pytest loads, and whose `pytest_configure` commands call.
        n_busy: processes that compete for the cores.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()
    n_busy: int = 0


SETTINGS = {
    "this machine": Setting({"OMP_NUM_THREADS": "1"}),
    "no vector instructions": Setting({"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"}, ("shuffled",)),
    "AVX2": Setting({"ATEN_CPU_CAPABILITY": "avx2", "OMP_NUM_THREADS": "1"}),
    "four threads": Setting({"OMP_NUM_THREADS": "4"}, ("shuffled",)),
    "other kernels": Setting({"OMP_NUM_THREADS": "1"}, ("other_kernels",)),
    "eight busy processes": Setting({"OMP_NUM_THREADS": "1"}, ("shuffled",), n_busy=8),
}


@contextmanager
def imitated(setting: Setting) -> Iterator[dict[str, str]]:
    """The environment of a setting, while its busy processes run."""
    path = os.pathsep.join((str(HERE), os.environ.get("PYTHONPATH", "")))
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(setting.n_busy)]
    try:
        yield {**os.environ, **setting.environment, "PYTHONPATH": path}
    finally:
        for process in busy:
            process.kill()
            process.wait()


def printed_by(command: str, setting: Setting, environment: Mapping[str, str]) -> str:
    """What a command prints; an error is printed, too."""
    imports = "".join(
        f"import {plugin}; getattr({plugin}, 'pytest_configure', lambda: None)(); " for plugin in setting.plugins
    )
    code = f"{imports}from interp.cli import main; main()"
    start = [sys.executable, "-c", code, *command.split()]
    done = subprocess.run(start, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def changed_lines(name: str, expected: Mapping[str, str]) -> list[str]:
    """The lines that commands print otherwise under a setting than expected."""
    setting = SETTINGS[name]
    with imitated(setting) as environment:
        printed = {command: printed_by(command, setting, environment) for command in COMMANDS}
    return [
        line
        for command, text in printed.items()
        for line in unified_diff(expected[command].splitlines(), text.splitlines(), command, name, "", "", 0, "")
    ]


def passes_tests(name: str) -> bool:
    setting = SETTINGS[name]
    plugins = [argument for plugin in setting.plugins for argument in ("-p", plugin)]
    with imitated(setting) as environment:
        start = [sys.executable, "-m", "pytest", "-q", "-n", "auto", "-m", "not slow", *plugins, *TESTS]
        return subprocess.run(start, cwd=ROOT, env=environment, check=False).returncode == 0


def main(names: list[str]) -> int:
    if unknown := set(names) - set(SETTINGS):
        sys.exit(f"no such setting: {', '.join(sorted(unknown))} (valid: {', '.join(SETTINGS)})")
    this = SETTINGS["this machine"]
    with imitated(this) as environment:
        expected = {command: printed_by(command, this, environment) for command in COMMANDS}
    failed = []
    for name in names or list(SETTINGS):
        lines = changed_lines(name, expected)
        print(f"{name}: {len(COMMANDS)} commands print", "something else" if lines else "the same", flush=True)
        print(*lines, sep="\n")
        if not passes_tests(name) or lines:
            failed.append(name)
    print("failed:", ", ".join(failed) or "none")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

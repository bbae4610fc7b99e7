"""Where a result comes from: `run.json` beside its files, and `run` in the document that `--json` prints."""

import importlib.metadata
import json
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from training.checkpoints.checkpoint import Checkpoint, environment, weights_hash
from training.common.atomic_files import write_text
from training.common.dates import now
from training.common.output import plain
from training.config.config import RunConfig

FILE = "run.json"
DISTRIBUTION = "incontext-interp"


@dataclass(frozen=True)
class Provenance:
    """What a result was computed from.

    Attributes:
        checkpoints: of each model its `name`, `step`, `sha256` (of the file of its weights, as `sha256sum` gives it;
            of an attached model: of its parameters; None if there is no file) and `seeds` of its training.
        seed: of the random draws; None if there are none.
        n_prompts: per function class, or examples of an attached model; None if none were drawn.
        data: of the file of a user's own prompts its `name` and `sha256`; None if there is none.
    """

    checkpoints: Sequence[Mapping[str, Any]]
    seed: int | None = None
    n_prompts: int | None = None
    data: Mapping[str, str] | None = None

    @classmethod
    def of(cls, checkpoints: Iterable[Checkpoint], seed: int, n_prompts: int, data: Path | None = None) -> "Provenance":
        """That of a command on these checkpoints, and on the prompts in a file; reads all of these files."""
        about = None if data is None else {"name": str(data), "sha256": sha256(data.read_bytes()).hexdigest()}
        runs = [describe(run.name, run.directory, run.step, run.config) for run in checkpoints]
        return cls(runs, seed, n_prompts, about)

    def document(self, verdict: Iterable[str]) -> dict[str, Any]:
        """What `run.json` says: this, the command line, versions, the commit, the date, and the verdict.

        Args:
            verdict: sentences.
        """
        versions = environment()
        commit = versions.pop("commit")
        return {
            "command": command_line(sys.argv[1:]),
            "versions": versions | {DISTRIBUTION: importlib.metadata.version(DISTRIBUTION)},
            "commit": commit,
            "checkpoints": [dict(checkpoint) for checkpoint in self.checkpoints],
            "seed": self.seed,
            "prompts": self.n_prompts,
            "data": self.data,
            "date": now().isoformat(timespec="seconds"),
            "verdict": list(verdict),
        }


def describe(name: str, directory: Path, step: int | None, config: RunConfig) -> dict[str, Any]:
    """Name, step, hash and seeds of a run's weights; the step None is its latest."""
    return {"name": name, "step": step, "sha256": weights_hash(directory, step), "seeds": vars(config.seeds)}


def command_line(words: Sequence[str]) -> str:
    """The command without `--out` and `--json`, which say where results go and not what they are.

    >>> command_line(["score", "--ckpt", "zoo:mixed-0", "--out", "my results", "--json"])
    'interp score --ckpt zoo:mixed-0'
    """
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "--out":
            next(rest, None)
        elif word != "--json" and not word.startswith("--out="):
            kept.append(word)
    return shlex.join(["interp", *kept])


def write(document: Mapping[str, Any], directory: Path) -> None:
    """Write `run.json` into a directory."""
    write_text(json.dumps(plain(dict(document)), indent=1) + "\n", directory / FILE)

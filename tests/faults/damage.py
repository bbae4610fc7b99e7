"""Ways to damage files, on purpose or at random."""

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from training.checkpoints.tensor_files import Tensors, read_tensors, serialised, write_tensors

CONFIG, WEIGHTS, HISTORY = "config.json", "model.safetensors", "history.jsonl"
SNAPSHOT, RESUME = "snapshots/step-000014.safetensors", "resume/state.safetensors"

FEW = ("--prompts", "4", "--classes", "linear")
CALM = ("--controls", "2", "--mode", "mean")


def flip(path: Path, place: int) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)


def cut(path: Path, n_bytes: int) -> None:
    """Shorten a file by so many bytes."""
    path.write_bytes(path.read_bytes()[:-n_bytes])


def edit_config(directory: Path, key: str, value: Any) -> None:
    """Change one value of config.json, `run.model.d_model`."""
    path = directory / CONFIG
    document = place = json.loads(path.read_text())
    *way, last = key.split(".")
    for name in way:
        place = place[name]
    place[last] = value
    path.write_text(json.dumps(document))


def edit_tensors(path: Path, edit: Callable[[Tensors], Tensors], words: Mapping[str, str] | None = None) -> None:
    """Change a safetensors file as a program would that knows how to seal it."""
    tensors, metadata = read_tensors(path)
    write_tensors(path, edit(tensors), {**metadata, **(words or {})})


def unsealed(path: Path) -> None:
    """Make a weights file one of a program that kept no hashes yet."""
    tensors, metadata = read_tensors(path)
    path.write_bytes(serialised(tensors, {"step": metadata["step"]}))


def edit_header(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Change what a safetensors file says of itself, with everything else as it was."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = edit(json.loads(content[8:start]))
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[start:])


def mutated(content: bytes, rng: random.Random) -> bytes:
    """The content after one of the accidents that happen to files."""
    start = rng.randrange(len(content))
    stop = min(len(content), start + rng.choice([1, 7, 64, 512, 4096]))
    before, block, after = content[:start], content[start:stop], content[stop:]
    bit = 1 << rng.randrange(8)
    accidents: list[Callable[[], bytes]] = [
        lambda: before + bytes([block[0] ^ bit]) + block[1:] + after,
        lambda: before,
        lambda: before + bytes(len(block)) + after,
        lambda: before + rng.randbytes(len(block)) + after,
        lambda: before + after,
        lambda: before + block + block + after,
        lambda: after + block + before,
        lambda: content + rng.randbytes(len(block)),
        lambda: content[rng.randrange(1, len(content)) :],
        lambda: b"",
    ]
    return rng.choice(accidents)()


def write_mutated(path: Path, rng: random.Random) -> None:
    path.write_bytes(mutated(path.read_bytes(), rng))

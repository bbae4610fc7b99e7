"""A safetensors file that tells whether it is as it was written: its metadata hold a hash of all that it says.

Files of programs that kept no hash yet are read as they are.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from training.common.atomic_files import check_name, check_plain, write_atomically
from training.common.errors import UserError

SEAL = "sha256"

Tensors = dict[str, Tensor]
Metadata = dict[str, str]


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and words about them in one file, atomically and sealed."""
    packed = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, serialised(packed, {**metadata, SEAL: digest(packed, metadata)}))


def serialised(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The file's content: the same bytes for the same content, which safetensors promises of the tensors only."""
    plain = save(dict(tensors))
    start = 8 + int.from_bytes(plain[:8], "little")
    header = {"__metadata__": dict(metadata), **json.loads(plain[8:start])}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + plain[start:]


def read_tensors(path: Path) -> tuple[Tensors, Metadata]:
    """What `write_tensors` wrote; takes no more memory than the file is large.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is damaged.
    """
    tensors, metadata = read(path)
    seal = metadata.pop(SEAL, None)
    if seal is not None and seal != digest(tensors, metadata):
        raise UserError(f"{path} is damaged: its content is not what was written")
    return tensors, metadata


def read_metadata(path: Path) -> Metadata:
    """The words alone, unverified, without the tensors.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it is damaged.
    """
    return read(path, tensors=False)[1]


def read(path: Path, *, tensors: bool = True) -> tuple[Tensors, Metadata]:
    check_name(path)
    try:
        check_plain(path)
        with safe_open(path, "pt") as file:  # checks that the tensors which its header announces are there
            names = file.keys() if tensors else ()
            return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except FileNotFoundError:
        raise
    except (OSError, SafetensorError, ValueError, MemoryError) as error:
        raise UserError(f"{path} is damaged: {first_line(error)}") from None


def digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """A hash of names, types, shapes, values and words."""
    found = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]

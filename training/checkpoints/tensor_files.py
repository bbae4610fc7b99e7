"""A safetensors file that tells whether it is as it was written: its metadata hold a hash of all that it says.

Files of programs that kept no hash yet are read as they are.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from training.common.atomic_files import kind_of_file, open_plain, write_atomically
from training.common.errors import UserError
from training.common.file_kinds import SAFETENSORS

SEAL = "sha256"
LARGEST_HEADER = 2**22  # bytes; a run of 12 layers has a few ten thousand, and each takes some twenty bytes of memory

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
    try:
        with open_plain(path) as handle:
            check_header(handle)
            with safe_open(readable_name(path, handle), "pt") as file:  # checks that what its header announces is there
                names = file.keys() if tensors else ()
                return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})
    except FileNotFoundError:
        raise
    except (OSError, SafetensorError, ValueError, MemoryError) as error:
        kind = kind_of_file(path)
        reason = first_line(error) if kind in (None, SAFETENSORS) else f"it is {kind}, not safetensors"
        raise UserError(f"{path} is damaged: {reason}") from None


def check_header(handle: int) -> None:
    """Refuse a header that takes many times its size in memory when it is read.

    Raises:
        ValueError: it is larger than any of ours.
    """
    n_bytes = int.from_bytes(os.pread(handle, 8, 0), "little")
    if n_bytes > LARGEST_HEADER:
        raise ValueError(f"its header announces {n_bytes} bytes, and none of ours has more than {LARGEST_HEADER}")


def readable_name(path: Path, handle: int) -> str:
    """A name by which safetensors can open a file: it takes UTF-8 only, so that of the handle where the path is not."""
    is_text = not any("\ud800" <= letter <= "\udfff" for letter in str(path))
    return str(path) if is_text else f"/dev/fd/{handle}"


def digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """A hash of names, types, shapes, values and words."""
    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]

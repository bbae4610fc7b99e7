"""Kinds of files by their first bytes, for messages about files with other content than their name implies."""

import re

SAFETENSORS = "a safetensors file"
UTF8_MARK = b"\xef\xbb\xbf"
KINDS = (
    (rb"version https://git-lfs", "a pointer of Git LFS (`git lfs pull` fetches the file that it stands for)"),
    (rb"\x89PNG\r\n", "a PNG image"),
    (rb"\xff\xd8\xff", "a JPEG image"),
    (rb"GIF8", "a GIF image"),
    (rb"%PDF-", "a PDF document"),
    (rb"PK(\x03\x04|\x05\x06)", "a zip archive (as `torch.save` writes)"),
    (rb"\x80[\x02-\x05]", "a pickle"),
    (rb"\x1f\x8b", "a gzip archive"),
    (rb"BZh[1-9]", "a bzip2 archive"),
    (rb"\xfd7zXZ\0", "an xz archive"),
    (rb"\x28\xb5\x2f\xfd", "a zstd archive"),
    (rb".{257}ustar", "a tar archive"),
    (rb"\x89HDF\r\n", "an HDF5 file"),
    (rb"\x93NUMPY", "a numpy array"),
    (rb"SQLite format 3\0", "an SQLite database"),
    (rb"GGUF", "a GGUF model"),
    (rb"\x7fELF", "a program"),
    (rb"#!", "a script"),
    (rb"(\xff\xfe|\xfe\xff)", "text in UTF-16 or UTF-32, not UTF-8"),
    (rb"(\xef\xbb\xbf)?\s*(?i:<!doctype html|<html)", "an HTML page"),
    (rb".{8}\{\"", SAFETENSORS),
)
"""Patterns of first bytes, and the kind of file."""
LONGEST = 512  # bytes that patterns are matched against


def kind_of_content(content: bytes) -> str | None:
    """The kind of a file with these first bytes, in words; None if it is unknown.

    >>> kind_of_content(bytes([0x89]) + b"PNG\\r\\n"), kind_of_content(b"")
    ('a PNG image', 'empty')
    """
    if not content:
        return "empty"
    start = content[:LONGEST]
    return next((kind for pattern, kind in KINDS if re.match(pattern, start, re.DOTALL)), None)

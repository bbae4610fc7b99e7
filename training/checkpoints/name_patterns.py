"""Patterns of checkpoints: `zoo:mixed-*` and `runs/*` name all that match.

`*`, `?` and `[abc]` match within a name, never a `/`. A bracket is literal where an entry has that literal
name: `grid[1]/*` names the runs in the directory `grid[1]`.
"""

import os
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from training.checkpoints.checkpoint import CONFIG, Checkpoint, is_directory, load, split_step, zoo_names, zoo_summary
from training.common.errors import UserError

SIGNS = "*?["


def load_all(names: Sequence[str], device: str = "cpu") -> list[Checkpoint]:
    """Load checkpoints by names or patterns, in their order."""
    return [load(name, device) for name in expand(names)]


def expand(names: Sequence[str], root: Path | None = None) -> list[str]:
    """The names of the checkpoints that match these names and patterns.

    Args:
        names: names and patterns.
        root: the directory to which paths are relative; None for the current one.

    Raises:
        UserError: a pattern matches none, or a checkpoint is named twice.

    >>> expand(["zoo:linear-0", "zoo:mixed-[0]"])
    ['zoo:linear-0', 'zoo:mixed-0']
    """
    start = Path() if root is None else root
    expanded = [match for name in names for match in (matches(name, start) if is_pattern(name, start) else [name])]
    if len(set(expanded)) < len(expanded):
        raise UserError(f"--ckpt {max(expanded, key=expanded.count)} is named twice")
    return expanded


def is_pattern(name: str, root: Path) -> bool:
    """Whether a name has `*`, `?` or `[` and is not the name of a directory."""
    return any(sign in name for sign in SIGNS) and not is_directory(root / name)


def matches(pattern: str, root: Path) -> list[str]:
    """The shipped checkpoints or run directories that match a pattern; `@STEP` applies to each."""
    if whole := matching_runs(pattern, root):
        return whole
    base, step = split_step(pattern)
    with_step = [] if step is None else [f"{name}@{step}" for name in matching_runs(base, root)]
    if not with_step:
        raise UserError(f"--ckpt {pattern}: there is no such checkpoint (shipped ones: {', '.join(zoo_summary())})")
    return with_step


def matching_runs(pattern: str, root: Path) -> list[str]:
    if pattern.startswith("zoo:"):
        return [f"zoo:{name}" for name in match_names(zoo_names(), pattern.removeprefix("zoo:"))]
    start = "/" if pattern.startswith("/") else ""
    paths = [start]
    for part in pattern.split("/"):
        if part:
            paths = [below for path in paths for below in matching_entries(path, part, root)]
    return sorted(path for path in paths if (root / path / CONFIG).exists())


def matching_entries(path: str, part: str, root: Path) -> list[str]:
    """The entries of a directory that match a part of a pattern, each below the path of the directory."""
    if any(sign in part for sign in SIGNS):
        names = [
            name for name in match_names(entries(root / path), part) if part.startswith(".") or not name.startswith(".")
        ]
    else:
        names = [part] if is_directory(root / path / part) else []
    return [os.path.join(path, name) for name in names]  # noqa: PTH118 - `./runs` stays as it was written


def match_names(names: Iterable[str], pattern: str) -> list[str]:
    """The names that match a pattern: with its brackets taken literally if any match so, else as a set of letters.

    >>> match_names(["a[1]", "a1"], "a[1]*"), match_names(["a1", "a2"], "a[1]")
    (['a[1]'], ['a1'])
    """
    known = list(names)
    literal = [name for name in known if fnmatchcase(name, pattern.replace("[", "[[]"))]
    return literal or [name for name in known if fnmatchcase(name, pattern)]


def entries(directory: Path) -> list[str]:
    try:
        return [path.name for path in directory.iterdir()]
    except OSError:
        return []

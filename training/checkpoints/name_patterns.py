"""Several checkpoints by name: `zoo:mixed-*` and `runs/*` stand for all that are called so."""

from collections.abc import Sequence
from fnmatch import filter as fnmatched
from glob import glob
from pathlib import Path

from training.checkpoints.checkpoint import CONFIG, Checkpoint, load, zoo_names, zoo_summary
from training.common.errors import UserError

SIGNS = "*?["


def load_all(names: Sequence[str], device: str = "cpu") -> list[Checkpoint]:
    """Load checkpoints by names or patterns, in their order."""
    return [load(name, device) for name in expand(names)]


def expand(names: Sequence[str]) -> list[str]:
    """The names of the checkpoints that these names and patterns stand for.

    Raises:
        UserError: a pattern stands for none, or a checkpoint is named twice.

    >>> expand(["zoo:linear-0", "zoo:mixed-[0]"])
    ['zoo:linear-0', 'zoo:mixed-0']
    """
    found = [one for name in names for one in (matches(name) if is_pattern(name) else [name])]
    if len(set(found)) < len(found):
        raise UserError(f"--ckpt {max(found, key=found.count)} is named twice")
    return found


def is_pattern(name: str) -> bool:
    """Whether a name has `*`, `?` or `[` and is not itself a directory that is called so."""
    return any(sign in name for sign in SIGNS) and not Path(name).is_dir()


def matches(pattern: str) -> list[str]:
    """The shipped checkpoints or run directories that a pattern stands for; `@STEP` holds for each."""
    base, at, step = pattern.partition("@")
    if base.startswith("zoo:"):
        found = [f"zoo:{name}" for name in fnmatched(zoo_names(), base.removeprefix("zoo:"))]
    else:
        found = sorted(path for path in glob(base) if (Path(path) / CONFIG).exists())  # noqa: PTH207 - patterns may be absolute
    if not found:
        raise UserError(f"--ckpt {pattern}: there is no such checkpoint (shipped ones: {', '.join(zoo_summary())})")
    return [name + at + step for name in found]

"""Models that this project did not train: how the functions and commands of `interp` take them as well.

`interp.attach` opens any torch module as an `AttachedModel`. A function marked with `opens_models`
(`interp.model.opened`) hands such a model the call; a command marked with `opens_files` does so for
`--ckpt FILE.py:NAME`.
"""

import importlib.util
import inspect
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from training.common.errors import CheckError, UserError

CommandT = TypeVar("CommandT", bound=Callable[..., Any])
FILE = re.compile(r"(?P<file>.+\.py):(?P<name>\w+)")


class AttachedModel(ABC):
    """A model that is not a checkpoint. Its methods are the functions of `interp` that it can be given to."""

    name: str

    @abstractmethod
    def ablate(self, *args: Any, **options: Any) -> Any:
        """See `interp.ablate`."""

    @abstractmethod
    def score(self, *args: Any, **options: Any) -> Any:
        """See `interp.score`."""

    @abstractmethod
    def patterns(self, *args: Any, **options: Any) -> Any:
        """See `interp.patterns`."""

    @abstractmethod
    def patch(self, *args: Any, **options: Any) -> Any:
        """See `interp.patch`."""


def opens_files(run: str, *options: str) -> Callable[[CommandT], CommandT]:
    """Let a command open `--ckpt FILE.py:NAME`.

    Args:
        run: `MODULE:FUNCTION`, called with the name and, as keywords, the options that differ from their defaults.
        *options: which options of the command apply to attached models; others are refused.
    """
    known = {"ckpt", "json", "out", *options}

    def mark(command: CommandT) -> CommandT:
        parameters = inspect.signature(command).parameters
        defaults = {name: parameter.default for name, parameter in parameters.items()}
        spelt = {name: spelling(name, parameter.annotation) for name, parameter in parameters.items()}

        @wraps(command)
        def choose(**given: Any) -> Any:
            names = [given["ckpt"]] if isinstance(given["ckpt"], str) else list(given["ckpt"])
            if not any(is_file_name(name) for name in names):
                return command(**given)
            if len(names) > 1:
                raise UserError(f"--ckpt {' --ckpt '.join(names)}: FILE.py:NAME stands alone, one model at a time")
            chosen = {name: value for name, value in given.items() if value != defaults[name] and name != "ckpt"}
            for name in set(chosen) - known:
                valid = ", ".join(spelt[option] for option in (*options, "json", "out"))
                raise UserError(f"{spelt[name]} does not apply to {names[0]} (valid: {valid})")
            module, _, function = run.partition(":")
            with errors_of_file(names[0]):
                return getattr(importlib.import_module(module), function)(names[0], **chosen)

        return choose  # type: ignore[return-value]  # the same signature

    return mark


def spelling(name: str, annotation: Any) -> str:
    """How an option is written on the command line: as its annotation says, or like its parameter."""
    declared = next(iter(getattr(annotation, "__metadata__", ())), None)
    names = (getattr(declared, "default", None), *(getattr(declared, "param_decls", None) or ()))
    spelt = (text for text in names if isinstance(text, str) and text.startswith("--"))
    return next(spelt, f"--{name.replace('_', '-')}").partition("/")[0]


def is_file_name(ckpt: str) -> bool:
    """
    >>> is_file_name("lm.py:induction"), is_file_name("zoo:mixed-0"), is_file_name("runs/a.py")
    (True, False, False)
    """
    return FILE.fullmatch(ckpt) is not None


def open_file(ckpt: str) -> AttachedModel:
    """The attached model that a function of a user's file returns.

    Args:
        ckpt: `FILE.py:NAME`.

    Raises:
        UserError: no such file or function, the function fails, or it returns something else.
    """
    match = FILE.fullmatch(ckpt)
    if match is None:
        raise UserError(f"--ckpt {ckpt}: FILE.py:NAME is needed")
    path, name = Path(match["file"]), match["name"]
    if not path.is_file():
        raise UserError(f"--ckpt {ckpt}: there is no file '{path}' (`interp init {path}` writes one to start from)")
    function = getattr(import_file(path, ckpt), name, None)
    if not callable(function):
        raise UserError(f"--ckpt {ckpt}: {path} has no function '{name}'")
    try:
        model = function()
    except UserError as error:
        raise UserError(f"--ckpt {ckpt}: {error}") from None
    except (Exception, SystemExit) as error:
        raise UserError(
            f"--ckpt {ckpt}: {name}() raises {type(error).__name__}: {error}{line_of(error, path)}"
        ) from None
    if not isinstance(model, AttachedModel):
        returned = f"{type(model).__module__}.{type(model).__qualname__}".removeprefix("builtins.")
        raise UserError(f"--ckpt {ckpt}: {name}() returns {returned}; the result of interp.attach is needed")
    return model


@contextmanager
def errors_of_file(ckpt: str) -> Iterator[None]:
    """Report in one line what a user's file raises later, in its loss or its model.

    Raises:
        UserError: it raises; exceptions that do not come from the file pass.
    """
    try:
        yield
    except (UserError, CheckError):
        raise
    except Exception as error:
        path, _, name = ckpt.rpartition(":")
        if not (line := line_of(error, Path(path))):
            raise
        raise UserError(f"--ckpt {ckpt}: what {name}() attached raises {type(error).__name__}: {error}{line}") from None


def import_file(path: Path, ckpt: str) -> Any:
    """A user's file as a module; what lies beside it can be imported, as in a script.

    Raises:
        UserError: it fails.
    """
    spec = importlib.util.spec_from_file_location(f"attached_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UserError(f"--ckpt {ckpt}: {path} raises {type(error).__name__}: {error}{line_of(error, path)}") from None
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


def line_of(error: BaseException, path: Path) -> str:
    """Where in the user's file an error came from."""
    lines: Sequence[int] = []
    frame = error.__traceback__
    while frame is not None:
        if Path(frame.tb_frame.f_code.co_filename) == path.absolute() or frame.tb_frame.f_code.co_filename == str(path):
            lines = [*lines, frame.tb_lineno]
        frame = frame.tb_next
    return f" (line {lines[-1]})" if lines else ""

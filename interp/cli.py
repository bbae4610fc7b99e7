"""The command line `interp`: loads the commands of every package and runs one of them.

Commands are entry points in the group `interp.commands` (see pyproject.toml), so that no package imports one above it
and `interp --help` imports neither torch nor a plotting library.
"""

import inspect
import os
import re
import sys
import traceback
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import entry_points
from io import TextIOWrapper
from pathlib import Path
from types import FunctionType
from typing import Annotated, Any, NoReturn

import typer
from rich.markup import escape
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption
from typer.exceptions import TyperException

import interp
from training.common import terminal
from training.common.docstrings import docstring
from training.common.errors import CheckError, UserError
from training.common.terminal import echo, naming_stream, one_line
from training.options import current_option_name

GROUP = "interp.commands"
BROKEN_PIPE = 141  # 128 + SIGPIPE, as a shell reports it of a program whose reader has gone
PANELS = {"training": "Make models", "interp": "Open models", "analyses": "Ask questions"}


class StrictCommand(TyperCommand):
    """A command that refuses an option given twice, of which only the last value would count.

    Its help fills the lines of a paragraph, prints brackets (which rich takes for markup) and names no Python types.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.help = self.help and escape(fill_paragraphs(self.help))
        for parameter in (parameter for parameter in self.params if isinstance(parameter, TyperOption | TyperArgument)):
            parameter.help = parameter.help and escape(parameter.help)
            if isinstance(parameter, TyperArgument):
                parameter.display_type = lambda *_, **__: None  # type: ignore[method-assign]
            elif parameter.metavar is None:
                parameter.metavar = "" if parameter.is_flag else "NAME"

    def get_help_option(self, ctx: Any) -> TyperOption | None:
        return without_type(super().get_help_option(ctx))

    def invoke(self, ctx: Any) -> Any:
        """Run the command; one that is interrupted says what was kept."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            kept = one_line(str(stop)) or "a file that it writes is complete or was not written"
            print(f"interp: interrupted: {kept}", file=sys.stderr)
            raise

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _, _, given = self.make_parser(ctx).parse_args(args=list(args))
        for parameter, n_times in Counter(given).items():
            if n_times > 1 and isinstance(parameter, TyperOption) and not parameter.multiple:
                raise UserError(f"{parameter.opts[0]} is given {n_times} times: give it once")
        return super().parse_args(ctx, args)


class StrictGroup(TyperGroup):
    """A group of commands whose help names no Python types."""

    def get_params(self, ctx: Any) -> list[Any]:
        parameters = super().get_params(ctx)
        for parameter in parameters:
            if isinstance(parameter, TyperOption) and parameter.is_flag:
                without_type(parameter)
        return parameters


def without_type(flag: TyperOption | None) -> TyperOption | None:
    """The flag, which takes no value, without the name of a type in help."""
    if flag is not None:
        flag.metavar = ""
    return flag


def fill_paragraphs(text: str) -> str:
    """The text with every paragraph in one line, but for those that keep their lines (they begin with a backspace).

    >>> fill_paragraphs("One sentence" + chr(10) + "in two lines.")
    'One sentence in two lines.'
    """
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(part if part.startswith("\b") else " ".join(part.split()) for part in paragraphs)


def build() -> typer.Typer:
    """The application, with one command per entry point."""
    app = typer.Typer(
        cls=StrictGroup,
        help="Which attention heads make a transformer learn in context, and do they really cause it?",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={
            "help_option_names": ["-h", "--help"],
            "token_normalize_func": current_option_name,
        },
    )
    app.callback()(add_options)
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: list(PANELS).index(entry.module.split(".")[0])):
        command, panel = entry.load(), PANELS[entry.module.split(".")[0]]
        restore_docstrings(command)
        if isinstance(command, typer.Typer):
            for info in command.registered_commands:
                info.cls = StrictCommand
            app.add_typer(command, name=entry.name, cls=StrictGroup, rich_help_panel=panel)
        else:
            app.command(entry.name, cls=StrictCommand, rich_help_panel=panel)(command)
    return app


def restore_docstrings(command: object) -> None:
    """Restore the docstring, which is the help, of a command or of all commands of a group under `python -OO`."""
    commands = (
        [info.callback for info in command.registered_commands] if isinstance(command, typer.Typer) else [command]
    )
    for function in commands:
        if isinstance(function, FunctionType):
            function.__doc__ = docstring(function)


def print_version(is_requested: bool) -> bool:
    if is_requested:
        echo(f"interp {interp.__version__}")
        raise typer.Exit
    return is_requested


def silence(is_requested: bool) -> bool:
    if is_requested:
        os.environ["TQDM_DISABLE"] = "1"
        terminal.notes_are_printed = False
    return is_requested


Version = Annotated[
    bool, typer.Option("--version", help="Print the version and exit.", callback=print_version, is_eager=True)
]
Quiet = Annotated[
    bool, typer.Option("-q", "--quiet", help="Print results and errors only: no progress, no notes.", callback=silence)
]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="With an error, print the traceback, too.")]
FLAGS = {"-q": "quiet", "--quiet": "quiet", "-v": "verbose", "--verbose": "verbose"}


def add_options(version: Version = False, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Options of `interp` itself. -q and -v may stand after the command, too."""


def flags_first(arguments: Sequence[str]) -> list[str]:
    """The arguments with the flags of `interp` itself in front of the command, each of them once.

    >>> flags_first(["ablate", "-q", "--heads", "0.1", "--quiet"])
    ['--quiet', 'ablate', '--heads', '0.1']
    """
    given = {FLAGS[word]: None for word in arguments if word in FLAGS}
    return [*(f"--{name}" for name in given), *(word for word in arguments if word not in FLAGS)]


def main() -> NoReturn:
    """Run the command line.

    Exit codes: 0 done, 1 a self-check failed, 2 the input is wrong, 130 interrupted, 141 stdout was closed by its
    reader.
    """
    prepare_streams()
    os.environ["MPLBACKEND"] = "agg"  # figures go to files, even if the shell sets a backend for notebooks
    try:
        check_current_directory()
        code = run()
        with naming_stream("stdout"):
            print(end="", flush=True)
    except BrokenPipeError:
        discard_output()
        sys.exit(BROKEN_PIPE)
    except CheckError as error:
        fail(error, 1)
    except UserError as error:
        fail(error, 2)
    except TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            sys.exit(0)  # the help has been printed
        fail(error, 2)
    except (OSError, MemoryError, RuntimeError) as error:
        message = describe_system_error(error)
        if message is None:
            raise
        fail(UserError(message), 2)
    sys.exit(code if isinstance(code, int) else 0)


def prepare_streams() -> None:
    """Make sure that all three standard streams are open and can print any character.

    A closed stream is connected to the null device. Otherwise the next opened file would get its number and receive
    what is printed.
    """
    null = os.open(os.devnull, os.O_RDWR)
    while null <= 2:  # os.open returns the lowest free number
        null = os.open(os.devnull, os.O_RDWR)
    os.close(null)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - open as long as the process
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal may lack ², and a path may not be valid text


def check_current_directory() -> None:
    """Refuse to run in a directory that has been deleted, where libraries crash when they are imported.

    Raises:
        UserError: the current directory has been deleted.
    """
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UserError("the current directory has been deleted: change to one that exists") from None


def run() -> object:
    """Build the application and run one command; returns what the command returns.

    Raises:
        BrokenPipeError: stdout was closed by its reader; typer turns this into an exit with code 1.
    """
    try:
        return build()(args=flags_first(sys.argv[1:]), standalone_mode=False)
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):
            raise stop.__context__ from None
        raise


def discard_output() -> None:
    """Discard the rest of the output, so that Python does not report the closed stream again at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def describe_system_error(error: Exception) -> str | None:
    """An error of the operating system in words (full disk, too long a name, memory); None for any other error.

    >>> describe_system_error(FileNotFoundError(2, "No such file or directory", "a"))
    "cannot use 'a': No such file or directory"
    """
    if isinstance(error, MemoryError) or re.search("allocate memory|out of memory", str(error)):
        return "not enough memory: ask for fewer prompts or sets at a time, or a smaller model"
    if not isinstance(error, OSError):
        return None
    reason = error.strerror or str(error) or type(error).__name__
    if error.filename is not None:
        return f"cannot use '{error.filename}': {reason}"
    return f"the operating system reports: {reason}"


def describe_usage_error(error: TyperException) -> str:
    """typer's message; for an option that is missing with what it takes."""
    message, meaning = error.format_message(), getattr(getattr(error, "param", None), "help", None)
    if not message.startswith("Missing") or not meaning:
        return message
    return f"{message.rstrip('.')}: {meaning}".replace("\\[", "[")


def fail(error: Exception, code: int) -> NoReturn:
    message = (
        describe_usage_error(error) if isinstance(error, TyperException) else getattr(error, "message", str(error))
    )
    with suppress(OSError):  # stderr may be closed
        if "verbose" in map(FLAGS.get, sys.argv):
            traceback.print_exception(error)
        print(f"interp: {one_line(message)}", file=sys.stderr)
    try:
        print(end="", flush=True)
    except OSError:
        discard_output()
    sys.exit(code)

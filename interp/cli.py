"""The command `interp`: finds the commands of every package and runs one.

Commands are entry points in the group `interp.commands` (see pyproject.toml), so nothing is imported upwards and
`interp --help` imports neither torch nor a plotting library.
"""

import sys
from importlib.metadata import entry_points
from typing import NoReturn

import typer
from typer.exceptions import TyperException

from training.errors import CheckError, UserError

GROUP = "interp.commands"
PANELS = {"training": "Make models", "interp": "Open models", "analyses": "Ask questions"}


def build() -> typer.Typer:
    """The application, with one command per entry point."""
    app = typer.Typer(
        help="Which attention heads make a transformer learn in context, and do they really cause it?",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: list(PANELS).index(entry.module.split(".")[0])):
        command, panel = entry.load(), PANELS[entry.module.split(".")[0]]
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=entry.name, rich_help_panel=panel)
        else:
            app.command(entry.name, rich_help_panel=panel)(command)
    return app


def main() -> NoReturn:
    """Run the command line. Exit codes: 0 done, 1 a self-check failed, 2 the input is wrong, 130 interrupted."""
    try:
        code = build()(standalone_mode=False)
    except CheckError as error:
        fail(error, 1)
    except UserError as error:
        fail(error, 2)
    except TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            sys.exit(0)  # its message is the help, which has been printed
        fail(error, 2)
    sys.exit(code if isinstance(code, int) else 0)


def fail(error: Exception, code: int) -> NoReturn:
    message = error.format_message() if isinstance(error, TyperException) else str(error)
    print(f"interp: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)

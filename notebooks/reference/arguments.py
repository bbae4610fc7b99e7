"""Writes the table of the public functions by their arguments into the first page of the API reference.

python notebooks/reference/arguments.py
"""

import inspect
import re
from collections import Counter
from pathlib import Path

import interp

PAGE = Path(__file__).with_name("index.md")
TABLE = re.compile(r"(?<=<!-- arguments -->\n).*?(?=<!-- end -->)", re.DOTALL)
SHARED = 3
"""An argument of so many functions has a column; the others are listed in the last one."""


def argument_table() -> str:
    """A row per public function with the defaults of its arguments, as Markdown."""
    functions = [name for name in sorted(interp.__all__) if inspect.isfunction(getattr(interp, name))]
    arguments = {name: inspect.signature(getattr(interp, name)).parameters for name in functions}
    counts = Counter(argument for parameters in arguments.values() for argument in parameters)
    columns = [argument for argument, n in counts.items() if n >= SHARED]
    lines = [["function", *(f"`{column}`" for column in columns), "other arguments"]]
    lines.append(["---"] * len(lines[0]))
    for name, parameters in arguments.items():
        shared = [default_of(parameters[column]) if column in parameters else "" for column in columns]
        others = [
            f"`{argument}` {default_of(parameters[argument])}" for argument in parameters if argument not in columns
        ]
        lines.append([f"[`{name}`][interp.{name}]", *shared, ", ".join(others)])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def default_of(parameter: inspect.Parameter) -> str:
    """The default as a reader would write it, or that there is none."""
    if parameter.default is parameter.empty:
        return "required"
    default = parameter.default
    if isinstance(default, tuple) and default and all(isinstance(item, str) for item in default):
        return f"`{','.join(default)}`"
    return f"`{getattr(default, '__name__', default)}`"


if __name__ == "__main__":
    PAGE.write_text(TABLE.sub(lambda _: f"\n{argument_table()}\n", PAGE.read_text()))

"""Docstrings, also under `python -OO`, which removes them from the compiled code."""

import ast
import inspect
import sys
from textwrap import dedent
from typing import Any


def docstring(documented: Any) -> str:
    """The cleaned docstring of a class, an instance's class or a function; empty if there is none.

    Under -OO it is read from the source, unless it was assigned at run time; a dataclass has its signature there.

    >>> docstring(docstring).partition(";")[0]
    "The cleaned docstring of a class, an instance's class or a function"
    """
    is_removed = sys.flags.optimize >= 2 and (not inspect.isroutine(documented) or documented.__doc__ is None)
    return docstring_in_source(documented) if is_removed else inspect.getdoc(documented) or ""


def docstring_in_source(documented: Any) -> str:
    """The cleaned docstring in the source file; empty if there is none, or no source.

    >>> docstring_in_source(docstring) == docstring(docstring)
    True
    """
    named = documented if isinstance(documented, type) or inspect.isroutine(documented) else type(documented)
    try:
        (definition,) = ast.parse(dedent(inspect.getsource(named))).body
    except (OSError, TypeError, SyntaxError, ValueError):  # made at run time, a built-in, or a lambda
        return ""
    is_documentable = isinstance(definition, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    return (ast.get_docstring(definition) or "") if is_documentable else ""

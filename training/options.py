"""The command-line options that several commands share: one spelling, one help text, one default each."""

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_PROMPTS = 1024

Ckpt = Annotated[
    str,
    typer.Option(
        "--ckpt",
        metavar="CKPT",
        help="A run directory, DIR@STEP for a snapshot, or zoo:NAME for a shipped model.",
    ),
]
Classes = Annotated[
    str | None,
    typer.Option(
        "--classes",
        metavar="NAME,NAME",
        help="Function classes to test on (default: those of the run).",
    ),
]
Prompts = Annotated[int, typer.Option("--prompts", metavar="N", help="Prompts per function class.")]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Seeds everything that is drawn at random.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, or cuda:N.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Write tables (CSV) and figures (PNG) to this directory."),
]

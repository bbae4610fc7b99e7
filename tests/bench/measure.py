"""What the benchmarks share: a clock, the machine's peak, turns that favour nobody, intervals and how they end."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import typer
from tqdm import tqdm

from training import options
from training.common import output
from training.common.errors import UserError
from training.common.terminal import echo

Presets = Annotated[str, typer.Option("--presets", metavar="NAME,NAME", help="Whose shapes to measure.")]
Repetitions = Annotated[
    int,
    typer.Option(
        "--repetitions", metavar="N", parser=options.whole_number(1), help="How often each is measured, in turns."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace one value of the presets; may be repeated."),
]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Write bench.csv to this directory.")]


def timed(work: Callable[[], object], device: str, times: int = 1) -> float:
    """Seconds that the work takes, on average over some times in a row."""
    wait_for(device)
    start = time.perf_counter()
    for _ in range(times):
        work()
    wait_for(device)
    return (time.perf_counter() - start) / times


def wait_for(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


def matmul_rate(device: str, dtype: torch.dtype = torch.float32) -> float:
    """The highest torch.mm rate over a few sizes, FLOP/s."""
    sizes = (512, 1024, 2048) if device == "cpu" else (2048, 4096, 8192)
    rates = []
    for size in sizes:
        a, b, product = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(3))
        for _ in range(3):
            wait_for(device)
            start = time.perf_counter()
            torch.mm(a, b, out=product)
            wait_for(device)
            rates.append(2 * size**3 / (time.perf_counter() - start))
    return max(rates)


def progress(bar: "tqdm[Any]", names: Sequence[str]) -> Iterator[str]:
    for name in names:
        yield name
        bar.update()


def rotated(names: list[str], places: int) -> list[str]:
    """The names in the same cyclic order from another start.

    >>> rotated(["a", "b", "c"], 4)
    ['b', 'c', 'a']
    """
    start = places % len(names)
    return names[start:] + names[:start]


def spread(name: str, values: Sequence[float]) -> dict[str, float]:
    return {name: statistics.median(values), f"{name}_low": min(values), f"{name}_high": max(values)}


def interval(row: Mapping[str, Any], name: str, form: str) -> str:
    return f"{row[name]:{form}} [{row[f'{name}_low']:{form}}, {row[f'{name}_high']:{form}}]"


def deliver(
    report: dict[str, Any],
    print_tables: Callable[[Mapping[str, Any]], None],
    failure: str,
    *,
    json: bool,
    directory: Path | None,
) -> None:
    """Show and write a report; exit with 1 if it falls short of what is promised."""
    if directory:
        output.write_table(pd.DataFrame(report["results"]), directory / "bench.csv")
    output.print_json(report) if json else print_tables(report)
    if failure:
        echo(f"bench: {failure}", err=True)
        raise typer.Exit(1)


def prompts_option(defaults: Mapping[str, int], text: str) -> Any:
    """`--prompts N`, where every preset has a number of its own."""
    given = f"{text} [default: {', '.join(f'{name} {n}' for name, n in defaults.items())}]"
    return typer.Option("--prompts", metavar="N", parser=options.whole_number(1), help=given)


def command(bench: Callable[..., None]) -> typer.Typer:
    """The benchmark as a command of its own, which refuses wrong input in one line and before it measures."""

    @wraps(bench)
    def refusing(*, out: Path | None, **options: Any) -> None:
        try:
            bench(**options, out=output.prepare_directory(out) if out else None)
        except UserError as error:
            raise typer.BadParameter(str(error)) from None

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(refusing)
    return app

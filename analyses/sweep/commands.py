"""The command `interp sweep`. Heavy imports wait until it runs."""

import sys
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from training import options
from training.common.errors import CheckError, UserError
from training.common.terminal import echo

if TYPE_CHECKING:
    from analyses.sweep.board import Board
    from analyses.sweep.plan import Cell
    from training.processes.processes import Workers


def sweep(
    file: Annotated[Path, typer.Argument(metavar="SWEEP.toml", help="The sweep: runs to train, analyses, studies.")],
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            metavar="N",
            parser=options.whole_number(1),
            help="Cells (a run, an analysis or a study) in parallel (default: cores divided by recipe.threads).",
        ),
    ] = None,
    retries: Annotated[
        int,
        typer.Option(
            "--retries", metavar="N", parser=options.whole_number(0), help="Times that a failed cell is tried again."
        ),
    ] = 1,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            metavar="ADDRESS",
            help="Run on a Ray cluster: HOST:PORT, or auto for the cluster that this machine belongs to.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the cells and whether they are done; start none.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Train a grid of runs and analyse them, over all cores or a cluster.

    Calling it again continues: interrupted runs resume from their last save, failed cells are tried again, and an
    analysis is repeated if its command, its weights or the code have changed.

    \b
    Examples:
      interp sweep sweep.toml --dry-run
      interp sweep sweep.toml --jobs 2
      interp sweep sweep.toml --cluster auto

    \b
    A file:
      out = "grid"
      [train]
      curriculum = ["mixed", "single:linear"]
      seeds = "0-4"
      [[analyse]]
      command = "ablate --heads top:1 --mode mean"
      [[study]]
      command = "study cause"
    """
    from analyses.sweep import table
    from analyses.sweep.board import Board, State
    from training.common import output

    if cluster is not None and jobs is not None:
        raise UserError("--jobs and --cluster exclude each other: a cluster runs as many cells as it has CPUs")
    out, cells = planned(file)
    board = Board(cells, retries)
    if dry_run:
        if json:
            output.print_json(table.document(board, out))
            return
        for line in table.listing(board):
            echo(line)
        echo(f"{len(board.of(State.DONE))} of {len(cells)} cells are done")
        return
    with redirect_stdout(sys.stderr):  # Ray's messages are no part of the output
        workers = workers_for(cells, jobs, cluster)
        for directory in {cell.directory.parent for cell in cells}:
            output.prepare_directory(directory)
        run(board, workers)
    finish(board, out, json=json)


def planned(file: Path) -> "tuple[str, list[Cell]]":
    """The sweep's directory as the file names it, and its cells.

    Raises:
        UserError: something in the file is wrong; the message names the file.
    """
    from analyses.sweep.plan import plan
    from analyses.sweep.settings import read

    sweep_file = read(file)
    try:
        cells = plan(sweep_file, file.resolve().parent)
        check_runs(cells)
        return sweep_file.out, cells
    except UserError as error:
        raise UserError(f"{file}: {error.message}") from None


def check_runs(cells: "list[Cell]") -> None:
    """Refuse, before anything starts, a directory that holds another run than the sweep would train there."""
    from training.checkpoints import run_directory as rundir
    from training.checkpoints.source_weights import with_recorded_source

    for cell in cells:
        if cell.config:
            with chdir(cell.location.root):  # where its command will look for a source
                config = with_recorded_source(cell.config, cell.directory, resume=True)
            rundir.check(config, cell.directory, resume=True, force=False)


def workers_for(cells: "list[Cell]", jobs: int | None, cluster: str | None) -> "Workers":
    """The workers of a cluster, or of this machine.

    Raises:
        UserError: the device of a cell is not there, or a GPU is named on a cluster, which gives each cell one.
    """
    from training.common.devices import check_device
    from training.processes.run_sets import workers_here

    devices = {cell.device for cell in cells}
    if cluster is not None:
        from analyses.sweep.cluster import Cluster

        if named := sorted(devices - {"cpu", "cuda"}):
            raise UserError(f"device = {named[0]}: a cluster gives every cell a GPU of its own (valid: cpu, cuda)")
        return Cluster(cluster, cells[0].location, [cell.task for cell in cells])
    threads = max(cell.task.threads for cell in cells)
    return workers_here({check_device(device) for device in devices}, threads, jobs)


def run(board: "Board", workers: "Workers") -> None:
    """Run the cells that are not done, and show progress."""
    from analyses.sweep.table import Watch
    from training.processes.processes import carry_out

    with Watch(board, workers) as watch:
        carry_out(board, workers, watch.refresh)
        workers.close()


def finish(board: "Board", out: str, *, json: bool) -> None:
    """Gather the tables of every analysis and print the result of the sweep.

    Raises:
        CheckError: a cell has failed.
    """
    from analyses.sweep import table
    from analyses.sweep.board import State
    from analyses.sweep.gather import gather
    from training.common import output

    done = [cell for cell in board.of(State.DONE) if cell.name.startswith("analyses/")]
    if done:
        gather(done, done[0].location.directory / "tables")
    if json:
        output.print_json(table.document(board, out))
    else:
        output.print_table(f"sweep {out}", *table.summary(board)[1:])
    for line in table.failures(board):
        echo(line, err=True)
    failed, skipped = board.of(State.FAILED), board.of(State.SKIPPED)
    if failed:
        beside = f", {len(skipped)} skipped ({table.names(skipped)})" if skipped else ""
        raise CheckError(f"{len(failed)} of {len(board.cells)} cells failed ({table.names(failed)}){beside}")

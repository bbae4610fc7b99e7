"""Grids of runs, and analyses of them, over all cores or a cluster, losing nothing: `interp sweep sweep.toml`.

1. A file says what the grid is (`settings`, `axes`); every mistake in it is refused before anything starts.
2. It becomes a plan of cells (`plan`): a run to train, an analysis of a run, a study of all runs. Each is one command.
3. A cell runs as a process of its own (`cell`), which leaves a record of what it did (`record`).
4. The board says which cell comes next and which have failed (`board`); processes or a cluster (`cluster`) run them.
5. What came of it is shown (`table`), and the tables of one analysis of all runs are put together (`gather`).
"""

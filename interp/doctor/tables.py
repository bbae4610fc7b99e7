"""The table of a checked function class."""

from interp.display.result import displays
from interp.doctor.class_checks import FALSE_ALARMS, ClassCheck
from training.common.output import Table, interval, number, records


@displays(ClassCheck, "tables")
def check_tables(result: ClassCheck) -> list[Table]:
    """A row per kind of weights and check."""
    rows = [
        [
            f"{row['weights']}: {row['check']}",
            number(row["declared"]),
            interval(row["measured"], row["ci_low"], row["ci_high"]),
            "yes" if row["agrees"] else "no",
        ]
        for row in records(result.table)
    ]
    meanings = {
        "declared": "by the class; of shapes, finite, repeats and causal the share that may differ; no-context "
        "optimum: the error of the declared one, which a regression of y on x alone (measured) may not undercut; "
        "baseline learns has to be below it: (error - that of the no-context optimum) / their sum",
        "measured": "with an interval; those of E[y²] and the no-context optimum together contradict at most "
        f"{FALSE_ALARMS:.1%} of classes whose declarations are right",
    }
    caption = f"{result.n_prompts} functions, {result.n_dims} dimensions, seed {result.seed}"
    header = ["weights: check", "declared", "measured", "agree"]
    return [Table(f"{result.title}: what the class declares", header, rows, caption, meanings)]

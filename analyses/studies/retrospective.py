"""Do retrospective heads make this model learn in context?

1. Learn: error curves against least squares and the no-context optimum.
2. Locate: heads whose attention from y_i to x_i exceeds one half, on the classes the model was trained on.
3. Remove: the found set and each of its heads, against layer-matched random sets, on prompts that did not choose them.
4. Say: a verdict that follows from the tables by rule (`interp.ablation.verdict`).
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from interp.ablation.ablate import Ablation, ablate_or_reasons
from interp.ablation.control_sets import MATCHES, Match
from interp.ablation.figures import plot_ablation, plot_ablation_curves
from interp.ablation.size_classes import ATTENDS
from interp.display.axes import save_figure
from interp.display.error_curves import plot_error_curves
from interp.model.heads import HeadSet, heads_above, highest_head, show
from interp.scores.figures import plot_scores
from interp.scores.score import HeadScores, score, selection_scores
from training.checkpoints.checkpoint import Checkpoint
from training.common.output import write_table, write_text
from training.common.terminal import printable_line
from training.evaluation.evaluate import error_curves

QUESTION = "Do retrospective heads make this model learn in context?"


@dataclass(frozen=True)
class RetrospectiveStudy:
    """The answer for one model.

    Attributes:
        checkpoint: the model.
        curves: error by number of examples (`training.evaluation.evaluate.error_curves`).
        scores: retrospective scores on the test prompts.
        found: the heads above one half on the selection prompts; empty if there are none.
        ablation: of the found set and of each of its heads; None if nothing was found, or if a
            self-check failed for the found set.
        sentences: the verdict.
        failures: which sets were left out because a self-check failed for them.
    """

    checkpoint: Checkpoint
    curves: pd.DataFrame
    scores: HeadScores
    found: HeadSet
    ablation: Ablation | None
    sentences: tuple[str, ...]
    failures: tuple[str, ...] = ()


def study(
    checkpoint: Checkpoint,
    *,
    n_prompts: int = 1024,
    n_controls: int = 200,
    matches: tuple[Match, ...] = tuple(MATCHES),
    seed: int = 0,
) -> RetrospectiveStudy:
    """Run the study on one model.

    Args:
        checkpoint: a loaded run.
        n_prompts: per class and stream.
        n_controls: null sets per matching and head set.
        matches: how null sets are matched, see `interp.ablation.ablate.ablate`.
        seed: of prompts, null sets and resampling.
    """
    classes = checkpoint.config.evaluated_classes
    curves = error_curves(checkpoint, classes, n_prompts=n_prompts, seed=seed, own=False)
    mean = selection_scores(checkpoint, n_prompts, seed)
    found = heads_above(ATTENDS, mean)
    scores = score(checkpoint, classes, n_prompts=n_prompts, seed=seed)
    if not found:
        highest = highest_head(mean)
        nothing = (
            f"No head scores above {ATTENDS} (the highest is {highest} with {mean[highest]:.2f}): nothing to remove."
        )
        return RetrospectiveStudy(checkpoint, curves, scores, found, None, (nothing,))
    sets = list(dict.fromkeys([found, *((head,) for head in found)]))
    ablation, reasons = ablate_or_reasons(
        checkpoint,
        sets,
        classes,
        n_prompts=n_prompts,
        n_controls=n_controls,
        matches=matches,
        seed=seed,
        scores=mean,
    )
    located = ", ".join(f"{head} ({mean[head]:.2f})" for head in found)
    first = f"Heads with a retrospective score above {ATTENDS} (chance {scores.chance:.3f}): {located}."
    verdict = [] if ablation is None else ablation.all_sentences()
    return RetrospectiveStudy(checkpoint, curves, scores, found, ablation, (first, *verdict), tuple(reasons))


def write(result: RetrospectiveStudy, directory: Path) -> None:
    """Tables (CSV), figures (PNG) and a summary (Markdown)."""
    write_table(result.curves, directory / "error_curves.csv")
    write_table(result.scores.table, directory / "scores.csv")
    save_figure(plot_error_curves(result.curves), directory / "error_curves.png")
    save_figure(plot_scores(result.scores), directory / "scores.png")
    figures = ["error_curves", "scores"]
    if result.ablation is not None:
        result.ablation.write(directory)
        found = show(result.found)
        save_figure(plot_ablation(result.ablation, found), directory / "ablation.png")
        save_figure(plot_ablation_curves(result.ablation, found), directory / "ablation_curves.png")
        figures += ["ablation_curves", "ablation"]
    write_text(summary(result, figures), directory / "summary.md")


def summary(result: RetrospectiveStudy, figures: list[str]) -> str:
    """The study on one page of Markdown, figures beside it."""
    config = result.checkpoint.config
    lines = [
        f"# {QUESTION}",
        "",
        f"Model: `{result.checkpoint.name}`, step {result.checkpoint.step} of the {config.curriculum} curriculum, "
        f"seeds {config.seeds.init} (initialisation), {config.seeds.data} (data), {config.seeds.task} (task choice). "
        "One model is one piece of evidence: a claim about a curriculum needs several seeds.",
        "",
        *(f"- {sentence}" for sentence in result.sentences),
        "",
        *(f"![{name}]({name}.png)" for name in figures),
    ]
    if result.ablation is not None:
        lines += [
            "",
            f"{result.ablation.n_prompts} prompts per class, seed {result.ablation.seed}; heads were chosen on "
            "other prompts than they were tested on. Tables: `scores.csv`, `error_curves.csv`, `ablation.csv`, "
            "`ablation_null.csv`, `ablation_curves.csv`.",
        ]
    return "\n".join(map(printable_line, lines)) + "\n"

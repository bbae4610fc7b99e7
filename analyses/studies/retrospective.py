"""Do retrospective heads make this model learn in context?

1. Error curves of the model beside least squares and the no-context optimum.
2. Locate: heads whose attention from y_i to x_i exceeds one half, on the classes that the model was trained on.
3. Remove: these heads together and one by one, compared with layer-matched control sets, on prompts that were not used
   to choose them.
4. Verdict: sentences that follow from the tables by rule (`interp.ablation.verdict`).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import pandas as pd

from analyses.findings import Figure, Findings
from interp.ablation.ablate import Ablation, ablate_or_reasons
from interp.ablation.control_sets import MATCHES, Match
from interp.ablation.figures import plot_ablation, plot_ablation_curves
from interp.ablation.size_classes import ATTENDS
from interp.commands import curve_table
from interp.display.error_curves import plot_error_curves
from interp.model.heads import HeadSet, heads_above, highest_head, show
from interp.scores.figures import plot_scores
from interp.scores.score import HeadScores, score, selection_scores
from training.checkpoints.checkpoint import Checkpoint
from training.common.output import Table
from training.evaluation.evaluate import error_curves

QUESTION = "Do retrospective heads make this model learn in context?"
SENTENCES = {
    "none": "No head scores above {threshold} (the highest is {head} with {score:.2f}): nothing to remove.",
    "located": "Heads with a retrospective score above {threshold} (chance {chance:.3f}): {heads}.",
}


@dataclass(frozen=True, repr=False, eq=False, kw_only=True)
class RetrospectiveFindings(Findings):
    """The answer for one model.

    Attributes:
        curves: error by number of examples (`training.evaluation.evaluate.error_curves`).
        scores: retrospective scores on the test prompts.
        head_set: the heads above one half on the selection prompts; empty if there are none.
        ablation: of that set and of each of its heads; None if it is empty, or if a self-check failed for it.
    """

    curves: pd.DataFrame
    scores: HeadScores
    head_set: HeadSet
    ablation: Ablation | None

    @property
    def files(self) -> Mapping[str, pd.DataFrame]:
        ablation = self.ablation.files if self.ablation else {}
        return {"error_curves": self.curves, "scores": self.scores.table, **ablation}

    def tables(self) -> list[Table]:
        caption = f"{self.protocol['prompts']} prompts, seed {self.protocol['seed']}"
        ablation = self.ablation.tables() if self.ablation else []
        return [curve_table(self.curves, self.scores.title, caption), *self.scores.tables(), *ablation]

    def document(self) -> dict[str, Any]:
        return {**super().document(), "scores": self.scores.values, "chance": self.scores.chance}


def study(
    checkpoint: Checkpoint,
    *,
    n_prompts: int = 1024,
    n_controls: int = 200,
    matches: tuple[Match, ...] = tuple(MATCHES),
    seed: int = 0,
) -> RetrospectiveFindings:
    """Run the study on one model.

    Args:
        checkpoint: a loaded run.
        n_prompts: per class and stream.
        n_controls: control sets per matching and head set.
        matches: how control sets are matched, see `interp.ablation.ablate.ablate`.
        seed: of prompts, control sets and resampling.
    """
    classes = checkpoint.config.evaluated_classes
    curves = error_curves(checkpoint, classes, n_prompts=n_prompts, seed=seed, class_baseline=False)
    selection = selection_scores(checkpoint, n_prompts, seed)
    head_set = heads_above(ATTENDS, selection)
    scores = score(checkpoint, classes, n_prompts=n_prompts, seed=seed)
    figures: dict[str, Figure] = {
        "error_curves": partial(plot_error_curves, curves),
        "scores": partial(plot_scores, scores),
    }
    ablation, failures = None, list[str]()
    if head_set:
        sets = list(dict.fromkeys([head_set, *((head,) for head in head_set)]))
        ablation, failures = ablate_or_reasons(
            checkpoint,
            sets,
            classes,
            n_prompts=n_prompts,
            n_controls=n_controls,
            matches=matches,
            seed=seed,
            scores=selection,
        )
        heads = ", ".join(f"{head} ({selection[head]:.2f})" for head in head_set)
        verdict = [SENTENCES["located"].format(threshold=ATTENDS, chance=scores.chance, heads=heads)]
    else:
        head = highest_head(selection)
        verdict = [SENTENCES["none"].format(threshold=ATTENDS, head=head, score=selection[head])]
    if ablation is not None:
        verdict += ablation.all_sentences()
        figures["ablation_curves"] = partial(plot_ablation_curves, ablation, show(head_set))
        figures["ablation"] = partial(plot_ablation, ablation, show(head_set))
    return RetrospectiveFindings(
        QUESTION,
        verdict,
        {
            "checkpoint": checkpoint.name,
            "step": checkpoint.step,
            "curriculum": checkpoint.config.curriculum,
            "seeds": [
                f"{'unknown' if seed is None else seed} ({name})"
                for name, seed in asdict(checkpoint.config.seeds).items()
            ],
            "evidence": "one model; a claim about a curriculum needs several seeds",
            "prompts": n_prompts,
            "seed": seed,
            "controls": n_controls,
            "found": [show((head,)) for head in head_set],
        },
        {"results": ablation.table if ablation else pd.DataFrame()},
        figures=figures,
        failures=failures,
        curves=curves,
        scores=scores,
        head_set=head_set,
        ablation=ablation,
    )

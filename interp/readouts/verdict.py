"""Sentences that follow from readouts by fixed rules."""

import math
from typing import Any

import pandas as pd

from interp.display.result import displays
from interp.readouts.head_decoding import HeadDecoding
from interp.readouts.lens import Lens
from interp.readouts.probes import Probes
from interp.readouts.subspace_patching import Swaps
from interp.readouts.tables import of, top_row
from interp.statistics.effects import SIGNIFICANT
from training.common.output import interval
from training.common.table_rows import distinct, where

APPEARS, COMPLETE = 0.5, 0.9
"""Shares of the model's in-context gain from which on the answer counts as there, and as complete."""


def long(reference: str) -> str:
    """A reference predictor in words.

    >>> long("gradient_descent_1"), long("ridge")
    ('gradient descent with 1 step', 'ridge')
    """
    if reference.startswith("gradient_descent_"):
        steps = reference.rpartition("_")[2]
        return f"gradient descent with {steps} step{'' if steps == '1' else 's'}"
    names = {"no_context": "the no-context optimum", "single_index": "the learner that knows the class"}
    return names.get(reference, reference.replace("_", " "))


@displays(Lens, "sentences")
def lens_verdict(result: Lens) -> list[str]:
    """One sentence per class: where the answer appears, and what the implied prediction is closest to before and after.

    The answer appears at the first stage at which the tuned lens has half of the model's gain over the no-context
    optimum (`APPEARS`), and is complete from 0.9 of it on (`COMPLETE`).
    """
    verdict = class_verdict if result.token == "x" else y_verdict
    return [verdict(result, name) for name in distinct(result.depth, "function_class")]


def class_verdict(result: Lens, name: str) -> str:
    tuned = where(result.depth, function_class=name, kind="tuned")
    steps = of(tuned, reference="target")
    if math.isnan(steps[-1]["gain"]):
        return f"On {name} the model is not shown to beat the no-context optimum: no answer appears."
    appears = next((row for row in steps if row["gain"] >= APPEARS), None)
    if appears is None:
        return f"On {name} no stage has half of the model's gain over the no-context optimum."
    before = steps[max(0, steps.index(appears) - 1)]
    complete = next(row for row in steps if row["gain"] >= COMPLETE)
    layers = [row["stage"] for row in steps if row["stage"].endswith("post")]
    nearest = [f"after layer {stage.split('.')[0]} {nearest_at(tuned, stage)}" for stage in layers]
    return (
        f"On {name} the answer appears at {appears['stage']} ({appears['gain']:.2f} of the model's gain over the "
        f"no-context optimum, {before['gain']:.2f} before) and is complete at {complete['stage']}; the tuned lens is "
        f"closest {', '.join(nearest)}."
    )


def y_verdict(result: Lens, name: str) -> str:
    """What the tuned lens reads at the y tokens, which hold the answer itself."""
    tuned = where(result.depth, function_class=name, kind="tuned")
    found = [
        f"after layer {row['stage'].split('.')[0]} {nearest_at(tuned, row['stage'])} and {row['distance']:.3f} from y"
        for row in of(tuned, reference="target")
        if row["stage"].endswith("post")
    ]
    return f"At the y tokens of {name}, which hold y itself, the tuned lens is closest {', '.join(found)}."


def nearest_at(tuned: pd.DataFrame, stage: str) -> str:
    near = sorted(of(tuned, stage=stage, near=True), key=lambda row: row["distance"])
    others = f" or {long(near[1]['reference'])}" if len(near) > 1 else ""
    return f"to {long(near[0]['reference'])}{others} ({near[0]['distance']:.3f})"


@displays(Probes, "sentences")
def probe_verdict(result: Probes) -> list[str]:
    """One sentence per class: for every target the place where it exceeds its controls most."""
    sentences = []
    for name in distinct(result.table, "function_class"):
        mine, parts = where(result.table, function_class=name, condition="intact"), []
        for target in distinct(mine, "target"):
            best = top_row(where(mine, target=target), "above")
            if not best["above_low"] > 0:
                parts.append(f"{target} nowhere above its controls")
                continue
            what = "accuracy" if best["metric"] == "accuracy" else "R²"
            parts.append(
                f"{target} best at {best['stage']}, {best['token']} tokens, k = {best['examples']} ({what} "
                f"{interval(best['value'], best['ci_low'], best['ci_high'])}, {best['above']:.2f} above its controls)"
            )
        sentences.append(f"Decodable on {name}: {'; '.join(parts)}.")
    return sentences


@displays(Swaps, "sentences")
def swap_verdict(result: Swaps) -> list[str]:
    """One sentence per class: for every target the place chosen on selection prompts, and its test on test prompts.

    A target is used where its pattern beats both kinds of controls there.
    """
    sentences = []
    for name in distinct(result.table, "function_class"):
        mine, parts = where(result.table, function_class=name, subspace="pattern"), []
        for target in distinct(mine, "target"):
            row = top_row(where(mine, target=target), "evidence")
            parts.append(
                f"{target} {judgement(row)} ({interval(row['effect'], row['ci_low'], row['ci_high'])} of the way at "
                f"{row['stage']}, {row['token']} tokens, chosen on other prompts; whole stream {row['full']:.2f}; "
                f"random subspaces {row['random']:.2f}, matched ones outside it {row['matched']:.2f}; "
                f"p = {row['p_chosen']:.3f})"
            )
        sentences.append(f"Swapped on {name}: {'; '.join(parts)}.")
    return sentences


def judgement(row: dict[str, Any]) -> str:
    if row["p_chosen"] <= SIGNIFICANT:
        return "is used"
    if row["p_chosen"] <= 1 / (row["n_controls"] + 1) + 1e-12:
        return "moves the prediction more than every random subspace, of which there are too few to say more"
    return "is not told from random subspaces"


@displays(HeadDecoding, "sentences")
def heads_verdict(result: HeadDecoding) -> list[str]:
    """One sentence per class about the head that looks most at its own x, and the one that writes most of it."""
    sentences = []
    for name in distinct(result.table, "function_class"):
        mine = where(result.table, function_class=name)
        looks, writes = (top_row(mine, column) for column in ("score", "value"))
        sentence = (
            f"On {name} head {looks['layer']}.{looks['head']} looks at x_i most ({looks['score']:.2f}) and writes"
        )
        sentence += f" it with R² {interval(looks['value'], looks['ci_low'], looks['ci_high'])}"
        if (looks["layer"], looks["head"]) != (writes["layer"], writes["head"]):
            sentence += f"; head {writes['layer']}.{writes['head']} writes most of it ({writes['value']:.2f})"
        sentences.append(sentence + ".")
    return sentences

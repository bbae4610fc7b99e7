"""Circuits in words: the smallest faithful circuit of every class, beside random graphs."""

from typing import Any

from interp.attribution.circuits import Circuits
from interp.display.result import displays
from interp.display.text import decimals, listed
from interp.statistics.p_values import p_text
from training.common.table_rows import where

MOST_HEADS = 12
"""Heads that a sentence names; more are counted."""
SENTENCES = {
    "none": "On {prompts} no circuit of the requested sizes reaches a faithfulness of {min_faithfulness:g} (at most "
    "{best:.3g}); the model has {n_all} edges.",
    "size": " None that was run with fewer edges carries {min_faithfulness:g}; others may carry as much. Its "
    "heads are {heads}.",
    "alone": "On {prompts} {n_edges} of {n_all} edges carry {faithfulness} of the difference between the clean and the "
    "corrupt run, all other edges {completeness}.",
    "beside random graphs": "On {prompts} {n_edges} of {n_all} edges carry {faithfulness} of the difference between "
    "the clean and the corrupt run, all other edges {completeness}; {n_random} random graphs of the same size carry "
    "{random:z.2f} on average and {random_high:z.2f} at most ({p}).",
}


@displays(Circuits, "sentences")
def circuit_verdict(result: Circuits) -> list[str]:
    """One sentence for every class."""
    sentences = []
    for function_class, smallest in result.smallest.items():
        kind, values = judge_circuit(result, function_class)
        size = describe_size(result, function_class) if smallest else ""
        sentences.append(SENTENCES[kind].format(**values) + size)
    return sentences


def describe_size(result: Circuits, function_class: str) -> str:
    """Why this size, and the heads between which its edges run."""
    ends = (edge[end] for edge in result.chosen(function_class) for end in ("sender", "receiver"))
    heads = {".".join(end.split(".")[:2]) for end in ends if end[0].isdigit() and "mlp" not in end}
    names = sorted(heads, key=lambda name: tuple(map(int, name.split("."))))
    return SENTENCES["size"].format(
        min_faithfulness=result.min_faithfulness,
        heads=listed(names) if len(names) <= MOST_HEADS else f"{len(names)} in number",
    )


def judge_circuit(result: Circuits, function_class: str) -> tuple[str, dict[str, Any]]:
    """Which sentence (a key of `SENTENCES`) a class gets, and its values."""
    row = result.smallest[function_class]
    values: dict[str, Any] = {
        "prompts": f"{function_class} (corrupt: {result.question.corrupt})",
        "n_all": int(result.graph.allowed.sum()),
    }
    if row is None:
        best = where(result.curve, function_class=function_class)["faithfulness"].max()
        return "none", values | {"min_faithfulness": result.min_faithfulness, "best": best}
    faithfulness, low, high = (row[f"faithfulness{end}"] for end in ("", "_low", "_high"))
    values |= row | {
        "faithfulness": f"{faithfulness:.2f} [{low:.2f}, {high:.2f}]",
        "completeness": decimals(row["completeness"]),
        "p": p_text(row["p_value"], row["n_random"]),
    }
    return "beside random graphs" if row["n_random"] else "alone", values

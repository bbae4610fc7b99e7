"""Writes the planted models that ship with the package, with their truth in words.

    python tests/truth/ship.py build/zoo-planted          # `make zoo-planted`

They were written by hand, not trained: step 0 and one line of history.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import circuits
from disguised import disguised

from interp.model.heads import Head
from training.checkpoints.checkpoint import (
    TRUTH,
    WEIGHTS,
    Checkpoint,
    append_history,
    write_config,
    write_weights,
)
from training.common.atomic_files import write_atomically
from training.evaluation.evaluate import evaluation_prompts, no_context_error, predictions
from training.model.transformer import Transformer
from training.tasks.prompts import last_quarter

SEED = 7
UNITS = 16


class Planted(NamedTuple):
    """A model and the heads of its circuit, by role."""

    checkpoint: Checkpoint
    heads: Mapping[str, Head]


class Entry(NamedTuple):
    """How a planted model is made, and its truth with roles in braces."""

    make: Callable[[Path], Planted]
    truth: str


def in_random_bases(kind: str) -> Callable[[Path], Planted]:
    def make(directory: Path) -> Planted:
        planted = disguised(kind, SEED, directory)
        return Planted(planted.checkpoint, planted.heads)

    return make


def as_written(write: Callable[[Path], Checkpoint], **heads: Head) -> Callable[[Path], Planted]:
    return lambda directory: Planted(write(directory), heads)


PLANTED: Mapping[str, Entry] = {
    "planted_single": Entry(
        in_random_bases("product alone"),
        "{copy 0} copies x_i to y_i, an MLP multiplies, {reader} averages over the examples; removing either costs all "
        "of the gain. Every other head writes nothing. In random bases.",
    ),
    "planted_redundant": Entry(
        in_random_bases("two alternatives"),
        "{copy 0} and {copy 1} both copy x_i to y_i and either is enough: removing one costs nothing, both together "
        "the whole gain. {reader} averages. In random bases.",
    ),
    "planted_decoy": Entry(
        in_random_bases("null space"),
        "{copy 0} copies x_i to y_i. {decoy} attends just as it does and writes x_i where nobody reads: removing it "
        "costs nothing, alone or together with any other head. {reader} averages. In random bases.",
    ),
    "planted_self_repair": Entry(
        as_written(circuits.self_repairing, writer=circuits.WRITER, eraser=circuits.ERASER),
        "{writer} writes the answer, and {eraser} after it erases half of what is there: the direct effect of {writer} "
        "is 4.7, its total effect 1.0 (mean ablation). 0.1 copies x_i to y_i, 1.2 averages.",
    ),
    "planted_copy_then_read": Entry(
        as_written(circuits.planted, copy=Head(0, 1), decoy=Head(0, 3), reader=Head(1, 2)),
        "{copy} copies x_i to y_i, the first MLP multiplies x_i y_i, {reader} averages, the second MLP multiplies by "
        "x_q. {decoy} attends as {copy} does and writes nothing.",
    ),
}


def truth(entry: Entry, planted: Planted) -> str:
    """The truth with the places of the heads."""
    text = entry.truth
    for role, head in planted.heads.items():
        text = text.replace(f"{{{role}}}", str(head))
    return text


def write(name: str, root: Path) -> None:
    """One planted model into a new directory."""
    with TemporaryDirectory() as scratch:
        planted = PLANTED[name].make(Path(scratch))
    directory = root / name
    directory.mkdir(parents=True)
    checkpoint = replace(without_idle_units(planted.checkpoint), directory=directory)
    write_config(directory, checkpoint.config)
    write_weights(directory / WEIGHTS, checkpoint.model, 0, checkpoint.config)
    append_history(directory, [history_row(checkpoint)], checkpoint.config)
    write_atomically(directory / TRUTH, (truth(PLANTED[name], planted) + "\n").encode())


def without_idle_units(checkpoint: Checkpoint) -> Checkpoint:
    """The same model with MLPs of `UNITS` units, which hold every circuit: the others write nothing."""
    config = replace(checkpoint.config, model=replace(checkpoint.config.model, d_mlp=UNITS))
    tensors = {}
    for name, tensor in checkpoint.model.state_dict().items():
        axis = {"W_in": 1, "b_in": 0, "W_out": 0}.get(name.rpartition(".")[2])
        if name.endswith("W_out"):
            assert not tensor[UNITS:].any()
        tensors[name] = tensor if axis is None else tensor.narrow(axis, 0, UNITS).contiguous()
    model = Transformer(config.model).requires_grad_(False)
    model.load_state_dict(tensors)
    return replace(checkpoint, config=config, model=model)


def history_row(checkpoint: Checkpoint) -> dict[str, Any]:
    """The errors that a run writes about itself."""
    config = checkpoint.config
    prompts = evaluation_prompts(config, "linear", n_prompts=config.record.eval_prompts, seed=0, stream="selection")
    unit = config.second_moment("linear")
    nmse = (predictions(checkpoint.model, prompts) - prompts.ys).square().mean(0) / unit
    tail = last_quarter(len(nmse))
    without = no_context_error(config, "linear", prompts)[:, tail].mean().item() / unit
    errors = {"nmse": nmse.mean().item(), "nmse_last": nmse[-1].item(), "nmse_tail": nmse[tail].mean().item()}
    costs = {"train_loss": None, "prompts_seen": 0, "prompts_total": 0, "flops": 0, "seconds": 0.0}
    return {"step": 0, "function_class": "linear", "inputs": "gaussian", **errors, "no_context_tail": without, **costs}


if __name__ == "__main__":
    for model in PLANTED:
        write(model, Path(sys.argv[1]))

"""Evaluations, snapshots and saves of a run in training, and its progress bar."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from training.checkpoints import checkpoint
from training.config.config import RunConfig, stream_seed
from training.config.curriculum import Arm
from training.loop.state import TrainingState, flush_losses, save
from training.model.clamping import clamped_predict, clamping_edits
from training.pools import draws_from, no_context, sources_of
from training.sampling import sample_prompts
from training.tasks.prompts import Prompts, last_quarter

PULSE = 10  # steps between checks of the loss: often enough to stop in time, seldom enough not to stall a GPU


@dataclass(frozen=True)
class HeldOut:
    """The evaluation prompts of one class and input distribution, the same ones throughout the run.

    Attributes:
        prompts: with the functions that training draws from.
        no_context: squared error of the no-context optimum on them, by point.
        fresh: prompts with fresh functions, if training draws from a pool.
    """

    prompts: Prompts
    no_context: Float[Tensor, " point"]
    fresh: Prompts | None


@dataclass(frozen=True)
class Recorder:
    """Evaluates, snapshots and saves, as far as each is due.

    Attributes:
        config: the run.
        directory: of the run.
        held_out: evaluation prompts by arm.
        snapshots: the steps at which to keep the weights.
        bar: shows progress.
        started: the clock's reading at step 0, as if the run had never been interrupted.
    """

    config: RunConfig
    directory: Path
    held_out: dict[Arm, HeldOut]
    snapshots: set[int]
    bar: "tqdm[Any]"
    started: float

    def record(self, state: TrainingState) -> None:
        """Evaluate, snapshot and save, as far as each is due after this step."""
        record, last = self.config.record, state.step == self.config.recipe.steps
        if state.step % PULSE == 0 or last:
            flush_losses(state)
            self.bar.update(state.step - self.bar.n)
        if state.step % record.eval_every == 0 or last:
            self.evaluate(state)
        if state.step in self.snapshots:
            path = checkpoint.snapshot_path(self.directory, state.step)
            checkpoint.write_weights(path, state.model, state.step, self.config)
        if state.step and state.step % record.save_every == 0 and not last:
            save(state, self.config, self.directory, self.started)

    def evaluate(self, state: TrainingState) -> None:
        """Append one row per arm to history.jsonl; errors are over E[y²]."""
        flush_losses(state)
        seconds = round(time.monotonic() - self.started, 2)
        rows = [self.evaluation_row(state, arm, seconds) for arm in self.held_out]
        state.losses.clear()
        checkpoint.append_history(self.directory, rows, self.config)
        self.bar.set_postfix_str(", ".join(f"{row['function_class']} {row['nmse']:.3f}" for row in rows))

    @torch.no_grad()
    def evaluation_row(self, state: TrainingState, arm: Arm, seconds: float) -> dict[str, Any]:
        """Errors on the held-out prompts, the no-context optimum on the same, and the data and compute so far.

        A run with a pool has `nmse_tail_fresh` too, the error on prompts with fresh functions.
        """
        held_out, unit = self.held_out[arm], self.config.second_moment(*arm)
        nmse = errors_by_point(state, held_out.prompts) / unit
        no_context = held_out.no_context / unit
        tail = last_quarter(len(nmse))
        fresh = {}
        if held_out.fresh is not None:
            fresh["nmse_tail_fresh"] = (errors_by_point(state, held_out.fresh) / unit)[tail].mean().item()
        total, count = state.losses.get(key(arm), (0.0, 0))
        return {
            "step": state.step,
            "function_class": arm.function_class,
            "inputs": arm.inputs,
            "nmse": nmse.mean().item(),
            "nmse_last": nmse[-1].item(),
            "nmse_tail": nmse[tail].mean().item(),
            "no_context_tail": no_context[tail].mean().item(),
            **fresh,
            "train_loss": total / count if count else None,
            "prompts_seen": state.prompts_seen.get(key(arm), 0),
            "prompts_total": sum(state.prompts_seen.values()),
            "flops": state.flops,
            "seconds": seconds,
            **self.clamped_errors(state, held_out.prompts, unit),
        }

    def clamped_errors(self, state: TrainingState, prompts: Prompts, unit: float) -> dict[str, float | None]:
        """`nmse_tail` as the run is trained at this step, with its clamping; None in steps without, and no such key in
        runs that have no clamping. All other errors are without it."""
        clamping = self.config.clamping
        if clamping.action == "none":
            return {}
        if not (clamping.acts_at(state.step) or clamping.acts_at(state.step - 1)):
            return {"nmse_tail_clamped": None}
        predicted = clamped_predict(state.model, clamping_edits(self.config))(prompts.tokens)
        errors = (predicted - prompts.ys).square().mean(0) / unit
        return {"nmse_tail_clamped": errors[last_quarter(len(errors))].mean().item()}


def errors_by_point(state: TrainingState, prompts: Prompts) -> Float[Tensor, " point"]:
    return (state.model.predict(prompts.tokens) - prompts.ys).square().mean(0)


def key(arm: Arm) -> str:
    """The arm in counters and messages."""
    return f"{arm.function_class}, {arm.inputs}"


def held_out_prompts(config: RunConfig, device: str) -> dict[Arm, HeldOut]:
    """Evaluation prompts for every class and input distribution of interest, from a stream of their own."""
    arms = [Arm(name, inputs) for name in config.evaluated_classes for inputs in config.data.inputs]
    return {arm: held_out_of(config, arm, device) for arm in arms}


def held_out_of(config: RunConfig, arm: Arm, device: str) -> HeldOut:
    seed, n_prompts = stream_seed(config.seeds.data, "held out"), config.record.eval_prompts
    drawn = {
        source: sample_prompts(
            draws_from(config, source),
            arm.function_class,
            torch.Generator().manual_seed(seed),
            n_prompts,
            inputs=arm.inputs,
        ).to(device)
        for source in sources_of(config)
    }
    prompts = drawn.get("pool", drawn["fresh"])
    without = (no_context(config, arm.function_class, prompts) - prompts.ys).square().mean(0)
    return HeldOut(prompts, without, drawn["fresh"] if "pool" in drawn else None)


def log_spaced_steps(steps: int, count: int) -> set[int]:
    """At most `count` steps from 0 (the initial weights) to the last, evenly spaced in log(1 + step).

    >>> sorted(log_spaced_steps(1000, 4))
    [0, 9, 99, 1000]
    """
    return {int(step) for step in np.rint(np.geomspace(1, steps + 1, count)) - 1} if count else set()

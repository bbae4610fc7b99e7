"""Evaluations, snapshots and saves of a run in training, and its progress bar."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from training.checkpoints import checkpoint
from training.config.config import RunConfig, stream_seed
from training.config.curriculum import Arm
from training.loop.state import TrainingState, flush_losses, save
from training.sampling import sample_prompts
from training.tasks.function_classes import function_class
from training.tasks.prompts import Prompts, last_quarter

PULSE = 10  # steps between checks of the loss: often enough to stop in time, seldom enough not to stall a GPU


@dataclass(frozen=True)
class Recorder:
    """Evaluates, snapshots and saves, as far as each is due.

    Attributes:
        config: the run.
        directory: of the run.
        held_out: evaluation prompts by arm, the same ones throughout the run.
        snapshots: the steps at which to keep the weights.
        bar: shows progress.
        started: the clock's reading at step 0, as if the run had never been interrupted.
    """

    config: RunConfig
    directory: Path
    held_out: dict[Arm, Prompts]
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
        """Errors on the held-out prompts, the no-context optimum on the same, and the data and compute so far."""
        prompts, unit = self.held_out[arm], self.config.second_moment(*arm)
        nmse = (state.model.predict(prompts.tokens) - prompts.ys).square().mean(0) / unit
        without = function_class(arm.function_class).no_context(prompts.xs, self.config.data.weights)
        no_context = (without - prompts.ys).square().mean(0) / unit
        tail = last_quarter(len(nmse))
        total, count = state.losses.get(key(arm), (0.0, 0))
        return {
            "step": state.step,
            "function_class": arm.function_class,
            "inputs": arm.inputs,
            "nmse": nmse.mean().item(),
            "nmse_last": nmse[-1].item(),
            "nmse_tail": nmse[tail].mean().item(),
            "no_context_tail": no_context[tail].mean().item(),
            "train_loss": total / count if count else None,
            "prompts_seen": state.prompts_seen.get(key(arm), 0),
            "prompts_total": sum(state.prompts_seen.values()),
            "flops": state.flops,
            "seconds": seconds,
        }


def key(arm: Arm) -> str:
    """The arm in counters and messages."""
    return f"{arm.function_class}, {arm.inputs}"


def held_out_prompts(config: RunConfig, device: str) -> dict[Arm, Prompts]:
    """Evaluation prompts for every class and input distribution of interest, from a stream of their own."""
    seed, n_prompts = stream_seed(config.seeds.data, "held out"), config.record.eval_prompts
    arms = [Arm(name, inputs) for name in config.evaluated_classes for inputs in config.data.inputs]
    return {
        arm: sample_prompts(
            config, arm.function_class, torch.Generator().manual_seed(seed), n_prompts, inputs=arm.inputs
        ).to(device)
        for arm in arms
    }


def log_spaced_steps(steps: int, count: int) -> set[int]:
    """At most `count` steps from 0 (the initial weights) to the last, evenly spaced in log(1 + step).

    >>> sorted(log_spaced_steps(1000, 4))
    [0, 9, 99, 1000]
    """
    return {int(step) for step in np.rint(np.geomspace(1, steps + 1, count)) - 1} if count else set()

"""The training loop, readable top to bottom.

1. Set up: weights, optimiser and generators from their own seeds, or all of them from the last save.
2. Each step: choose a function class, draw fresh prompts, take the squared error of every y, update.
3. After the step: evaluate on held-out prompts, snapshot and save, when due.

A run is a function of its configuration: on a CPU the same command gives the same bits twice, and so does a run that
was killed and resumed.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from training import checkpoint
from training.config import RunConfig, stream_seed
from training.errors import CheckError
from training.optim import learning_rate, make_optimizer
from training.prompts import Prompts, sample_prompts
from training.transformer import Transformer

PULSE = 10  # steps between looks at the loss: often enough to stop in time, seldom enough not to stall a GPU
DIVERGED = 1e3  # a loss this many times E[y²] does not come back


@dataclass
class TrainingState:
    """Everything that changes during a run.

    Attributes:
        model: the weights.
        optimizer: its moments.
        data: draws functions and inputs.
        task: chooses function classes.
        step: optimiser steps taken.
        seconds: time spent training, over all resumptions.
        prompts_seen: training prompts so far, by function class.
        losses: sum and number of the losses (over E[y²]) since the last evaluation, by function class.
        pending: losses that nobody has looked at yet, still on the device.
    """

    model: Transformer
    optimizer: torch.optim.Optimizer
    data: torch.Generator
    task: torch.Generator
    step: int = 0
    seconds: float = 0.0
    prompts_seen: dict[str, int] = field(default_factory=dict)
    losses: dict[str, tuple[float, int]] = field(default_factory=dict)
    pending: list[tuple[str, Tensor]] = field(default_factory=list)


def train(config: RunConfig, directory: Path, *, device: str = "cpu", resume: bool = False) -> int:
    """Train the run that `config` describes into `directory`; returns the step from which it started.

    Args:
        config: the run.
        directory: a new directory; with `resume`, one that may hold an unfinished run of this configuration
            (`training.rundir` sees to that).
        device: where the arithmetic happens; data are drawn on the CPU, so every device sees the same prompts.
        resume: go on from the last save, if there is one.

    Raises:
        UserError: the save to resume from is damaged.
        CheckError: the loss diverged; the last good state is kept.
    """
    recipe = config.recipe
    curriculum = config.parsed_curriculum()
    held_out = held_out_prompts(config, device)
    state = (restore(config, directory, device) if resume else None) or new_state(config, device)
    checkpoint.forget_after(directory, state.step if state.step else -1)
    first_step = state.step
    bar = tqdm(total=recipe.steps, initial=first_step, desc=config.curriculum, unit="step", disable=None)
    with cpu_threads(recipe.threads), bar:
        snapshots = log_spaced_steps(recipe.steps, config.record.snapshots)
        recorder = Recorder(config, directory, held_out, snapshots, bar, time.monotonic() - state.seconds)
        if state.step == 0:
            checkpoint.write_config(directory, config)
            recorder.record(state)
        while state.step < recipe.steps:
            name = curriculum.choose(state.step, state.task)
            prompts = sample_prompts(config, name, state.data, recipe.batch_size).to(device)
            training_step(state, config, name, prompts)
            recorder.record(state)
    checkpoint.write_weights(directory / checkpoint.WEIGHTS, state.model, state.step)
    checkpoint.delete_resume(directory)
    return first_step


@contextmanager
def cpu_threads(number: int) -> Iterator[None]:
    """Sums are split by thread, so the number of threads is part of what makes a run repeatable."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def new_state(config: RunConfig, device: str) -> TrainingState:
    """Step 0: weights, data stream and task choice, each from its own seed."""
    init, data, task = (
        torch.Generator().manual_seed(seed) for seed in (config.seeds.init, config.seeds.data, config.seeds.task)
    )
    model = Transformer(config.model, init).to(device)
    return TrainingState(model, make_optimizer(model, config.recipe), data, task)


def training_step(state: TrainingState, config: RunConfig, name: str, prompts: Prompts) -> None:
    """One update on the squared error of every y, averaged over points and prompts (paper.md, section 3)."""
    recipe = config.recipe
    second_moment = config.second_moment(name)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(recipe, state.step)
    mse = F.mse_loss(state.model.predict(prompts.tokens), prompts.ys)
    state.optimizer.zero_grad()
    (mse / second_moment if recipe.loss == "normalised" else mse).backward()
    if recipe.grad_clip:
        torch.nn.utils.clip_grad_norm_(state.model.parameters(), recipe.grad_clip)
    state.optimizer.step()
    state.step += 1
    state.prompts_seen[name] = state.prompts_seen.get(name, 0) + len(prompts.ys)
    state.pending.append((name, mse.detach() / second_moment))


@dataclass(frozen=True)
class Recorder:
    """What a run leaves on disk and on the progress bar.

    Attributes:
        held_out: evaluation prompts by function class, the same ones throughout the run.
        snapshots: the steps at which to keep the weights.
        started: the clock's reading at step 0, as if the run had never been interrupted.
    """

    config: RunConfig
    directory: Path
    held_out: dict[str, Prompts]
    snapshots: set[int]
    bar: "tqdm[Any]"
    started: float

    def record(self, state: TrainingState) -> None:
        """Evaluate, snapshot and save, as far as each is due after this step."""
        record, last = self.config.record, state.step == self.config.recipe.steps
        if state.step % PULSE == 0 or state.step % record.save_every == 0 or last:
            look_at_losses(state)
            self.bar.update(state.step - self.bar.n)
        if state.step % record.eval_every == 0 or last:
            self.evaluate(state)
        if state.step in self.snapshots:
            checkpoint.write_weights(checkpoint.snapshot_path(self.directory, state.step), state.model, state.step)
        if state.step and state.step % record.save_every == 0 and not last:
            state.seconds = time.monotonic() - self.started
            save(state, self.directory)

    def evaluate(self, state: TrainingState) -> None:
        """Append one row per function class to history.jsonl; errors are over E[y²]."""
        look_at_losses(state)
        seconds = round(time.monotonic() - self.started, 2)
        rows = [self.evaluation_row(state, name, seconds) for name in self.held_out]
        state.losses.clear()
        checkpoint.append_history(self.directory, rows)
        self.bar.set_postfix_str(", ".join(f"{row['function_class']} {row['nmse']:.3f}" for row in rows))

    @torch.no_grad()
    def evaluation_row(self, state: TrainingState, name: str, seconds: float) -> dict[str, Any]:
        prompts = self.held_out[name]
        squared_error = (state.model.predict(prompts.tokens) - prompts.ys).square()
        nmse = squared_error.mean(0) / self.config.second_moment(name)
        total, count = state.losses.get(name, (0.0, 0))
        return {
            "step": state.step,
            "function_class": name,
            "nmse": nmse.mean().item(),
            "nmse_last": nmse[-1].item(),
            "train_loss": total / count if count else None,
            "prompts_seen": state.prompts_seen.get(name, 0),
            "seconds": seconds,
        }


def held_out_prompts(config: RunConfig, device: str) -> dict[str, Prompts]:
    """Evaluation prompts for every class of interest, from a stream of their own."""
    seed = stream_seed(config.seeds.data, "held out")
    return {
        name: sample_prompts(config, name, torch.Generator().manual_seed(seed), config.record.eval_prompts).to(device)
        for name in config.evaluated_classes
    }


def look_at_losses(state: TrainingState) -> None:
    """Move pending losses into the running sums.

    Raises:
        CheckError: one of them is not finite or beyond repair.
    """
    values = torch.stack([loss for _, loss in state.pending]).tolist() if state.pending else []
    for (name, _), value in zip(state.pending, values, strict=True):
        if not value < DIVERGED:
            raise CheckError(f"training diverged by step {state.step}: loss on {name} is {value:.3g} times E[y²]")
        total, count = state.losses.get(name, (0.0, 0))
        state.losses[name] = (total + value, count + 1)
    state.pending.clear()


def log_spaced_steps(steps: int, count: int) -> set[int]:
    """At most `count` steps from 0 (the initial weights) to the last, evenly spaced in log(1 + step).

    >>> sorted(log_spaced_steps(1000, 4))
    [0, 9, 99, 1000]
    """
    return {int(step) for step in np.rint(np.geomspace(1, steps + 1, count)) - 1} if count else set()


def save(state: TrainingState, directory: Path) -> None:
    """Write the state from which the run can go on, and its weights for whoever wants to look already.

    Raises:
        CheckError: the weights are not finite; the save before this one is kept.
    """
    if not all(parameter.isfinite().all() for parameter in state.model.parameters()):
        raise CheckError(f"training diverged by step {state.step}: the weights are not finite")
    tensors = {f"model.{name}": tensor for name, tensor in state.model.state_dict().items()}
    for index, moments in state.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in moments.items()}
    tensors |= {"rng.data": state.data.get_state(), "rng.task": state.task.get_state()}
    counters = {name: getattr(state, name) for name in COUNTERS}
    checkpoint.write_resume(directory, tensors, counters)
    checkpoint.write_weights(directory / checkpoint.WEIGHTS, state.model, state.step)


COUNTERS = ("step", "seconds", "prompts_seen", "losses")


def restore(config: RunConfig, directory: Path, device: str) -> TrainingState | None:
    """The state of the last save in `directory`, or None if the run has to start from step 0."""
    saved = checkpoint.read_resume(directory)
    if saved is None:
        return None
    tensors, counters = saved
    state = new_state(config, device)
    state.model.load_state_dict(under("model.", tensors))
    optimizer = state.optimizer.state_dict()
    optimizer["state"] = {
        index: under(f"optimizer.{index}.", tensors) for index in range(len(list(state.model.parameters())))
    }
    state.optimizer.load_state_dict(optimizer)
    state.data.set_state(tensors["rng.data"])
    state.task.set_state(tensors["rng.task"])
    for name in COUNTERS:
        setattr(state, name, counters[name])
    return state


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

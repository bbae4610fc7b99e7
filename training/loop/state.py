"""The state of a run in training: made, saved and restored."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.checkpoints import checkpoint
from training.checkpoints.source_weights import source_tensors
from training.common.errors import CheckError, UserError
from training.config.config import RunConfig
from training.loop.optim import Optimizer
from training.model.transformer import Transformer
from training.model.transplant import transplant

DIVERGED = 1e3  # a loss this many times that of predicting zero does not come back
COUNTERS = ("step", "seconds", "flops", "prompts_seen", "losses")


@dataclass
class TrainingState:
    """Everything that changes during a run.

    Attributes:
        model: the weights.
        optimizer: its moments.
        data: draws functions and inputs, on the device that computes.
        task: chooses function classes and input distributions, on the CPU.
        step: optimiser steps taken.
        seconds: time spent training, over all resumptions.
        flops: floating-point operations of all steps (`training.model.flops`).
        prompts_seen: training prompts so far, by arm.
        losses: sum and number of the losses (over E[y²]) since the last evaluation, by arm.
        pending: losses that are not in the sums yet, still on the device: the arm, and the loss over E[y²] and over
            that of predicting 0.
    """

    model: Transformer
    optimizer: Optimizer
    data: torch.Generator
    task: torch.Generator
    step: int = 0
    seconds: float = 0.0
    flops: int = 0
    prompts_seen: dict[str, int] = field(default_factory=dict)
    losses: dict[str, tuple[float, int]] = field(default_factory=dict)
    pending: list[tuple[str, Tensor]] = field(default_factory=list)


def new_state(config: RunConfig, device: str) -> TrainingState:
    """Step 0: weights, data stream and task choice, each from its own seed.

    Raises:
        UserError: a seed is unknown.
    """
    seeds = config.seeds
    if seeds.init is None or seeds.data is None or seeds.task is None:
        raise UserError("a run is trained from three seeds: seeds.init, seeds.data and seeds.task are needed")
    init, task = (torch.Generator().manual_seed(seed) for seed in (seeds.init, seeds.task))
    data = torch.Generator(device).manual_seed(seeds.data)
    model = Transformer(config.model, init, config.layout).to(device)
    return TrainingState(model, Optimizer(model, config.recipe), data, task)


def first_state(config: RunConfig, device: str) -> TrainingState:
    """Step 0 of a run: as `new_state`, with the weights that it takes from another run.

    Raises:
        UserError: a seed is unknown, or the source is missing or another model.
    """
    state = new_state(config, device)
    if config.init.source:
        transplant(state.model, source_tensors(config), config)
    return state


def flush_losses(state: TrainingState) -> None:
    """Move pending losses into the running sums.

    Raises:
        CheckError: one of them is not finite or beyond repair.
    """
    values = torch.stack([loss for _, loss in state.pending]).tolist() if state.pending else []
    for (arm, _), (value, over_zero) in zip(state.pending, values, strict=True):
        if not over_zero < DIVERGED:
            raise CheckError(
                f"training diverged by step {state.step}: loss on {arm} is {over_zero:.3g} times that of predicting 0"
            )
        total, count = state.losses.get(arm, (0.0, 0))
        state.losses[arm] = (total + value, count + 1)
    state.pending.clear()


def save(state: TrainingState, config: RunConfig, directory: Path, started: float) -> None:
    """Write the state from which the run can resume, and its weights, which other commands can load already.

    Args:
        state: to save.
        config: the run.
        directory: the run's.
        started: the clock's reading at step 0, as if the run had never been interrupted.

    Raises:
        CheckError: the weights are not finite; the save before this one is kept.
    """
    flush_losses(state)
    state.seconds = time.monotonic() - started
    if not all(parameter.isfinite().all() for parameter in state.model.parameters()):
        raise CheckError(f"training diverged by step {state.step}: the weights are not finite")
    tensors = {f"model.{name}": tensor for name, tensor in state.model.state_dict().items()}
    tensors |= {f"optimizer.{name}": tensor for name, tensor in state.optimizer.tensors().items()}
    tensors |= {"rng.data": state.data.get_state(), "rng.task": state.task.get_state()}
    counters = {name: getattr(state, name) for name in COUNTERS} | {"device": state.data.device.type}
    checkpoint.write_resume(directory, tensors, counters, config)
    checkpoint.write_weights(directory / checkpoint.WEIGHTS, state.model, state.step, config)


def restore(config: RunConfig, directory: Path, device: str) -> TrainingState | None:
    """The state of the last save in `directory`, or None if the run has to start from step 0.

    Raises:
        UserError: the save or the history before it is damaged, or it was made on another kind of device, which draws
            other data.
    """
    saved = checkpoint.read_resume(directory, config)
    if saved is None:
        return None
    tensors, counters = saved
    state = new_state(config, device)
    began_on = counters.get("device")
    if began_on in ("cpu", "cuda") and began_on != state.data.device.type:
        raise UserError(
            f"{directory} was begun on {began_on}, which draws other prompts than {state.data.device.type}: "
            f"go on with --device {began_on}"
        )
    try:
        fill(state, directory, tensors, counters)
        kept = checkpoint.history_until(directory, config, state.step)
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        reason = error if isinstance(error, UserError) else f"{directory / checkpoint.RESUME} does not fit this run"
        raise UserError(f"{reason} {checkpoint.START_AGAIN}") from None
    if not kept:
        raise UserError(f"{directory} has lost its {checkpoint.HISTORY} {checkpoint.START_AGAIN}")
    return state


def fill(state: TrainingState, directory: Path, tensors: dict[str, Tensor], counters: dict[str, Any]) -> None:
    """Load saved tensors and counters into a new state; raises an error of any kind where they do not fit."""
    checkpoint.load_tensors(state.model, under("model.", tensors), directory / checkpoint.RESUME)
    state.optimizer.load_tensors(under("optimizer.", tensors))
    state.data.set_state(tensors["rng.data"])
    state.task.set_state(tensors["rng.task"])
    for name in COUNTERS:
        if type(counters[name]) is not type(getattr(state, name)):
            raise TypeError(name)
        setattr(state, name, counters[name])


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

"""The training loop, readable top to bottom.

1. Set up: weights, optimiser and generators from their own seeds, or all of them from the last save.
2. Each step: choose a function class and inputs, draw fresh prompts, take the squared error of every y, update.
3. After the step: evaluate on held-out prompts, snapshot and save, when due.

A run is a function of its configuration: on a CPU the same command gives the same bits twice, and so does a run that
was killed and resumed.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from training.checkpoints import checkpoint
from training.checkpoints import run_directory as rundir
from training.checkpoints.source_weights import with_recorded_source
from training.common.errors import UserError
from training.common.interruption import Interruption
from training.common.library_defaults import library_defaults
from training.common.progress import progress_bar
from training.config.config import RecipeConfig, RunConfig
from training.config.curriculum import Arm, Schedule
from training.loop.optim import learning_rate
from training.loop.recorder import Recorder, held_out_prompts, key, log_spaced_steps
from training.loop.state import TrainingState, first_state, restore, save
from training.model.clamping import clamped_predict, clamping_edits
from training.model.flops import step_flops
from training.model.sites import Edits
from training.model.transformer import Transformer
from training.sampling import sample_prompts
from training.tasks.prompts import Prompts

Batch = list[tuple[Arm, Prompts]]
Predict = Callable[[Float[Tensor, "batch pos dim"]], Float[Tensor, "batch point"]]


@library_defaults()
def train(
    config: RunConfig, directory: Path, *, device: str = "cpu", resume: bool = False, progress: bool = True
) -> int:
    """Train the run that `config` describes into `directory`; returns the step from which it started.

    Args:
        config: the run.
        directory: a new directory; with `resume`, one that may hold an unfinished run of this configuration
            (`training.checkpoints.run_directory` checks it).
        device: where the arithmetic happens and the data are drawn; a GPU draws other prompts than a CPU.
        resume: go on from the last save, if there is one.
        progress: show a bar, if stderr is a terminal.

    Raises:
        UserError: the save to resume from is damaged, another process writes to the directory, it cannot be written,
            or the history would be too large.
        CheckError: the loss diverged; the last good state is kept.
        KeyboardInterrupt: asked to stop (SIGINT, SIGTERM), after saving.
    """
    rundir.check_history_size(config)
    config = with_recorded_source(config, directory, resume=resume)
    with writing_to(directory), rundir.locked(directory), arithmetic(config.recipe), Interruption() as stop:
        state = (restore(config, directory, device) if resume else None) or first_state(config, device)
        first_step = state.step
        if first_step == 0:
            checkpoint.write_config(directory, config)  # first of all files: it makes the directory a run
        checkpoint.forget_after(directory, state.step if state.step else -1)
        bar = progress_bar(
            total=config.recipe.steps,
            initial=first_step,
            desc=config.curriculum,
            unit="step",
            disable=None if progress else True,
        )
        with bar:
            run_steps(config, directory, device, state, bar, stop)
        checkpoint.write_weights(directory / checkpoint.WEIGHTS, state.model, state.step, config)
        checkpoint.delete_resume(directory)
    return first_step


def run_steps(
    config: RunConfig, directory: Path, device: str, state: TrainingState, bar: "tqdm[Any]", stop: Interruption
) -> None:
    """From the state's step to the last one."""
    started = time.monotonic() - state.seconds
    snapshots = log_spaced_steps(config.recipe.steps, config.record.snapshots)
    recorder = Recorder(config, directory, held_out_prompts(config, device), snapshots, bar, started)
    schedule, predict = config.parsed_schedule(), training_predict(state.model, config.recipe)
    clamped = training_predict(state.model, config.recipe, clamping_edits(config))
    if state.step == 0:
        recorder.record(state)
    while state.step < config.recipe.steps:
        batch, clamps = step_batch(config, schedule, state), config.clamping.acts_at(state.step)
        training_step(state, config, batch, clamped if clamps else predict)
        recorder.record(state)
        if stop.requested and state.step < config.recipe.steps:
            save(state, config, directory, started)
            raise KeyboardInterrupt(
                f"{state.step} of {config.recipe.steps} steps are saved in {directory}; the same command with --resume "
                "goes on from there"
            )


def step_batch(config: RunConfig, schedule: Schedule, state: TrainingState) -> Batch:
    """Fresh prompts for this step: all of one class and input distribution, or each with its own."""
    step, n_prompts = state.step, config.recipe.batch_size
    if config.schedule.batch == "mixed":
        counts = schedule.counts(step, n_prompts, state.task)
    else:
        counts = {schedule.choose(step, state.task): n_prompts}
    n_points = config.growth.points_at(step, config.data.n_points)
    n_dims = config.growth.dims_at(step, config.model.n_dims)
    return [
        (
            arm,
            sample_prompts(
                config, arm.function_class, state.data, n, inputs=arm.inputs, n_points=n_points, n_dims=n_dims
            ),
        )
        for arm, n in counts.items()
    ]


def training_step(state: TrainingState, config: RunConfig, batch: Batch, predict: Predict) -> None:
    """One update on the squared error of every y, averaged over points and prompts (authors' `train.py`, 1c896e3)."""
    recipe = config.recipe
    tokens = torch.cat([prompts.tokens for _, prompts in batch]) if len(batch) > 1 else batch[0][1].tokens
    predicted = predict(tokens).split([len(prompts.ys) for _, prompts in batch])
    total = torch.zeros((), device=tokens.device)
    for (arm, prompts), predictions in zip(batch, predicted, strict=True):
        mse = F.mse_loss(predictions, prompts.ys)
        total = total + mse * (len(prompts.ys) / len(tokens) / loss_unit(config, arm))
        record_batch(state, config, arm, prompts, mse.detach())
    state.optimizer.zero_grad()
    total.backward()
    if recipe.grad_clip:
        torch.nn.utils.clip_grad_norm_(state.model.parameters(), recipe.grad_clip)
    state.optimizer.step(learning_rate(recipe, state.step))
    state.step += 1


def loss_unit(config: RunConfig, arm: Arm) -> float:
    """What an arm's squared error is divided by in the loss."""
    if config.recipe.loss == "normalised":
        return config.second_moment(*arm)
    return config.no_context_scale(*arm).value if config.recipe.loss == "no_context" else 1.0


def record_batch(state: TrainingState, config: RunConfig, arm: Arm, prompts: Prompts, mse: Float[Tensor, ""]) -> None:
    """Add the prompts, operations and losses of a step to the counters of its arm."""
    n_prompts, n_points = prompts.ys.shape
    unit = config.second_moment(*arm)
    state.prompts_seen[key(arm)] = state.prompts_seen.get(key(arm), 0) + n_prompts
    state.flops += step_flops(config.model, n_prompts, n_points, config.layout.n_instruction)
    over_zero = mse / prompts.ys.square().mean().clamp(min=unit)  # where y is heavy-tailed a batch may exceed its scale
    state.pending.append((key(arm), torch.stack((mse / unit, over_zero))))


def training_predict(model: Transformer, recipe: RecipeConfig, edits: Edits | None = None) -> Predict:
    """The forward pass of training: in the recipe's precision, compiled if it says so. Weights stay float32."""
    predict = clamped_predict(model, edits) if edits else model.predict
    on_gpu = model.device.type == "cuda"
    forward: Predict = predict
    if recipe.compile:
        forward = torch.compile(predict, mode="reduce-overhead" if on_gpu else "default")
    if recipe.precision != "bf16":
        return forward

    def rounded(tokens: Float[Tensor, "batch pos dim"]) -> Float[Tensor, "batch point"]:
        with torch.autocast(model.device.type, torch.bfloat16):
            return forward(tokens).float()

    return rounded


@contextmanager
def arithmetic(recipe: RecipeConfig) -> Iterator[None]:
    """The recipe's CPU threads, which split sums and so are part of what makes a run repeatable, and its precision."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_num_threads(recipe.threads)
    torch.set_float32_matmul_precision("high" if recipe.precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)


@contextmanager
def writing_to(directory: Path) -> Iterator[None]:
    """Turn a full disk or a lost permission into one line; what was saved before is kept, whole."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write to '{directory}': {error.strerror or error}; the last save is kept: go on with --resume"
        ) from None

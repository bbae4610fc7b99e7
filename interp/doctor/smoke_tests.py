"""Smoke tests of an installation: torch, a shipped model, and the same model in TransformerLens."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from interp.doctor.installation import Finding
from interp.model.positions import show_points
from training.checkpoints.checkpoint import Checkpoint, load, zoo_names
from training.common.devices import faster_precision
from training.evaluation.evaluate import Setting, squared_errors
from training.model.transformer import Transformer
from training.tasks.prompts import last_quarter

MODEL = "zoo:mixed-0"
LEARNED = 0.5
SMOKE_PROMPTS = 256
TOLERANCE = 1e-5


def check_torch() -> Finding:
    """The build of torch and the devices that it can use."""
    devices = [f"cuda:{number} ({torch.cuda.get_device_name(number)})" for number in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps (not supported by the commands)")
    build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    summary = f"{', '.join(['cpu', *devices])}; torch {build}; threads: {torch.get_num_threads()}"
    return Finding("devices", f"{summary}; faster precision of training: {faster_precision()}")


def check_zoo() -> Finding:
    """Whether shipped checkpoints are installed, and one of them has the error that it was trained to."""
    if not (names := zoo_names()):
        return Finding("zoo", "empty", "no shipped checkpoint is installed: install again from a complete checkout")
    checkpoint = load(MODEL)
    error = error_on_linear(checkpoint)
    problem = f"{MODEL} has lost what it learned (error {error:.3g}): restore training/zoo, or install torch again"
    tail = show_points(last_quarter(checkpoint.config.data.n_points))
    summary = (
        f"{len(names)} checkpoints; {MODEL}: {error:.3f} of the no-context optimum's squared error on linear, "
        f"pairs {tail}, {SMOKE_PROMPTS} prompts, seed 0"
    )
    return Finding("zoo", summary, None if error < LEARNED else problem)


def error_on_linear(checkpoint: Checkpoint) -> float:
    """The squared error over the last quarter of the points, as a share of the no-context optimum's."""
    setting = Setting(n_prompts=SMOKE_PROMPTS)
    by_predictor = squared_errors(checkpoint, "linear", setting, baselines=(), class_baseline=False)
    tail = last_quarter(checkpoint.config.data.n_points)
    model, no_context = (
        torch.stack(list(by_predictor[name].values())[tail]).mean().item() for name in ("model", "no_context")
    )
    return model / no_context


def check_hooked() -> Finding:
    """Whether the model that `interp.hooked` returns gives the same predictions."""
    from interp.model.hooked_transformer import hooked  # seconds

    model = load(MODEL).model
    twin = hooked(model)
    difference, kind = relative_difference(model, twin), type(twin).__name__
    problem = f"{kind} differs from {MODEL} by {difference:.1e}: install the versions in constraints.txt"
    summary = f"{kind} within {difference:.0e} of {MODEL}"
    return Finding("TransformerLens", summary, None if difference < TOLERANCE else problem)


def relative_difference(model: Transformer, twin: Callable[[Tensor], Float[Tensor, "batch pos 1"]]) -> float:
    """The largest difference between two models' outputs on random prompts, over the first model's largest output."""
    shape = (16, model.config.n_ctx, model.config.n_dims)
    prompts = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    output = model(prompts)
    return ((output - twin(prompts)[..., 0]).abs().max() / output.abs().max()).item()

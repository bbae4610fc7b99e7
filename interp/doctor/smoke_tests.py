"""Whether what is installed computes: torch, a shipped model, and TransformerLens's twin of it."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from interp.doctor.installation import Finding
from training.checkpoints.checkpoint import Checkpoint, load, zoo_names
from training.evaluation.evaluate import Setting, squared_errors
from training.model.transformer import Transformer
from training.tasks.prompts import last_quarter

MODEL = "zoo:mixed-0"
LEARNED = 0.5
TOLERANCE = 1e-5


def check_torch() -> Finding:
    """The build of torch, and where it could compute."""
    devices = [f"cuda:{number} ({torch.cuda.get_device_name(number)})" for number in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps (which no command takes)")
    build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
    return Finding("devices", f"{', '.join(['cpu', *devices])}; torch {build}; threads: {torch.get_num_threads()}")


def check_zoo() -> Finding:
    """The shipped checkpoints are there, and one of them still does what it has learned."""
    if not (names := zoo_names()):
        return Finding("zoo", "empty", "no shipped checkpoint is there: install again from a whole checkout")
    error = error_on_linear(load(MODEL))
    problem = (
        f"{MODEL} does not do what it has learned (error {error:.3g}): restore training/zoo, or install torch again"
    )
    found = f"{len(names)} checkpoints; {MODEL}: error {error:.3f} on linear"
    return Finding("zoo", found, None if error < LEARNED else problem)


def error_on_linear(checkpoint: Checkpoint) -> float:
    """The squared error over the last quarter of the points, as a share of the no-context optimum's."""
    by_predictor = squared_errors(checkpoint, "linear", Setting(n_prompts=256), baselines=(), own=False)
    tail = last_quarter(checkpoint.config.data.n_points)
    model, no_context = (
        torch.stack(list(by_predictor[name].values())[tail]).mean().item() for name in ("model", "no_context")
    )
    return model / no_context


def check_hooked() -> Finding:
    """TransformerLens computes the same with what `interp.hooked` gives."""
    from interp.model.hooked_transformer import hooked  # seconds

    model = load(MODEL).model
    twin = hooked(model)
    apart, kind = distance(model, twin), type(twin).__name__
    problem = f"{kind} is {apart:.1e} away from {MODEL}: install the versions in constraints.txt"
    return Finding("TransformerLens", f"{kind} within {apart:.0e} of {MODEL}", None if apart < TOLERANCE else problem)


def distance(model: Transformer, twin: Callable[[Tensor], Float[Tensor, "batch pos 1"]]) -> float:
    """The largest difference between what the two give on random prompts, over the largest that the model gives."""
    shape = (16, model.config.n_ctx, model.config.n_dims)
    prompts = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    ours = model(prompts)
    return ((ours - twin(prompts)[..., 0]).abs().max() / ours.abs().max()).item()

"""Writes checkpoints as other programs read them; the import of an export has the same weights, bit for bit."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from training.checkpoints.checkpoint import Checkpoint, load
from training.common.atomic_files import write_atomically
from training.common.errors import UserError, one_of
from training.common.library_defaults import library_defaults
from training.common.output import prepare_directory
from training.config.config import RunConfig
from training.importing import bhasin, gpt2_layout, hooked_layout
from training.importing.gpt2_layout import unlike_gpt2
from training.importing.source_files import merged
from training.importing.sources import CONFIGS, STATE
from training.importing.tasks import HERMITE, TASKS
from training.importing.translation import INSTRUCTIONS
from training.tasks.function_classes import function_class

FORMATS = ("garg", "hooked")
TOKENS = 50_257
"""Rows of the token embeddings that Hugging Face's GPT-2 has and no prompt of real vectors uses."""
WITHOUT_POSITIONS = "model.positions=none"
"""The setting besides GPT-2's that config.yaml has a word for, `pos_encode`."""

Values = dict[str, Any]


@library_defaults()
def export_checkpoint(
    checkpoint: str | Path | Checkpoint, out: str | Path, format: str = "garg", *, force: bool = False
) -> list[Path]:
    """Write a checkpoint in the format of another program; returns the files.

    Args:
        checkpoint: or its name.
        out: the run directory to make (`garg`), or the file (`hooked`), beside which its configuration is written.
        format: `garg` or `hooked`.
        force: overwrite what is there.

    Raises:
        UserError: there is no such checkpoint or format, the format has no words for this run, or `out` exists.
    """
    if format not in FORMATS:
        raise one_of("--format", format, FORMATS)
    source = checkpoint if isinstance(checkpoint, Checkpoint) else load(checkpoint)
    files = garg_files(source, Path(out)) if format == "garg" else hooked_files(source, Path(out))
    for path in files:
        if path.exists() and not force:
            raise UserError(f"--out {out}: {path} already exists: overwrite it with --force")
    for path, content in files.items():
        prepare_directory(path.parent)
        write_atomically(path, content)
    return list(files)


def pickled(content: object) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def hooked_files(source: Checkpoint, out: Path) -> dict[Path, bytes]:
    """A HookedTransformer's state dict, and its configuration as JSON."""
    if out.is_dir() or out.suffix in ("", ".json"):
        raise UserError(f"--out {out}: a file is needed, for example {out.with_suffix('.pt')}")
    sizes = source.model.config
    weights = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in hooked_layout.to_hooked(source.model.state_dict(), sizes).items()
        if name != hooked_layout.READ_IN_BIAS or tensor.any()
    }
    config = hooked_layout.configuration(sizes, len(source.model.embed.W_E))
    text = (json.dumps(config, indent=2) + "\n").encode()
    return {out.with_suffix(".json"): text, out: pickled(weights)}


def garg_files(source: Checkpoint, out: Path) -> dict[Path, bytes]:
    """A run directory with config.yaml and state.pt, and its instruction vectors."""
    config, model = source.config, source.model
    values = garg_settings(config, out)
    weights = gpt2_layout.from_hooked(model.state_dict(), config.model)
    weights["_backbone.wte.weight"] = torch.zeros(1).expand(TOKENS, config.model.d_model)  # a single stored number
    state = {"model_state_dict": weights, "optimizer_state_dict": {}, "train_step": source.step}
    vectors = model.embed.W_E.detach()[config.model.n_dims :].cpu()
    return {
        **{
            out / "instruction" / name: pickled(row[None].clone())
            for name, row in zip(INSTRUCTIONS, vectors, strict=False)
        },
        out / CONFIGS[0]: yaml.safe_dump(values, sort_keys=False).encode(),
        out / STATE: pickled(state),
    }


def garg_settings(config: RunConfig, out: Path) -> Values:
    """config.yaml: in the words of dtsip/in-context-learning if they suffice, else of curriculum_learning_icl.

    Raises:
        UserError: neither has words for this run; with all reasons.
    """
    sizes, data, steps = config.model, config.data, config.recipe.steps
    common: Values = {
        "out_dir": str(out),
        "test_run": False,
        "model": {
            "family": "gpt2",
            "n_positions": sizes.n_ctx // 2,
            "n_dims": sizes.n_dims,
            "n_embd": sizes.d_model,
            "n_layer": sizes.n_layers,
            "n_head": sizes.n_heads,
            **({"pos_encode": False} if sizes.positions == "none" else {}),
        },
        "training": {"batch_size": config.recipe.batch_size, "learning_rate": config.recipe.lr, "train_steps": steps},
        "wandb": {"name": out.name},
    }
    reasons = [f"{choice}: the format has GPT-2 only" for choice in unlike_gpt2(sizes) if choice != WITHOUT_POSITIONS]
    if sizes.n_ctx % 2:
        reasons.append(f"model.n_ctx is {sizes.n_ctx}: the format has an even number of positions")
    plain = data.inputs == ("gaussian",) and data.weights == "standard" and config.instruction.kind == "none"
    task = garg_task(config.trained_classes[0])
    if plain and len(config.trained_classes) == 1 and task is not None:
        own = {"training": {**task, "data": "gaussian", "curriculum": garg_curriculum(config)}}
    else:
        own = bhasin_settings(config, reasons)
        if sizes.positions == "none":
            reasons.append(f"{WITHOUT_POSITIONS}: the format has it for a single class only, with these data")
    if reasons:
        raise UserError(f"this run has no --format garg: {'; '.join(reasons)}")
    return merged(common, own)


def garg_task(name: str) -> Values | None:
    """Their task for one of our function classes; None if they have none."""
    base = name.partition(":")[0]
    task = next((task for task, about in TASKS.items() if about.function_class == base), None)
    if task is None:
        return None
    parameter = next(iter(vars(function_class(name)).values()), None) if TASKS[task].parameter else None
    return {"task": task, "task_kwargs": {} if parameter is None else {TASKS[task].parameter: parameter}}


def garg_curriculum(config: RunConfig) -> Values:
    """How points and dimensions grew."""
    growth = config.growth

    def table(start: int, by: int, every: int, end: int) -> Values:
        return {"start": start or end, "end": end, "inc": by, "interval": every}

    return {
        "points": table(growth.points, growth.points_by, growth.points_every, config.data.n_points),
        "dims": table(growth.dims, growth.dims_by, growth.dims_every, config.model.n_dims),
    }


def bhasin_settings(config: RunConfig, reasons: list[str]) -> Values:
    """The tables of curriculum_learning_icl; reasons are added for what it has no words for."""
    degrees = {name: degree for degree, name in HERMITE.items()}
    data, instruction = config.data, config.instruction
    classes = config.trained_classes if instruction.kind == "none" else config.evaluated_classes
    odd = [name for name in classes if name not in degrees]
    if odd:
        reasons.append(f"data.classes has {odd[0]}: with these data the classes can be {', '.join(degrees)} only")
    distributions = {ours: theirs for theirs, ours in bhasin.INPUTS.items()}
    odd = [name for name in data.inputs if name.partition(":")[0] != "student_t" and name not in distributions]
    if odd:
        reasons.append(f"data.inputs has {odd[0]}: the format has {', '.join(distributions)} only")
    kinds = {ours: theirs for theirs, ours in bhasin.CURRICULA.items()}
    kind = "random" if config.curriculum.startswith("single:") else config.curriculum
    if kind not in kinds or len(config.trained_classes) < len(classes):
        reasons.append(f"curriculum is {config.curriculum}: the format has {', '.join(kinds)} over all its classes")
    prompts = {(about.get("kind", "none"), about.get("tokens", 1)): name for name, about in bhasin.PROMPTS.items()}
    prompt_type = prompts.get((instruction.kind, 1 if instruction.kind == "none" else instruction.tokens))
    if prompt_type is None or config.layout.n_vectors > len(INSTRUCTIONS):
        reasons.append(
            f"instruction.kind is {instruction.kind} with {instruction.tokens} tokens: the format has no such"
        )
    training: Values = {
        "n_points": data.n_points,
        "task_kwargs": {
            f"task_{number}": {"task": "hermite_regression", "degree": degrees.get(name)}
            for number, name in enumerate(classes)
        },
        "data_kwargs": {
            f"data_{number}": bhasin_inputs(name, distributions) for number, name in enumerate(data.inputs)
        },
        "weight_type": {ours: theirs for theirs, ours in bhasin.WEIGHTS.items()}[data.weights],
        "prompt_type": prompt_type,
        "prompt_kwargs": bhasin_prompt(config) if instruction.kind != "none" else {},
        "task_schedule": kinds.get(kind),
        "data_schedule": kinds[config.schedule.inputs],
        "data_split": "blocks_based" if config.schedule.inputs_within == "block" else "steps_based",
    }
    return {"training": training, "model": {"transformer_seed": None}}


def bhasin_inputs(name: str, distributions: Mapping[str, str]) -> Values:
    base, _, parameter = name.partition(":")
    if base == "student_t":
        return {"data": "studentT", "type": "standard", "df": float(parameter or 4)}
    return {"data": distributions.get(name), "type": "standard"}


def bhasin_prompt(config: RunConfig) -> Values:
    about = {"class": "task", "inputs": "data", "nothing": "task"}[config.instruction.encodes]
    encoding = "static" if config.instruction.encodes == "nothing" else "dynamic"
    return {"type": about, "encoding": encoding, "position": config.instruction.at}

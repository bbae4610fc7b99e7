"""Opens the files of programs that train GPT-2s on prompts of real vectors, as their configurations say."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from training.common.digits import whole
from training.common.errors import UserError
from training.config.config import RunConfig
from training.importing.gpt2_layout import Backbone
from training.importing.hybrid_layout import flatten
from training.importing.proof import Converted, Snapshot, Weights, checked, odd_names, proved
from training.importing.settings import Settings, refused
from training.importing.source_files import LARGEST_FILE, Table, file_hash, read_pickle, weights_in
from training.importing.sources import find_files, program_of
from training.importing.translation import INSTRUCTIONS, Translation
from training.tasks.prompts import Prompts

VOCABULARY = 60_000
"""Rows of token embeddings that a GPT-2 may carry along."""


def choose_files(source: Path, step: int | str | None, most: int) -> list[tuple[int, Path]]:
    """The files to import with their steps, the last one last.

    Args:
        source: a run directory, or a file.
        step: of one of them; `all`; None takes the last state.
        most: bytes of a file.

    Raises:
        UserError: there is no such step, or nothing says of which step a file is.
    """
    files, wanted = find_files(source), None if step in (None, "all") else whole(str(step))
    by_step = dict(files.numbered)
    if files.final is not None:
        content = read_pickle(files.final, most)
        weights_in(content, files.final)  # refuses what holds none
        last = train_step(content)
        last = wanted if last is None and not by_step else last
        if last is None:
            raise UserError(
                f"{files.final} does not say of which step it is: neither its name nor train_step (--step N)"
            )
        by_step[last] = files.final
    if step == "all":
        return sorted(by_step.items())
    if step is None:
        return [max(by_step.items(), key=lambda item: (item[1] == files.final, item[0]))]
    if wanted is None or wanted not in by_step:
        steps = ", ".join(map(str, sorted(by_step)))
        raise UserError(f"--step {step}: {source} has no weights of that step (it has: {steps}; or all)")
    return [(wanted, by_step[wanted])]


def train_step(content: object) -> int | None:
    """The training step that a file holds beside its weights."""
    step = content.get("train_step") if isinstance(content, Mapping) else None
    return step if type(step) is int and 0 <= step < 2**31 else None


def from_yaml(
    source: Path, kind: str, settings: Settings, step: int | str | None, folder: Path, label: str
) -> tuple[RunConfig, Iterator[Snapshot], Table]:
    """A source with a configuration in YAML. Its last file decides how far training had come."""
    most = most_bytes(settings)
    files = choose_files(source, step, most)
    last_step, last_file = files[-1]
    translation = program_of(settings).translate(settings, last_step, label)
    if translation is None:
        raise refused(source, [*settings.reasons, *names_against(last_file, most)])
    vectors = instruction_vectors(translation.config, folder)
    convert = partial(convert_gpt2, translation=translation, vectors=vectors, most=most)
    about = {"format": kind, "path": str(source), "notes": list(settings.notes)}
    return translation.config, each(files, translation.config, convert), about


def names_against(path: Path, most: int) -> list[str]:
    """Whether the weights are of another family, for a source that is refused anyway."""
    weights, _ = weights_in(read_pickle(path, most), path)
    odd = [name for name in weights if not name.startswith(("_read_in.", "_backbone.", "_read_out."))]
    return [f"its weights have names of another network: {odd_names(odd, ())}"] if odd else []


def each(
    files: Sequence[tuple[int, Path]], config: RunConfig, convert: Callable[[Path], Converted]
) -> Iterator[Snapshot]:
    """The files, converted and proved, one at a time."""
    for step, path in files:
        yield proved(convert(path), config, step, {"file": path.name, "sha256": file_hash(path)}, path)


def most_bytes(settings: Settings) -> int:
    """What a file with such a model may hold: parameters, embeddings and masks in float64, and Adam's moments."""
    quiet = Settings(settings.values)
    n_modules = sum(1 for _ in flatten(quiet.get("model.module_names")))
    n_layers, width = quiet.whole("model.n_layer", default=n_modules), quiet.whole("model.n_embd")
    n_ctx, n_dims = 2 * quiet.whole("model.n_positions") + 1, quiet.whole("model.n_dims", default=1024)
    parameters = n_layers * (12 * width**2 + 13 * width + n_ctx**2) + width * (VOCABULARY + n_dims + n_ctx + 4)
    return min(LARGEST_FILE, 3 * 8 * parameters + 2**24)


def convert_gpt2(
    path: Path, translation: Translation, vectors: Float[Tensor, "vector d_model"], most: int
) -> Converted:
    """The weights in a file of a program that trains GPT-2s.

    Raises:
        UserError: names or shapes are not those of its configuration, or values are not finite; with all reasons.
    """
    given, _ = weights_in(read_pickle(path, most), path)
    sizes, backbone = translation.config.model, translation.backbone
    kept = {name: tensor for name, tensor in given.items() if not backbone.unused.fullmatch(name)}
    if isinstance(backbone, Backbone) and not backbone.has_positions:
        kept.pop(f"{backbone.prefix}wpe.weight", None)
    weights, notes = checked(kept, backbone.shapes(sizes, translation.n_dims), path)
    ours = backbone.to_hooked(weights, sizes)
    if len(vectors):
        ours["embed.W_E"] = torch.cat((ours["embed.W_E"], vectors - weights["_read_in.bias"]))
    ours = {name: tensor.contiguous() for name, tensor in ours.items()}
    return Converted(ours, partial(predict_gpt2, weights, translation, vectors), notes)


def instruction_vectors(config: RunConfig, folder: Path) -> Float[Tensor, "vector d_model"]:
    """The vectors that stand for instructions, in the order of what they tell apart; none without such instructions.

    Raises:
        UserError: a file is missing or holds something else.
    """
    d_model = config.model.d_model
    rows = []
    for number in range(config.layout.n_vectors):
        path = folder / INSTRUCTIONS[min(number, len(INSTRUCTIONS) - 1)]
        if not path.is_file():
            raise UserError(
                f"its instructions are vectors that lie in files of their own: {path} is missing (--instructions DIR)"
            )
        vector = read_pickle(path)
        if not isinstance(vector, Tensor) or vector.numel() != d_model or not vector.isfinite().all():
            raise UserError(f"{path} is not a vector of {d_model} finite numbers")
        rows.append(vector.float().flatten())
    return torch.stack(rows) if rows else torch.zeros(0, d_model)


def predict_gpt2(
    weights: Weights, translation: Translation, vectors: Float[Tensor, "vector d_model"], prompts: Prompts, number: int
) -> Float[Tensor, "batch point"]:
    """The source's predictions, from prompts as its own code builds them.

    Args:
        weights: by its names.
        translation: what it says.
        vectors: its instruction vectors.
        prompts: xs and ys.
        number: of the instruction.
    """
    config, backbone = translation.config, translation.backbone
    n_prompts, n_points, n_dims = prompts.xs.shape
    xs = torch.nn.functional.pad(prompts.xs, (0, translation.n_dims - n_dims))
    ys = torch.cat((prompts.ys[..., None], torch.zeros(n_prompts, n_points, translation.n_dims - 1)), dim=2)
    zs = torch.stack((xs, ys), dim=2).view(n_prompts, 2 * n_points, translation.n_dims)
    at, n_tokens = config.layout.at, config.layout.n_instruction
    if config.instruction.kind == "one_hot":
        tokens = torch.zeros(n_prompts, n_tokens, translation.n_dims)
        tokens[:, :, number] = 1
        zs = torch.cat((zs[:, :at], tokens, zs[:, at:]), dim=1)
    embeds = zs @ weights["_read_in.weight"].T + weights["_read_in.bias"]
    if config.instruction.kind == "vector":
        embeds = torch.cat((vectors[number].expand(n_prompts, 1, -1), embeds), dim=1)
    outputs = backbone.predict(weights, embeds, config.model)
    return torch.cat((outputs[:, :at], outputs[:, at + n_tokens :]), dim=1)[:, ::2]

"""Opens HookedTransformers and TransformerBridges, from a file with the state dict or in memory."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from training.common.digits import whole
from training.common.errors import UserError
from training.config.config import ModelConfig, RunConfig
from training.importing import hooked, hooked_layout
from training.importing.proof import Converted, Snapshot, checked, proved
from training.importing.settings import Settings, refused
from training.importing.source_files import LARGEST_FILE, Table, file_hash, read_pickle, weights_in
from training.tasks.prompts import Prompts


@runtime_checkable
class Hooked(Protocol):
    """A HookedTransformer, or a TransformerBridge, in memory."""

    cfg: Any

    def state_dict(self) -> Mapping[str, Tensor]:
        """Its parameters."""
        ...

    def __call__(self, input: Tensor, *, start_at_layer: int) -> Tensor:
        """Its outputs, from the residual stream in front of a layer."""
        ...


def from_hooked_file(
    source: Path, settings: Settings, step: int | str | None, label: str
) -> tuple[RunConfig, Iterator[Snapshot], Table]:
    """A file with the state dict of a HookedTransformer."""
    if not source.is_file():
        raise UserError(f"{source} is not a file: a HookedTransformer is imported from the file with its state dict")
    noted = noted_step(step, settings)
    given, _ = weights_in(read_pickle(source, hooked_bytes(settings)), source)
    config = hooked.translate(settings, given, noted, label)
    if config is None:
        raise refused(source, settings.reasons)
    about = {"file": source.name, "sha256": file_hash(source)}
    snapshots = iter([proved(convert(given, config.model, source), config, noted, about, source)])
    return config, snapshots, {"format": "hooked", "path": str(source), "notes": list(settings.notes)}


def from_object(
    source: Hooked, step: int | str | None, set_by_user: Sequence[str], label: str
) -> tuple[RunConfig, Iterator[Snapshot], Table]:
    """A HookedTransformer in memory; the proof is its own forward pass."""
    name = type(source).__name__
    if not hasattr(source, "cfg") or not hasattr(source, "state_dict"):
        raise UserError(f"a {name} cannot be imported: a path, or an object with cfg and state_dict, is needed")
    settings = Settings({key: value for key, value in vars(source.cfg).items() if not key.startswith("_")}, set_by_user)
    noted = noted_step(step, settings)
    given = {key: tensor for key, tensor in source.state_dict().items() if isinstance(tensor, Tensor)}
    config = hooked.translate(settings, given, noted, label)
    if config is None:
        raise refused(f"the {name}", settings.reasons)
    converted = convert(given, config.model, f"the {name}")
    if not converted.notes:  # in half precision its own forward pass is rounded to that
        converted = replace(converted, predict=partial(own_predictions, source, converted.weights))
    snapshots = iter([proved(converted, config, noted, {"file": None, "sha256": None}, f"the {name}")])
    return config, snapshots, {"format": "hooked", "path": f"{name} in memory", "notes": list(settings.notes)}


def noted_step(step: int | str | None, settings: Settings) -> int:
    """The step that the user names for a model that does not say it; 0, with a note, without one.

    Raises:
        UserError: it is no step.
    """
    if step is None:
        settings.notes.append("its training step is not known; 0 is written (--step N names it)")
        return 0
    number = whole(str(step))
    if number is None:
        raise UserError(f"--step {step}: for a HookedTransformer it is the number of its training step")
    return number


def hooked_bytes(settings: Settings) -> int:
    """What a file with such a model may hold, in float64, with its masks."""
    quiet = Settings(settings.values)
    n_layers, width = quiet.whole("n_layers"), quiet.whole("d_model")
    n_ctx, vocabulary = quiet.whole("n_ctx"), quiet.whole("d_vocab")
    d_mlp = quiet.whole("d_mlp", default=4 * width, at_least=0)
    per_layer = 4 * width**2 + 2 * width * d_mlp + d_mlp + 9 * width + n_ctx**2
    parameters = n_layers * per_layer + width * (vocabulary + n_ctx + 4)
    return min(LARGEST_FILE, 8 * parameters + 2**24)


def convert(given: Mapping[str, Tensor], sizes: ModelConfig, path: object) -> Converted:
    """The parameters of a HookedTransformer, or of a TransformerBridge, without buffers."""
    kept = {name: tensor for name, tensor in given.items() if not hooked_layout.BUFFERS.fullmatch(name)}
    if hooked_layout.is_bridge(kept):
        kept = hooked_layout.from_bridge(kept, sizes.n_heads)
    if sizes.positions == "rotary":
        kept = {hooked_layout.READ_IN_BIAS: torch.zeros(1, sizes.d_model), **kept}
    weights, notes = checked(kept, hooked_layout.shapes(sizes, sizes.n_dims), path)

    def predict(prompts: Prompts, number: int) -> Float[Tensor, "batch point"]:
        del number
        return hooked_layout.predict(weights, sizes, prompts.tokens)[:, ::2]

    return Converted(hooked_layout.from_hooked(weights, sizes), predict, notes)


@torch.no_grad()
def own_predictions(
    source: Hooked, weights: Mapping[str, Tensor], prompts: Prompts, number: int
) -> Float[Tensor, "batch point"]:
    """The predictions of the model in memory by its own forward pass, from the first residual stream on."""
    del number
    tokens = prompts.tokens
    resid = tokens @ weights["embed.W_E"] + weights["pos_embed.W_pos"][: tokens.shape[1]]
    device = next(iter(source.state_dict().values())).device
    return source(resid.to(device), start_at_layer=0)[:, ::2, 0].float().cpu()

"""Heads and parts of the model as a configuration names them: `0.3` is head 3 of layer 0, `blocks.0.mlp` an MLP."""

from collections.abc import Sequence

from training.common.digits import whole
from training.common.errors import UserError
from training.config.model_config import ModelConfig


def parse_heads(key: str, names: Sequence[str], model: ModelConfig) -> list[tuple[int, int]]:
    """(layer, head) of every name, in the order given.

    Raises:
        UserError: a name is not of the form LAYER.HEAD, the model has no such head, or one is named twice.
    """
    heads = [parse_head(key, name.strip(), model) for name in names]
    if len(set(heads)) < len(heads):
        raise UserError(f"{key}={','.join(names)}: a head is named twice")
    return heads


def parse_head(key: str, name: str, model: ModelConfig) -> tuple[int, int]:
    layer, head = (whole(digits) for digits in (*name.partition(".")[::2],))
    if layer is None or head is None or layer >= model.n_layers or head >= model.n_heads:
        raise UserError(
            f"{key}: '{name}' is no head LAYER.HEAD of this model, which has layers 0-{model.n_layers - 1} with heads "
            f"0-{model.n_heads - 1}"
        )
    return layer, head


def part_names(model: ModelConfig) -> list[str]:
    """The parts of a model that have weights of their own, as the names of their parameters begin.

    >>> from training.config.model_config import ModelConfig
    >>> part_names(ModelConfig(n_layers=1, n_heads=1, d_model=2, n_dims=1, n_ctx=2, d_mlp=0))
    ['embed', 'pos_embed', 'blocks.0', 'blocks.0.ln1', 'blocks.0.attn', 'ln_final', 'unembed']
    """
    norms, mlps = model.norm != "none", model.mlp_width > 0
    has = {"": True, ".ln1": norms, ".attn": True, ".ln2": norms and mlps, ".mlp": mlps}
    blocks = [f"blocks.{layer}{part}" for layer in range(model.n_layers) for part in has if has[part]]
    return ["embed", "pos_embed", *blocks, *(["ln_final"] if norms else []), "unembed"]

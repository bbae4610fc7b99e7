"""Copies the weights of a trained model into a new model: all, or those of chosen heads and components."""

from collections.abc import Mapping

import torch
from torch import Tensor

from training.config.config import RunConfig
from training.model.transformer import Transformer

OF_A_HEAD = frozenset({"W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V"})
"""Parameters of attention whose first axis is the head; b_O belongs to all of them."""


@torch.no_grad()
def transplant(model: Transformer, source: Mapping[str, Tensor], config: RunConfig) -> None:
    """Overwrite those weights of a new model that `config.init` takes from a source of the same shapes.

    Args:
        model: with the first weights that its own seed has drawn.
        source: the other model's, by name of the parameter.
        config: of the new run.
    """
    kept, reset = config.init.heads_kept(config.model), config.init.heads_reset(config.model)
    for name, parameter in model.named_parameters():
        own = parameter.clone()
        if config.init.takes(name):
            parameter.copy_(source[name])
        if name.rsplit(".", 1)[-1] not in OF_A_HEAD:
            continue
        for layer, head in kept:
            if name.startswith(f"blocks.{layer}."):
                parameter[head] = source[name][head].to(parameter)
        for layer, head in reset:
            if name.startswith(f"blocks.{layer}."):
                parameter[head] = own[head]

"""The same weights as a `transformer_lens.HookedTransformer`: the only module that names transformer_lens."""

import warnings
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens import HookedTransformer, HookedTransformerConfig

from training.checkpoints.checkpoint import Checkpoint, load
from training.common.library_defaults import library_defaults
from training.config.config import ModelConfig
from training.model.transformer import LN_EPS, Transformer


class HookedPromptTransformer(HookedTransformer):
    """A HookedTransformer that reads prompts of real vectors `[batch pos dim]` instead of token ids."""

    def input_to_embed(self, input: Float[Tensor, "batch pos dim"], *_: Any, **__: Any) -> tuple[Any, ...]:
        """The first residual stream: `prompt @ W_E + W_pos`. There are no token ids and no padding."""
        embed = self.hook_embed(input @ self.embed.W_E)
        pos_embed = self.hook_pos_embed(self.pos_embed.W_pos[: input.shape[1]].expand_as(embed))
        return embed + pos_embed, None, None, None

    def center_unembed(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights as they are: the mean over the outputs that TransformerLens subtracts is the one output."""
        return state_dict

    def load_and_process_state_dict(
        self,
        state_dict: dict[str, Tensor],
        fold_ln: bool = True,
        center_writing_weights: bool = True,
        center_unembed: bool = False,  # noqa: ARG002
        fold_value_biases: bool = True,
        refactor_factored_attn_matrices: bool = False,
    ) -> None:
        """As in TransformerLens, without `center_unembed`, which `process_weights_` asks for by default."""
        super().load_and_process_state_dict(
            state_dict, fold_ln, center_writing_weights, False, fold_value_biases, refactor_factored_attn_matrices
        )


@library_defaults()
def hooked(source: str | Path | Checkpoint | Transformer, device: str = "cpu") -> HookedPromptTransformer:
    """A checkpoint (or a model in memory) as a HookedTransformer that takes prompts.

    `model(prompt)` is [batch pos 1]; at the token x_i it is the prediction of y_i (the compact model's
    `layout` says where the x tokens stand). `run_with_cache` and
    `run_with_hooks` work as in every TransformerLens notebook. Do not use the `_by_pos` sweeps of
    `transformer_lens.patching` on it: they take the number of positions from the last axis of the prompt.

    Raises:
        UserError: there is no such checkpoint.

    >>> import torch
    >>> tiny = Transformer(ModelConfig(n_layers=1, n_heads=2, d_model=8, n_dims=3, n_ctx=6))
    >>> hooked(tiny)(torch.zeros(5, 6, 3)).shape
    torch.Size([5, 6, 1])
    """
    if isinstance(source, str | Path):
        source = load(source, device)
    model = source.model if isinstance(source, Checkpoint) else source
    with warnings.catch_warnings():  # this project pins the last series that has the class
        warnings.filterwarnings("ignore", "HookedTransformer is deprecated", DeprecationWarning)
        twin = HookedPromptTransformer(hooked_config(model.config, len(model.embed.W_E), device))
    missing, unexpected = twin.load_state_dict(model.state_dict(), strict=False)
    parameters = dict(twin.named_parameters())
    if unexpected or any(name in parameters for name in missing):
        raise RuntimeError(f"HookedTransformer has other parameters: {unexpected}, {missing}")
    return twin.eval().requires_grad_(False)


def hooked_config(config: ModelConfig, n_coordinates: int, device: str) -> HookedTransformerConfig:
    return HookedTransformerConfig(
        n_layers=config.n_layers,
        n_heads=config.n_heads,
        d_model=config.d_model,
        d_head=config.d_head,
        d_mlp=4 * config.d_model,
        n_ctx=config.n_ctx,
        d_vocab=n_coordinates,
        d_vocab_out=1,
        act_fn="gelu_new",
        eps=LN_EPS,
        normalization_type="LN",
        attention_dir="causal",
        init_weights=False,
        device=device,
        dtype=torch.float32,
    )

"""Converts a model to TransformerLens with the same weights; the only module that imports transformer_lens.

With transformer-lens 3.x the result is a HookedTransformer; 4.x has no such class and gives a TransformerBridge.
"""

import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from training.checkpoints.checkpoint import Checkpoint, load
from training.common.errors import UserError
from training.common.library_defaults import library_defaults
from training.importing.gpt2_layout import unlike_gpt2
from training.importing.hooked_layout import BRIDGE_LAYOUTS, READ_IN_BIAS, configuration, to_hooked
from training.model.transformer import Transformer

SERIES = int(version("transformer-lens").split(".")[0])
"""The installed major version of transformer-lens."""

if TYPE_CHECKING or SERIES < 4:  # types are checked against 3.9, which `make install` takes
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    class HookedPromptTransformer(HookedTransformer):
        """A HookedTransformer that reads prompts of real vectors `[batch pos dim]` instead of token ids."""

        read_in_bias: Tensor

        def input_to_embed(self, input: Float[Tensor, "batch pos dim"], *_: Any, **__: Any) -> tuple[Any, ...]:
            """The first residual stream: `prompt @ W_E + W_pos`. There are no token ids and no padding."""
            if self.cfg.positional_embedding_type == "rotary":
                return self.hook_embed(input @ self.embed.W_E + self.read_in_bias), None, None, None
            embed = self.hook_embed(input @ self.embed.W_E)
            pos_embed = self.hook_pos_embed(self.pos_embed.W_pos[: input.shape[1]].expand_as(embed))
            return embed + pos_embed, None, None, None

        def center_unembed(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
            """The unchanged weights: TransformerLens would subtract the mean over outputs, the only output."""
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

    def build_twin(model: Transformer, device: str) -> HookedPromptTransformer:
        with warnings.catch_warnings():  # 3.x announces that 4.x has no such class
            warnings.filterwarnings("ignore", "HookedTransformer is deprecated", DeprecationWarning)
            twin = HookedPromptTransformer(HookedTransformerConfig(**twin_config(model), device=device))
        weights = to_hooked(model.state_dict(), model.config)
        if READ_IN_BIAS in weights:
            twin.register_buffer(READ_IN_BIAS, weights[READ_IN_BIAS].to(device))
        missing, unexpected = twin.load_state_dict(weights, strict=False)
        parameters = dict(twin.named_parameters())
        if unexpected or any(name in parameters for name in missing):
            raise RuntimeError(f"HookedTransformer has other parameters: {unexpected}, {missing}")
        return twin

else:
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge
    from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent
    from transformer_lens.model_bridge.sources import build_bridge_from_module
    from transformer_lens.model_bridge.sources.native import NativeAttention, NativeBlock, NativeModel

    HookedPromptTransformer = TransformerBridge

    class ReadIn(nn.Embedding):
        """`prompt @ W_E` instead of a look-up."""

        def forward(self, input: Float[Tensor, "batch pos dim"]) -> Float[Tensor, "batch pos d_model"]:
            return input @ self.weight

    class PromptAttention(NativeAttention):
        """Attention whose scores can be edited; NativeAttention only shows the pattern under their name."""

        edit_scores: Callable[[Tensor], Tensor]

        def forward(
            self,
            hidden_states: Float[Tensor, "batch pos d_model"],
            *,
            pattern_fn: Callable[[Tensor], Tensor],
            **_: Any,
        ) -> tuple[Float[Tensor, "batch pos d_model"], None]:
            q, k, v = (
                rearrange(part(hidden_states), "batch pos (head d_head) -> batch head pos d_head", head=self.n_heads)
                for part in (self.q, self.k, self.v)
            )
            hidden = self.causal_mask[: q.shape[2], : q.shape[2]]
            scores = self.edit_scores((q @ k.mT / self.scale).masked_fill(hidden, -torch.inf))
            pattern = pattern_fn(scores.softmax(-1))
            return self.o(rearrange(pattern @ v, "batch head pos d_head -> batch pos (head d_head)")), None

    class PromptBlock(NativeBlock):
        """A block whose middle residual stream can be edited; in NativeBlock such an edit reaches the MLP only."""

        def __init__(self, cfg: TransformerBridgeConfig) -> None:
            super().__init__(cfg)
            self.attn = PromptAttention(cfg)
            self.mid = nn.Identity()

        def forward(self, hidden_states: Float[Tensor, "batch pos d_model"], **_: Any) -> tuple[Tensor]:
            mid = self.mid(hidden_states + self.attn(self.ln1(hidden_states))[0])
            return (mid + self.mlp(self.ln2(mid)),)

    class PromptModel(NativeModel):
        """A NativeModel that reads prompts `[batch pos dim]`."""

        def __init__(self, cfg: TransformerBridgeConfig) -> None:
            super().__init__(cfg)
            self.tok_embed = ReadIn(cfg.d_vocab, cfg.d_model)
            self.layers = nn.ModuleList(PromptBlock(cfg) for _ in range(cfg.n_layers))
            self.head = nn.Linear(cfg.d_model, cfg.d_vocab_out)

        def forward(self, input_ids: Any = None, *, inputs_embeds: Any = None, **options: Any) -> Tensor:
            """The bridge passes real-valued input as `inputs_embeds`: a prompt or, with start_at_layer, a residual
            stream, which then replaces the output of the earlier layers.
            """
            if inputs_embeds is not None and inputs_embeds.shape[-1] == self.cfg.d_vocab:
                input_ids, inputs_embeds = inputs_embeds, None
            return super().forward(input_ids, inputs_embeds=inputs_embeds, **options)

    def build_twin(model: Transformer, device: str) -> TransformerBridge:
        if choices := unlike_gpt2(model.config):
            raise UserError(
                f"transformer-lens 4 has no twin of a model with {', '.join(choices)}; transformer-lens 3.9 has"
            )
        config = TransformerBridgeConfig(**twin_config(model))
        twin = build_bridge_from_module(
            PromptModel(config).to(device),
            architecture="TransformerLensNative",
            tl_config=config,
            model_name="native",
            post_adapter_hook=expose_middle,
        )
        for block in twin.blocks:
            object.__setattr__(block.attn.original_component, "edit_scores", block.attn.hook_attn_scores)
        twin.load_state_dict(bridge_weights(model.state_dict()), strict=True)
        return twin

    def expose_middle(adapter: Any) -> None:
        block = adapter.component_mapping["blocks"]
        block.submodules["mid"] = GeneralizedComponent(name="mid")
        block.hook_aliases = {**block.hook_aliases, "hook_resid_mid": "mid.hook_out"}


def bridge_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parameters with the names and shapes of a TransformerBridge, where a linear map is [out in].

    >>> weights = {"blocks.0.attn.W_O": torch.zeros(2, 4, 8), "blocks.0.ln1.w": torch.zeros(8)}
    >>> {name: list(tensor.shape) for name, tensor in bridge_weights(weights).items()}
    {'blocks.0.attn.o.weight': [8, 8], 'blocks.0.ln1.weight': [8]}
    """
    converted = {}
    for name, tensor in weights.items():
        module, _, parameter = name.rpartition(".")
        bridge_name, _, layout = BRIDGE_LAYOUTS[parameter].partition(" ")
        converted[f"{module}.{bridge_name}"] = rearrange(tensor, layout)
    return converted


@library_defaults()
def hooked(source: str | Path | Checkpoint | Transformer, device: str = "cpu") -> HookedPromptTransformer:
    """A checkpoint (or a model in memory) as a model of TransformerLens that takes prompts.

    `model(prompt)` is [batch pos 1]; at the token x_i it is the prediction of y_i (the compact model's `layout` gives
    the positions of the x tokens). `run_with_cache` and `run_with_hooks` work as usual. Do not use the `_by_pos` sweeps
    of `transformer_lens.patching`: they take the number of positions from the last axis of the prompt.

    With transformer-lens 3.x the model is a HookedTransformer, with 4.x a TransformerBridge. Activations have the same
    names and values, and edits the same effects, except for `hook_result`, which 4.x does not compute.

    AutoCircuit and EAP-IG (3.x) need hooks that are off by default: call `set_use_attn_result(True)`,
    `set_use_split_qkv_input(True)` and `set_use_hook_mlp_in(True)` on the model. EAP-IG also needs
    `requires_grad_(True)`, since the parameters here are frozen, and calls `model.tokenizer`, which there is none of:
    replace that call by one that passes prompts on. `transformer_lens.head_detector` averages over all queries, the
    first token included, which has nothing before it: its previous-token score times n/(n-1), for n tokens, is that of
    `interp.score`.

    Raises:
        UserError: there is no such checkpoint; or transformer-lens 4 has no twin of its architecture.

    >>> from training.config.config import ModelConfig
    >>> tiny = Transformer(ModelConfig(n_layers=1, n_heads=2, d_model=8, n_dims=3, n_ctx=6))
    >>> hooked(tiny)(torch.zeros(5, 6, 3)).shape
    torch.Size([5, 6, 1])
    """
    if isinstance(source, str | Path):
        source = load(source, device)
    if not isinstance(source, Checkpoint | Transformer):
        raise UserError(f"hooked takes a checkpoint, its name or a compact model, not {type(source).__name__}")
    model = source.model if isinstance(source, Checkpoint) else source
    return build_twin(model, device).eval().requires_grad_(False)


def twin_config(model: Transformer) -> dict[str, Any]:
    """The settings shared by both configuration classes."""
    return configuration(model.config, len(model.embed.W_E)) | {"init_weights": False}

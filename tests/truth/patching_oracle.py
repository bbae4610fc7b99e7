"""Patching done by hand with transformer_lens: what `interp.patching` has to equal.

Nothing here uses the engine under test: models are run by HookedTransformer, activations come from its cache, patches
and paths are its hooks.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens import ActivationCache

from interp.model.heads import EMBED, MLP, Head
from interp.model.hooked_transformer import HookedPromptTransformer
from interp.patching.path_receivers import Receiver
from interp.patching.sites import Variant
from training.config.config import ModelConfig
from training.model.transformer import Transformer
from training.tasks.prompts import PLAIN, Layout

HOOKS = {
    "resid_pre": "hook_resid_pre",
    "resid_mid": "hook_resid_mid",
    "resid_post": "hook_resid_post",
    "attn_out": "hook_attn_out",
    "mlp_out": "hook_mlp_out",
    "z": "attn.hook_z",
    "q": "attn.hook_q",
    "k": "attn.hook_k",
    "v": "attn.hook_v",
    "pattern": "attn.hook_pattern",
}
BY_HEAD = ("z", "q", "k", "v", "pattern")

Tokens = Float[Tensor, "batch pos dim"]
Hook = tuple[str, Callable[..., Tensor]]


def random_model(
    n_layers: int, n_heads: int, d_model: int, n_dims: int, n_points: int, layout: Layout = PLAIN, **choices: Any
) -> Transformer:
    """Large random weights, biases and gains, so that no part of the model can go wrong unseen."""
    choices = {"init_std": 0.3} | choices
    config = ModelConfig(n_layers, n_heads, d_model, n_dims, n_ctx=layout.n_tokens(n_points), **choices)
    model = Transformer(config, torch.Generator().manual_seed(n_layers + d_model), layout)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.requires_grad_(False)


def random_tokens(model: Transformer, n_points: int, n_prompts: int = 5) -> tuple[Tokens, Tokens]:
    """Two prompts' tokens up to the query, at all coordinates."""
    shape = (n_prompts, model.layout.n_needed(model.layout.n_tokens(n_points)), len(model.embed.W_E))
    generator = torch.Generator().manual_seed(2)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


def assert_same(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    """Equal within a fraction of the tensor's scale."""
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


@lru_cache(maxsize=8)
def cached(twin: HookedPromptTransformer, tokens: Tokens) -> ActivationCache:
    """All activations, kept for the last few pairs of a model and its tokens."""
    return twin.run_with_cache(tokens)[1]


def at_query(twin: HookedPromptTransformer, tokens: Tokens, hooks: Sequence[Hook]) -> Float[Tensor, " batch"]:
    """The prediction at the last token."""
    return twin.run_with_hooks(tokens, fwd_hooks=list(hooks))[:, -1, 0]


def patched(
    twin: HookedPromptTransformer, base: Tokens, source: ActivationCache, variant: Variant
) -> Float[Tensor, " batch"]:
    """The prediction when these activations come from the source's cache."""
    hooks = []
    for patch in variant:
        name = f"blocks.{patch.layer}.{HOOKS[patch.site]}"
        tokens = torch.ones(base.shape[1], dtype=torch.bool) if patch.tokens is None else patch.tokens
        hooks.append((name, replaced(patch.site, patch.heads, tokens, source[name])))
    return at_query(twin, base, hooks)


def replaced(site: str, heads: Sequence[int], tokens: Tensor, other: Tensor) -> Callable[..., Tensor]:
    def hook(activation: Tensor, hook: Any) -> Tensor:  # noqa: ARG001  # transformer_lens calls it by this name
        activation = activation.clone()
        for place in tokens.nonzero()[:, 0].tolist():
            if site == "pattern":
                for head in heads:
                    activation[:, head, place] = other[:, head, place]
            elif site in BY_HEAD:
                for head in heads:
                    activation[:, place, head] = other[:, place, head]
            else:
                activation[:, place] = other[:, place]
        return activation

    return hook


def path_patched(
    twin: HookedPromptTransformer, base: Tokens, source: Tokens, senders: Iterable[Head], receiver: Receiver
) -> Float[Tensor, " batch"]:
    """Path patching to one receiver in the two passes of Wang et al. 2022 (arXiv 2211.00593, their appendix).

    1. On the base prompts every z and mlp_out is frozen as it is, but for the senders', which are the source's. What
       the receiver then reads is recorded.
    2. On the base prompts again the receiver reads that; everything after it reacts.
    """
    senders = list(senders)
    own, other = cached(twin, base), cached(twin, source)
    tokens = source if EMBED in senders else base
    freeze: list[Hook] = []
    for layer in range(twin.cfg.n_layers):
        z = own[f"blocks.{layer}.attn.hook_z"].clone()
        for head in senders:
            if head.layer == layer and head.number >= 0:
                z[:, :, head.number] = other[f"blocks.{layer}.attn.hook_z"][:, :, head.number]
        mlp = other if Head(layer, MLP) in senders else own
        freeze.append((f"blocks.{layer}.attn.hook_z", constant(z)))
        freeze.append((f"blocks.{layer}.hook_mlp_out", constant(mlp[f"blocks.{layer}.hook_mlp_out"])))
    name = input_hook(receiver)
    seen: list[Tensor] = []
    at_query(twin, tokens, [*freeze, (name, recording(seen))])
    if receiver.input in ("q", "k", "v"):
        everywhere = torch.ones(base.shape[1], dtype=torch.bool)
        return at_query(twin, base, [(name, replaced(receiver.input, [receiver.number], everywhere, seen[0]))])
    return at_query(twin, base, [(name, constant(seen[0]))])


def input_hook(receiver: Receiver) -> str:
    """Where HookedTransformer shows what a receiver makes of what it reads, before anything else comes in."""
    if receiver.input == "out":
        return "ln_final.hook_normalized"
    return f"blocks.{receiver.layer}." + ("mlp.hook_pre" if receiver.input == "mlp" else f"attn.hook_{receiver.input}")


def constant(value: Tensor) -> Callable[..., Tensor]:
    def hook(activation: Tensor, hook: Any) -> Tensor:  # noqa: ARG001
        return value

    return hook


def recording(seen: list[Tensor]) -> Callable[..., Tensor]:
    def hook(activation: Tensor, hook: Any) -> Tensor:  # noqa: ARG001
        seen.append(activation.clone())
        return activation

    return hook


def path_added(
    twin: HookedPromptTransformer, base: Tokens, source: Tokens, senders: Iterable[Head], receivers: Sequence[Receiver]
) -> Float[Tensor, " batch"]:
    """Path patching to several receivers in one pass: to what each of them reads is added what the senders change.

    HookedTransformer shows the residual stream that each head's q, k and v read (use_split_qkv_input) and that an MLP
    reads (use_hook_mlp_in), so that the change can be added for the receivers alone.
    """
    own, other = cached(twin, base), cached(twin, source)
    change = {sender: written(twin, other, sender) - written(twin, own, sender) for sender in senders}
    hooks: list[Hook] = []
    for receiver in receivers:
        before = [one for sender, one in change.items() if receiver.reads(sender)]
        total = sum(before, torch.zeros_like(own["blocks.0.hook_resid_pre"]))
        if receiver.input == "out":
            hooks.append((f"blocks.{twin.cfg.n_layers - 1}.hook_resid_post", added(total, None)))
        elif receiver.input == "mlp":
            hooks.append((f"blocks.{receiver.layer}.hook_mlp_in", added(total, None)))
        else:
            hooks.append((f"blocks.{receiver.layer}.hook_{receiver.input}_input", added(total, receiver.number)))
    twin.set_use_split_qkv_input(True)
    twin.set_use_hook_mlp_in(True)
    try:
        return at_query(twin, base, hooks)
    finally:
        twin.set_use_split_qkv_input(False)
        twin.set_use_hook_mlp_in(False)


def written(twin: HookedPromptTransformer, run: ActivationCache, sender: Head) -> Float[Tensor, "batch pos d_model"]:
    """What a component writes into the residual stream, but for constants."""
    if sender == EMBED:
        return run["blocks.0.hook_resid_pre"]
    if sender.number == MLP:
        return run[f"blocks.{sender.layer}.hook_mlp_out"]
    return (
        run[f"blocks.{sender.layer}.attn.hook_z"][:, :, sender.number]
        @ twin.blocks[sender.layer].attn.W_O[sender.number]
    )


def added(change: Tensor, head: int | None) -> Callable[..., Tensor]:
    def hook(activation: Tensor, hook: Any) -> Tensor:  # noqa: ARG001
        if head is None:
            return activation + change
        activation = activation.clone()
        activation[:, :, head] += change
        return activation

    return hook

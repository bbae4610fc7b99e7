"""The trainers that `step.py` compares: this project's, and three that train the same network the usual way.

All start from the same weights, see the same prompts, take the same loss and update with the same optimiser (kind,
rate, decay, clipping, fused kernel), in the same precision (theirs under autocast). The references compute every token
at every layer and read the predictions at the x tokens; `Transformer.predict` leaves out what no prediction reads.

    ours         training.loop.trainer.training_step, as the loop calls it
    gpt2 twice   transformers.GPT2Model as in the authors' code (paper.md, section 3): the backbone runs a second time
                 for attention maps that nobody uses. Recent versions return maps under eager attention only, so the
                 second run is eager; both record a graph, only the first is differentiated
    gpt2         the same without the second run
    hooked       transformer_lens.HookedTransformer with its parameters set to train
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformers import GPT2Config, GPT2Model

from interp.model.hooked_transformer import hooked
from training.config.config import RecipeConfig, RunConfig
from training.importing.gpt2_layout import block_from_hooked
from training.loop.optim import learning_rate
from training.loop.recorder import PULSE
from training.loop.state import TrainingState, flush_losses, new_state
from training.loop.trainer import Predict, step_batch, training_predict, training_step
from training.model.transformer import Transformer


class Trainer(Protocol):
    def step(self) -> None:
        """Draw a batch and update once."""
        ...


@dataclass
class Ours:
    """This project's loop without its evaluations and saves."""

    config: RunConfig
    state: TrainingState
    predict: Predict

    def step(self) -> None:
        batch = step_batch(self.config, self.config.parsed_schedule(), self.state)
        training_step(self.state, self.config, batch, self.predict)
        if self.state.step % PULSE == 0:
            flush_losses(self.state)


@dataclass
class Reference:
    """A plain training loop around any module that maps prompts to the predictions of every y.

    Attributes:
        streams: gives prompts and function classes; its own model is not used.
    """

    config: RunConfig
    streams: TrainingState
    model: nn.Module
    optimizer: torch.optim.Optimizer

    def step(self) -> None:
        recipe = self.config.recipe
        ((arm, prompts),) = step_batch(self.config, self.config.parsed_schedule(), self.streams)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(recipe, self.streams.step)
        self.optimizer.zero_grad()
        with torch.autocast(prompts.tokens.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            predictions = self.model(prompts.tokens)
        loss = F.mse_loss(predictions.float(), prompts.ys)
        (loss / self.config.second_moment(*arm) if recipe.loss == "normalised" else loss).backward()
        if recipe.grad_clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), recipe.grad_clip)
        self.optimizer.step()
        loss.item()
        self.streams.step += 1


class PromptGPT2(nn.Module):
    """transformers' GPT-2 over prompts of real vectors, with this project's weights.

    Args:
        model: gives sizes and weights.
        with_maps: run the backbone a second time for its attention maps.
    """

    def __init__(self, model: Transformer, *, with_maps: bool = False) -> None:
        super().__init__()
        sizes = model.config
        config = GPT2Config(
            n_positions=sizes.n_ctx,
            n_embd=sizes.d_model,
            n_layer=sizes.n_layers,
            n_head=sizes.n_heads,
            layer_norm_epsilon=sizes.eps,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            use_cache=False,
        )
        self.with_maps = with_maps
        self.read_in = nn.Linear(sizes.n_dims, sizes.d_model)
        self.backbone = GPT2Model(config)
        self.read_out = nn.Linear(sizes.d_model, 1)
        missing, unexpected = self.load_state_dict(gpt2_layout(model.state_dict()), strict=False)
        if unexpected or set(missing) != {"read_in.bias", "backbone.wte.weight"}:
            raise RuntimeError(f"GPT2Model has other parameters: {unexpected}, {missing}")
        nn.init.zeros_(self.read_in.bias)  # it is part of W_pos

    def forward(self, prompt: Float[Tensor, "batch pos dim"]) -> Float[Tensor, "batch point"]:
        embed = self.read_in(prompt)
        resid = self.backbone(inputs_embeds=embed).last_hidden_state
        if self.with_maps:
            self.attention_maps(embed)
        return self.read_out(resid)[:, ::2, 0]

    def attention_maps(
        self, embed: Float[Tensor, "batch pos d_model"]
    ) -> tuple[Float[Tensor, "batch head query_pos key_pos"], ...]:
        """The pattern of every layer."""
        self.backbone.set_attn_implementation("eager")
        maps = self.backbone(inputs_embeds=embed, output_attentions=True).attentions
        self.backbone.set_attn_implementation("sdpa")
        return maps


def gpt2_layout(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """This project's weights, or gradients of them, by the names and in the shapes that `PromptGPT2` has."""
    laid_out = {
        "read_in.weight": tensors["embed.W_E"].T,
        "backbone.wpe.weight": tensors["pos_embed.W_pos"],
        "backbone.ln_f.weight": tensors["ln_final.w"],
        "backbone.ln_f.bias": tensors["ln_final.b"],
        "read_out.weight": tensors["unembed.W_U"].T,
        "read_out.bias": tensors["unembed.b_U"],
    }
    n_layers = sum(name.endswith("attn.W_Q") for name in tensors)
    for layer in range(n_layers):
        ours = {name.removeprefix(f"blocks.{layer}."): tensor for name, tensor in tensors.items()}
        laid_out |= {f"backbone.h.{layer}.{name}": tensor for name, tensor in block_from_hooked(ours).items()}
    return laid_out


class PromptHooked(nn.Module):
    """HookedTransformer with this project's weights, trainable."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.twin = hooked(model, str(model.device)).train().requires_grad_(True)

    def forward(self, prompt: Float[Tensor, "batch pos dim"]) -> Float[Tensor, "batch point"]:
        return self.twin(prompt)[:, ::2, 0]


def ours(config: RunConfig, device: str) -> Trainer:
    state = new_state(config, device)
    return Ours(config, state, training_predict(state.model, config.recipe))


def reference(make: Callable[[Transformer], nn.Module]) -> Callable[[RunConfig, str], Trainer]:
    def build(config: RunConfig, device: str) -> Trainer:
        streams = new_state(config, device)
        model = make(streams.model).to(device)
        return Reference(config, streams, model, optimizer_of(model, config.recipe))

    return build


def optimizer_of(model: nn.Module, recipe: RecipeConfig) -> torch.optim.Optimizer:
    """What `training.loop.optim.make_optimizer` makes, for any module."""
    cls = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
    return cls(
        model.parameters(), lr=recipe.lr, betas=(0.9, recipe.beta2), weight_decay=recipe.weight_decay, fused=True
    )


TRAINERS: dict[str, Callable[[RunConfig, str], Trainer]] = {
    "ours": ours,
    "gpt2 twice": reference(lambda model: PromptGPT2(model, with_maps=True)),
    "gpt2": reference(PromptGPT2),
    "hooked": reference(PromptHooked),
}

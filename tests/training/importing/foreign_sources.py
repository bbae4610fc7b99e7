"""Sources for imports, as the programs that wrote them would: networks, configurations and files."""

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn
from transformers import GPT2Config, GPT2Model
from transformers.activations import ACT2FN
from transformers.pytorch_utils import Conv1D

SIZES: dict[str, Any] = {"n_dims": 5, "n_positions": 11, "n_embd": 16, "n_layer": 2, "n_head": 4}


def combine(xs: Tensor, ys: Tensor) -> Tensor:
    """`TransformerModel._combine` of dtsip/in-context-learning."""
    n_prompts, n_points, n_dims = xs.shape
    wide = torch.cat((ys.view(n_prompts, n_points, 1), torch.zeros(n_prompts, n_points, n_dims - 1)), dim=2)
    return torch.stack((xs, wide), dim=2).view(n_prompts, 2 * n_points, n_dims)


class Garg(nn.Module):
    """`TransformerModel` of dtsip/in-context-learning at 3383371."""

    def __init__(
        self,
        n_dims: int,
        n_positions: int,
        n_embd: int,
        n_layer: int,
        n_head: int,
        pos_encode: bool = True,
        n_tokens: int = 100,
    ):
        super().__init__()
        configuration = GPT2Config(
            n_positions=2 * n_positions,
            n_embd=n_embd,
            n_layer=n_layer,
            n_head=n_head,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            use_cache=False,
            vocab_size=n_tokens,
            bos_token_id=0,
            eos_token_id=0,
        )
        self._read_in = nn.Linear(n_dims, n_embd)
        self._backbone = GPT2Model(configuration)
        self._read_out = nn.Linear(n_embd, 1)
        self.pos_encode = pos_encode

    def embed(self, zs: Tensor) -> Tensor:
        return self._read_in(zs)

    def outputs(self, embeds: Tensor) -> Tensor:
        if not self.pos_encode:
            embeds = embeds - self._backbone.wpe.weight[: embeds.shape[1]]
        return self._read_out(self._backbone(inputs_embeds=embeds).last_hidden_state)

    def forward(self, xs: Tensor, ys: Tensor) -> Tensor:
        return self.outputs(self.embed(combine(xs, ys)))[:, ::2, 0]


class NanoAttention(nn.Module):
    def __init__(self, n_embd: int, n_head: int):
        super().__init__()
        self.c_attn, self.c_proj = nn.Linear(n_embd, 3 * n_embd), nn.Linear(n_embd, n_embd)
        self.n_head = n_head

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(2, (self.n_head, -1)).transpose(1, 2) for part in self.c_attn(x).chunk(3, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).flatten(2))


class NanoMLP(nn.Module):
    def __init__(self, n_embd: int):
        super().__init__()
        self.c_fc, self.c_proj = nn.Linear(n_embd, 4 * n_embd), nn.Linear(4 * n_embd, n_embd)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c_fc(x)
        return self.c_proj(0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))


class NanoBlock(nn.Module):
    def __init__(self, n_embd: int, n_head: int):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(n_embd), nn.LayerNorm(n_embd)
        self.attn, self.mlp = NanoAttention(n_embd, n_head), NanoMLP(n_embd)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class NanoGPT(nn.Module):
    """`GPT2Model` of Leiay/looped_transformer at 6b3bdb2."""

    def __init__(self, n_rows: int, n_embd: int, n_layer: int, n_head: int):
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wpe": nn.Embedding(n_rows, n_embd),
                "h": nn.ModuleList(NanoBlock(n_embd, n_head) for _ in range(n_layer)),
                "ln_f": nn.LayerNorm(n_embd),
            }
        )

    def forward(self, embeds: Tensor) -> Tensor:
        x = embeds + self.transformer["wpe"](torch.arange(embeds.shape[1]))
        for block in self.transformer["h"]:  # type: ignore[attr-defined]
            x = block(x)
        return self.transformer["ln_f"](x)


class Looped(nn.Module):
    """`TransformerModel` of Leiay/looped_transformer."""

    def __init__(self, n_dims: int, n_positions: int, n_embd: int, n_layer: int, n_head: int):
        super().__init__()
        self._read_in = nn.Linear(n_dims, n_embd)
        self._backbone = NanoGPT(2 * n_positions + 1, n_embd, n_layer, n_head)
        self._read_out = nn.Linear(n_embd, 1)

    def forward(self, xs: Tensor, ys: Tensor) -> Tensor:
        return self._read_out(self._backbone(self._read_in(combine(xs, ys))))[:, ::2, 0]


class Residual(nn.Module):
    """`ResidualMarker`."""


class Positions(nn.Module):
    """`AbsolutePositionalEmbedding`."""

    def __init__(self, n_rows: int, n_embd: int):
        super().__init__()
        self.embed = nn.Embedding(n_rows, n_embd)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.embed.weight[: x.shape[1]]


class RMS(nn.Module):
    """`LlamaRMSNorm`, whose default eps is 1e-6."""

    def __init__(self, n_embd: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_embd))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class ConvAttention(nn.Module):
    """`GPT2Attention`."""

    def __init__(self, n_embd: int, n_head: int):
        super().__init__()
        self.c_attn, self.c_proj, self.n_head = Conv1D(3 * n_embd, n_embd), Conv1D(n_embd, n_embd), n_head

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(2, (self.n_head, -1)).transpose(1, 2) for part in self.c_attn(x).chunk(3, dim=2))
        return self.c_proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class LlamaAttention(nn.Module):
    """`LlamaAttention`, with its rotary positions or without them."""

    def __init__(self, n_embd: int, n_head: int, is_rotary: bool):
        super().__init__()
        projections = (nn.Linear(n_embd, n_embd, bias=False) for _ in range(4))
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = projections
        self.n_head, self.is_rotary = n_head, is_rotary

    def rotate(self, x: Tensor) -> Tensor:
        if not self.is_rotary:
            return x
        frequencies = 1 / 10_000 ** (torch.arange(0, x.shape[-1], 2) / x.shape[-1])
        angles = torch.outer(torch.arange(x.shape[2]), frequencies).repeat(1, 2)
        first, second = x.chunk(2, dim=-1)
        return x * angles.cos() + torch.cat((-second, first), dim=-1) * angles.sin()

    def forward(self, x: Tensor) -> Tensor:
        projected = (self.q_proj(x), self.k_proj(x), self.v_proj(x))
        q, k, v = (part.unflatten(2, (self.n_head, -1)).transpose(1, 2) for part in projected)
        z = F.scaled_dot_product_attention(self.rotate(q), self.rotate(k), v, is_causal=True)
        return self.o_proj(z.transpose(1, 2).flatten(2))


class ConvMLP(nn.Module):
    """`GPT2MLP`."""

    def __init__(self, n_embd: int, act: str):
        super().__init__()
        self.c_fc, self.c_proj, self.act = Conv1D(4 * n_embd, n_embd), Conv1D(n_embd, 4 * n_embd), ACT2FN[act]

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(self.act(self.c_fc(x)))


class HybridBackbone(nn.Module):
    """`HybridBackbone` of in-context-learning-2024/in-context at ab00265, of the modules that are not Mamba's."""

    def __init__(self, names: list[str], n_rows: int, n_embd: int, n_head: int, act: str):
        super().__init__()
        make = {
            "residual": Residual,
            "absolute positional embedding": lambda: Positions(n_rows, n_embd),
            "layer norm": lambda: nn.LayerNorm(n_embd, eps=1e-5),
            "rms norm": lambda: RMS(n_embd),
            "gpt2 attention": lambda: ConvAttention(n_embd, n_head),
            "llama attention": lambda: LlamaAttention(n_embd, n_head, is_rotary=True),
            "llama attention no rope": lambda: LlamaAttention(n_embd, n_head, is_rotary=False),
            "gpt2 mlp": lambda: ConvMLP(n_embd, act),
        }
        self.layers = nn.ModuleList(make[name]() for name in names)

    def forward(self, hidden: Tensor) -> Tensor:
        residual: Tensor | int = 0
        for layer in self.layers:
            if isinstance(layer, Residual):
                hidden = residual = residual + hidden
            else:
                hidden = layer(hidden)
        return hidden


class HybridModel(nn.Module):
    """`HybridModel` of in-context-learning-2024/in-context."""

    def __init__(self, names: list[str], n_dims: int, n_positions: int, n_embd: int, n_head: int, act: str):
        super().__init__()
        self._read_in = nn.Linear(n_dims, n_embd)
        self._backbone = HybridBackbone(names, 2 * n_positions, n_embd, n_head, act)
        self._read_out = nn.Linear(n_embd, 1)

    def forward(self, xs: Tensor, ys: Tensor) -> Tensor:
        return self._read_out(self._backbone(self._read_in(combine(xs, ys))))[:, ::2, 0]


def randomised(model: nn.Module, seed: int = 0) -> Any:
    """The model with every parameter drawn, so that no map between layouts can leave one out unnoticed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            mean = 1.0 if ("ln_" in name and name.endswith("weight")) else 0.0
            parameter.normal_(mean, 0.2, generator=generator)
    return model.eval().requires_grad_(False)


def growth(start: int, end: int, inc: int = 1, interval: int = 2000) -> dict[str, int]:
    return {"start": start, "end": end, "inc": inc, "interval": interval}


def garg_config(**training: Any) -> dict[str, Any]:
    """config.yaml as `train.py` writes it."""
    return {
        "out_dir": "../models/linear_regression/1234",
        "test_run": False,
        "model": {"family": "gpt2", **SIZES},
        "training": {
            "task": "linear_regression",
            "task_kwargs": {},
            "num_tasks": None,
            "num_training_examples": None,
            "data": "gaussian",
            "batch_size": 64,
            "learning_rate": 1e-4,
            "train_steps": 10_001,
            "save_every_steps": 1000,
            "keep_every_steps": 1000,
            "resume_id": None,
            "curriculum": {"dims": growth(3, 5), "points": growth(3, 7, 2)},
        }
        | training,
        "wandb": {"project": "in-context-training", "name": "linear_regression_standard"},
    }


def save_garg(
    directory: Path, model: nn.Module, config: dict[str, Any], step: int = 10_000, **snapshots: nn.Module
) -> Path:
    """A run directory: config.yaml, state.pt with an optimiser, and snapshots `model_STEP`."""
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text(yaml.dump(config, default_flow_style=False))
    model.requires_grad_(True)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    model.requires_grad_(False)
    state = {
        "model_state_dict": model.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "train_step": step,
    }
    torch.save(state, directory / "state.pt")
    for name, snapshot in snapshots.items():
        torch.save(snapshot.state_dict(), directory / f"{name}.pt")
    return directory


def prompts(n_points: int, n_dims: int = SIZES["n_dims"], seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, n_points, n_dims, generator=generator), torch.randn(6, n_points, generator=generator)


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    return float(((ours - theirs).abs().max() / theirs.abs().max()).detach())

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

VOCABULARY, WIDTH, HEADS, LAYERS = 40, 32, 4, 3


class Case(NamedTuple):
    """A small random model.

    Attributes:
        module: the model.
        examples: what it takes.
        loss: of every example.
        projection: name of layer 0's projection, with the layer's number as {}.
        batch_first: as of `interp.attach`.
    """

    module: nn.Module
    examples: Any
    loss: Callable[[Any, Any], Tensor]
    projection: str
    batch_first: bool = True


class SelfAttention(nn.Module):
    """As in nanoGPT."""

    def __init__(self) -> None:
        super().__init__()
        self.n_head = HEADS
        self.c_attn = nn.Linear(WIDTH, 3 * WIDTH)
        self.c_proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (self.n_head, -1)).transpose(1, 2) for part in self.c_attn(x).split(WIDTH, dim=2))
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(z.transpose(1, 2).flatten(2))


class Feedforward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.c_fc = nn.Linear(WIDTH, 4 * WIDTH)
        self.c_proj = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x)))


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(WIDTH), SelfAttention()
        self.ln_2, self.mlp = nn.LayerNorm(WIDTH), Feedforward()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class NanoGPT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        parts = {"wte": nn.Embedding(VOCABULARY, WIDTH), "wpe": nn.Embedding(16, WIDTH)}
        self.transformer = nn.ModuleDict({**parts, "h": nn.ModuleList(Layer() for _ in range(LAYERS))})
        self.drop = nn.Dropout(0.5)
        self.lm_head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, ids: Tensor) -> tuple[Tensor, None]:
        x = self.drop(self.transformer["wte"](ids) + self.transformer["wpe"](torch.arange(ids.shape[1])))
        for layer in self.transformer["h"]:  # type: ignore[union-attr]
            x = layer(x)
        return self.lm_head(x), None


class Encoder(nn.Module):
    """Regression by an encoder over [pos, example, dim]."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, dropout=0.5)
        self.read_in = nn.Linear(3, WIDTH)
        self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.read_out = nn.Linear(WIDTH, 1)

    def forward(self, prompt: Tensor) -> dict[str, Tensor]:
        return {"predicted": self.read_out(self.encoder(self.read_in(prompt)))[..., 0]}


def next_token_loss(output: Any, ids: Any) -> Tensor:
    """Mean cross-entropy over the second half of each sequence."""
    ids = ids["input_ids"] if isinstance(ids, dict) else ids
    logits = getattr(output, "logits", output)
    logits = logits[0] if isinstance(logits, tuple) else logits
    losses = F.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
    return losses[:, losses.shape[1] // 2 :].mean(1)


def encoder_loss(output: Any, prompt: Tensor) -> Tensor:
    return (output["predicted"] - prompt[..., 0]).square().mean(0)


def gpt2() -> Case:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes: dict[str, Any] = {"n_layer": LAYERS, "n_head": HEADS, "n_embd": WIDTH, "n_positions": 16}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, **sizes))
    return Case(model, repeats(), next_token_loss, "transformer.h.{}.attn.c_proj")


def llama() -> Case:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: dict[str, Any] = {"num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=48, **sizes))
    examples = {"input_ids": repeats(), "use_cache": False}
    return Case(model, examples, next_token_loss, "model.layers.{}.self_attn.o_proj")


def neox() -> Case:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    sizes: dict[str, Any] = {"num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
    model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=48, **sizes))
    return Case(model, repeats(), next_token_loss, "gpt_neox.layers.{}.attention.dense")


def nanogpt() -> Case:
    return Case(NanoGPT(), repeats(), next_token_loss, "transformer.h.{}.attn.c_proj")


def hooked_tokens() -> Case:
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    sizes: dict[str, Any] = {
        "n_layers": LAYERS,
        "n_heads": HEADS,
        "d_model": WIDTH,
        "d_head": WIDTH // HEADS,
        "n_ctx": 16,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # removed in 4.0
        model = HookedTransformer(HookedTransformerConfig(d_vocab=VOCABULARY, act_fn="gelu", seed=0, **sizes))
    return Case(model, repeats(), next_token_loss, "blocks.{}.attn.hook_z")


def encoder() -> Case:
    prompts = torch.randn(10, 24, 3, generator=torch.Generator().manual_seed(2))
    return Case(Encoder(), prompts, encoder_loss, "encoder.layers.{}.self_attn.out_proj", batch_first=False)


def repeats(n_examples: int = 24, length: int = 6) -> Tensor:
    """Random sequences, shown twice."""
    half = torch.randint(0, VOCABULARY, (n_examples, length), generator=torch.Generator().manual_seed(1))
    return torch.cat((half, half), 1)


CASES = {one.__name__: one for one in (gpt2, llama, neox, nanogpt, hooked_tokens, encoder)}


def built(name: str) -> Case:
    """The case of this name, with random weights that make every head matter."""
    torch.manual_seed(0)
    case = CASES[name]()
    generator = torch.Generator().manual_seed(3)
    for path, parameter in case.module.named_parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.3, generator=generator)
        elif "bias" in path or ".b_" in path:
            parameter.data.normal_(0, 0.1, generator=generator)
    case.module.eval()
    return case


@pytest.fixture(params=[name for name in CASES if name != "encoder"])
def causal_case(request) -> Case:
    return built(request.param)


@pytest.fixture(params=list(CASES))
def case(request) -> Case:
    return built(request.param)


@pytest.fixture
def nano() -> Case:
    return built("nanogpt")


@pytest.fixture
def encoder_case() -> Case:
    return built("encoder")

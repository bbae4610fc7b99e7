"""A model of your own for `interp score|ablate|patch|report --ckpt FILE.py:NAME`; this file runs as it is.

Four things are yours: the model, the examples, the loss of every example, and what to compare it with.
"""

import torch
from torch import Tensor, nn

from interp import attach
from interp.any_model.attach import Attached


class Model(nn.Module):
    """1. Your model. Any torch module will do; this one is a small transformer with random weights."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 32)
        layer = nn.TransformerEncoderLayer(d_model=32, nhead=4, dim_feedforward=64, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
        self.unembed = nn.Linear(32, 50)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits [example pos token]."""
        mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1])
        return self.unembed(self.layers(self.embed(ids), mask=mask, is_causal=True))


def sequences(n_examples: int, seed: int) -> Tensor:
    """2. Your examples: here random tokens, shown twice. The second time they can be predicted from the first."""
    half = torch.randint(0, 50, (n_examples, 10), generator=torch.Generator().manual_seed(seed))
    return torch.cat((half, half), dim=1)


def token_losses(logits: Tensor, ids: Tensor) -> Tensor:
    """Cross-entropy of every token from the second on."""
    return nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")


def loss(logits: Tensor, ids: Tensor) -> Tensor:
    """3. One number per example, from what the model returns and what it was run on: here over the second half."""
    return token_losses(logits, ids)[:, 10:].mean(1)


def loss_without_context(logits: Tensor, ids: Tensor) -> Tensor:
    """The loss of a predictor that cannot use the context: here that of the same model over the first half."""
    return token_losses(logits, ids)[:, :9].mean(1)


def induction() -> Attached:
    """4. What `--ckpt FILE.py:induction` opens."""
    torch.manual_seed(0)
    model = Model().eval()  # for example: model.load_state_dict(torch.load("weights.pt", weights_only=True))
    examples = sequences(64, seed=1)
    corrupt = examples.clone()
    corrupt[:, :10] = sequences(64, seed=2)[:, :10]  # for `patch`: the same second half after another first half
    return attach(
        model,
        examples,
        loss,
        reference=sequences(64, seed=3),  # for means and resampling, and to choose heads; none: half of the examples
        corrupt=corrupt,
        name="template",
        # no_context=loss_without_context,  # a trained model: effects become shares of the in-context gain
        # projections="layers.layers.*.self_attn.out_proj", n_heads=4,  # where they are not found
        # roles="xy",  # tokens that alternate x and y: the score `retrospective`
        # conditions=["easy"] * 32 + ["hard"] * 32,  # effects within each
    )

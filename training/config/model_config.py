"""The section `model` of a run's configuration."""

from dataclasses import dataclass
from typing import Literal

from training.common.errors import UserError
from training.config.checks import require_positive

MOST_PARAMETERS = 10**9
"""Weights and what training keeps of each take 16 bytes."""


@dataclass(frozen=True)
class ModelConfig:
    """Sizes, architecture and initialisation of the transformer; the defaults are GPT-2's.

    Attributes:
        n_layers: layers.
        n_heads: attention heads per layer.
        d_model: width of the residual stream.
        n_dims: coordinates of x.
        n_ctx: tokens of the longest prompt, two for a pair.
        init_std: standard deviation of first weights.
        read_init: first weights of read-in and read-out: `normal` with init_std, or torch's for `linear` layers.
        norm: `layer` is LayerNorm, `rms` RMSNorm, `none` no normalisation, before every sublayer and the read-out.
        positions: `learned`, `rotary` (base 10,000), or `none`: only the causal mask tells tokens apart.
        d_mlp: width of the MLPs; 0 leaves them out, the default is 4 d_model.
        act: the MLPs' activation function; `gelu_new` is the tanh approximation, `gelu` the exact one.
        attention: causal softmax of q·k / sqrt(d_head); the only kind so far.
        eps: what norms add to the variance.
        d_out: numbers that the model predicts for a point; 1, since the y of every function class is one number.
    """

    n_layers: int
    n_heads: int
    d_model: int
    n_dims: int
    n_ctx: int
    init_std: float = 0.02
    read_init: Literal["normal", "linear"] = "normal"
    norm: Literal["layer", "rms", "none"] = "layer"
    positions: Literal["learned", "rotary", "none"] = "learned"
    d_mlp: int | None = None
    act: Literal["gelu_new", "gelu", "relu", "silu"] = "gelu_new"
    attention: Literal["softmax"] = "softmax"
    eps: float = 1e-5
    d_out: int = 1

    def __post_init__(self) -> None:
        require_positive(self, "n_layers", "n_heads", "d_model", "n_dims", "n_ctx", "init_std", "eps")
        if self.d_out != 1:
            raise UserError(f"model.d_out={self.d_out}: only 1 is possible: y is one number in every function class")
        if self.mlp_width < 0:
            raise UserError(f"model.d_mlp={self.d_mlp}: must not be negative")
        if self.n_parameters > MOST_PARAMETERS:
            raise UserError(f"model: {self.n_parameters} weights; at most {MOST_PARAMETERS} are possible")
        if self.d_model % self.n_heads:
            raise UserError(f"model.d_model={self.d_model} is not a multiple of model.n_heads={self.n_heads}")
        if self.positions == "rotary" and self.d_head % 2:
            raise UserError(f"model.positions=rotary needs an even d_model / n_heads (given: {self.d_head})")

    @property
    def d_head(self) -> int:
        return self.d_model // self.n_heads

    @property
    def mlp_width(self) -> int:
        """Hidden units of every MLP; 0 where there are none."""
        return 4 * self.d_model if self.d_mlp is None else self.d_mlp

    @property
    def n_positions(self) -> int:
        """Rows of W_pos: one per position, or one for all."""
        return self.n_ctx if self.positions == "learned" else 1

    @property
    def n_parameters(self) -> int:
        """Weights, without the instruction vectors that a layout may add.

        >>> ModelConfig(n_layers=3, n_heads=8, d_model=64, n_dims=4, n_ctx=32).n_parameters
        152449
        """
        width, of_norm = self.d_model, {"layer": 2, "rms": 1, "none": 0}[self.norm] * self.d_model
        per_layer = 4 * width**2 + 4 * width + of_norm
        if self.mlp_width:
            per_layer += 2 * width * self.mlp_width + self.mlp_width + width + of_norm
        return self.n_layers * per_layer + width * (self.n_dims + self.n_positions + 1) + of_norm + 1

"""The normalisations of the residual stream, each with its algebra: scale, Jacobian and null space.

`layer` is GPT-2's LayerNorm, `rms` RMSNorm (Zhang & Sennrich 2019, arXiv 1910.07467), `none` passes the stream on
unchanged. Every kind has the site `hook_normalized`, the input of the sublayer before gain and shift; `none` has no
`hook_scale`.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from training.model.sites import UNTOUCHED, Sites


class Norm(nn.Module):
    """No normalisation: the base of the others, which has no parameters.

    Attributes:
        scaled: whether the norm divides by a scale, which can be frozen.
        n_removed: dimensions of the residual stream that it removes (its null space).
    """

    scaled = False
    n_removed = 0

    def __init__(self, d_model: int, eps: float) -> None:
        super().__init__()
        self.d_model, self.eps = d_model, eps

    @property
    def gain(self) -> Float[Tensor, " d_model"]:
        """What each normalised coordinate is multiplied by."""
        return torch.ones(self.d_model)

    def forward(
        self, resid: Float[Tensor, "batch pos d_model"], at: Sites = UNTOUCHED
    ) -> Float[Tensor, "batch pos d_model"]:
        return at("hook_normalized", resid.view_as(resid))  # a node of its own: gradients there are not the stream's

    def centre(self, vectors: Float[Tensor, "*axes d_model"]) -> Float[Tensor, "*axes d_model"]:
        """Without the part that lies in the norm's null space."""
        return vectors

    def scale(self, resid: Float[Tensor, "*axes d_model"]) -> Float[Tensor, "*axes 1"]:
        """What the norm divides by (hook_scale)."""
        return resid.new_ones(*resid.shape[:-1], 1)

    def normalise(self, resid: Float[Tensor, "*axes d_model"]) -> Float[Tensor, "*axes d_model"]:
        """Before gain and shift (hook_normalized)."""
        return self.centre(resid) / self.scale(resid) if self.scaled else resid

    def pull_back(
        self,
        gradient: Float[Tensor, "*axes d_model"],
        normalized: Float[Tensor, "*#axes d_model"],
        scale: Float[Tensor, "*#axes 1"],
    ) -> Float[Tensor, "*axes d_model"]:
        """The gradient at the residual stream from the one at hook_normalized, exactly.

        With x̂ the normalised stream and s its scale, the transposed Jacobian of LayerNorm takes g to
        (g - mean g - x̂ mean(g x̂)) / s, that of RMSNorm to (g - x̂ mean(g x̂)) / s.

        Args:
            gradient: d / d x̂.
            normalized: x̂.
            scale: s.
        """
        if not self.scaled:
            return gradient
        along = (gradient * normalized).mean(-1, keepdim=True)
        return (self.centre(gradient) - normalized * along) / scale

    def shrink(self, resid: Float[Tensor, "*axes d_model"]) -> Float[Tensor, " *axes"]:
        """By how much the Jacobian shortens changes along the normalised stream x̂.

        The Jacobian is (centring - x̂ x̂' / d_model) / s; its square, by which lengths are measured,
        (centring - shrink x̂ x̂') / s².
        """
        if not self.scaled:
            return resid.new_zeros(resid.shape[:-1])
        variance = self.centre(resid).square().mean(-1)
        return (2 - variance / (variance + self.eps)) / resid.shape[-1]

    def visible_basis(self) -> Float[Tensor, "d_model visible"]:
        """An orthonormal basis, in float64, of what the norm lets through: the complement of its null space."""
        return torch.eye(self.d_model, dtype=torch.float64)


class RMSNorm(Norm):
    """x / sqrt(mean(x²) + eps), with gain w."""

    scaled = True

    def __init__(self, d_model: int, eps: float) -> None:
        super().__init__(d_model, eps)
        self.w = nn.Parameter(torch.ones(d_model))

    @property
    def gain(self) -> Float[Tensor, " d_model"]:
        return self.w

    def forward(
        self, resid: Float[Tensor, "batch pos d_model"], at: Sites = UNTOUCHED
    ) -> Float[Tensor, "batch pos d_model"]:
        if not at.wanted("hook_scale", "hook_normalized"):
            return self.plain(resid)
        return self.shift(at("hook_normalized", self.centre(resid) / at("hook_scale", self.scale(resid))) * self.w)

    def plain(self, resid: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """The norm with torch's own kernel."""
        return F.rms_norm(resid, self.w.shape, self.w, self.eps)

    def shift(self, gained: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        return gained

    def scale(self, resid: Float[Tensor, "*axes d_model"]) -> Float[Tensor, "*axes 1"]:
        # torch's var takes four times as long
        return (self.centre(resid).square().mean(-1, keepdim=True) + self.eps).sqrt()


class LayerNorm(RMSNorm):
    """(x - mean x) / sqrt(var x + eps), with gain w and shift b."""

    n_removed = 1

    def __init__(self, d_model: int, eps: float) -> None:
        super().__init__(d_model, eps)
        self.b = nn.Parameter(torch.zeros(d_model))

    def plain(self, resid: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        return F.layer_norm(resid, self.w.shape, self.w, self.b, self.eps)

    def shift(self, gained: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        return gained + self.b

    def centre(self, vectors: Float[Tensor, "*axes d_model"]) -> Float[Tensor, "*axes d_model"]:
        return vectors - vectors.mean(-1, keepdim=True)

    def visible_basis(self) -> Float[Tensor, "d_model visible"]:
        steps = torch.eye(self.d_model, dtype=torch.float64)[:, 1:] - 1 / self.d_model
        return torch.linalg.qr(steps).Q


NORMS: Mapping[str, type[Norm]] = {"layer": LayerNorm, "rms": RMSNorm, "none": Norm}
"""What stands behind `model.norm`."""

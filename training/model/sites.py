"""The places of a forward pass at which activations are read or replaced, by their TransformerLens hook names."""

from collections.abc import Callable, Mapping

from torch import Tensor

from training.config.config import ModelConfig

Edit = Callable[[Tensor], Tensor]
Edits = Mapping[str, Edit]

NORM_SITES = ("hook_scale", "hook_normalized")
ATTENTION_SITES = ("hook_q", "hook_k", "hook_v", "hook_attn_scores", "hook_pattern", "hook_z", "hook_result")
BLOCK_SITES = (
    "hook_resid_pre",
    *(f"ln1.{site}" for site in NORM_SITES),
    *(f"attn.{site}" for site in ATTENTION_SITES),
    "hook_attn_out",
    "hook_resid_mid",
    *(f"ln2.{site}" for site in NORM_SITES),
    "mlp.hook_pre",
    "mlp.hook_post",
    "hook_mlp_out",
    "hook_resid_post",
)
MLP_SITES = frozenset(site for site in BLOCK_SITES if site.startswith(("ln2.", "mlp.")))


def site_names(model: ModelConfig | int) -> list[str]:
    """Every site that can be read or replaced, in the order in which the forward pass reaches them.

    Without norms there is no `hook_scale` (and `hook_normalized` is the residual stream itself); without MLPs there is
    nothing of them but `hook_mlp_out`, which is 0; where positions are rotary there is no `hook_pos_embed`.

    Args:
        model: the architecture, or a number of layers of the default one.

    >>> site_names(1)[:3]
    ['hook_embed', 'hook_pos_embed', 'blocks.0.hook_resid_pre']
    """
    if isinstance(model, int):
        model = ModelConfig(n_layers=model, n_heads=1, d_model=1, n_dims=1, n_ctx=2)
    absent = MLP_SITES if model.mlp_width == 0 else frozenset[str]()
    blocks = [f"blocks.{layer}.{site}" for layer in range(model.n_layers) for site in BLOCK_SITES if site not in absent]
    embed = ["hook_embed"] if model.positions == "rotary" else ["hook_embed", "hook_pos_embed"]
    every = [*embed, *blocks, *(f"ln_final.{site}" for site in NORM_SITES)]
    return [site for site in every if model.norm != "none" or not site.endswith("hook_scale")]


class Sites:
    """The edits of one forward pass, seen from one part of the model."""

    def __init__(self, edits: Edits, prefix: str = "") -> None:
        self.edits = edits
        self.prefix = prefix

    def __call__(self, site: str, activation: Tensor) -> Tensor:
        """The activation, or what the edit at this site makes of it."""
        edit = self.edits.get(self.prefix + site)
        return activation if edit is None else edit(activation)

    def wanted(self, *sites: str) -> bool:
        return any(self.prefix + site in self.edits for site in sites)

    def under(self, prefix: str) -> "Sites":
        return Sites(self.edits, self.prefix + prefix) if self.edits else self


UNTOUCHED = Sites({})

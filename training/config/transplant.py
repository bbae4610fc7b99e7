"""The settings of a run that starts from the weights of another run."""

from dataclasses import dataclass

from training.common.errors import UserError, one_of
from training.config.head_names import parse_heads, part_names
from training.config.model_config import ModelConfig


@dataclass(frozen=True)
class InitConfig:
    """First weights that are copied from another run; all others are drawn by the run's own `seeds.init`.

    Copied are the heads `keep_heads` and the parts `only` or, if neither is given, everything; without the heads
    `reset_heads`. A head is its W_Q, W_K, W_V, W_O, b_Q, b_K and b_V.

    Attributes:
        source: the other run: DIR, DIR@STEP or zoo:NAME; empty copies nothing.
        keep_heads: heads (LAYER.HEAD) that are copied.
        reset_heads: heads that are drawn anew.
        only: parts that are copied, as the names of their parameters begin: embed, pos_embed, unembed, ln_final,
            blocks.L, or blocks.L.ln1, .attn, .ln2 or .mlp.
        sha256: hash of the source's weights; entered when the run begins, and required of the source if it is given.
    """

    source: str = ""
    keep_heads: tuple[str, ...] = ()
    reset_heads: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    sha256: str = ""

    def check(self, model: ModelConfig) -> None:
        """Refuse what would do nothing.

        Raises:
            UserError: a head or part that the model does not have, a head to reset that is not copied, or a choice
                without a source.
        """
        for name in ("keep_heads", "reset_heads", "only", "sha256"):
            if getattr(self, name) and not self.source:
                raise UserError(f"init.{name} is given without init.source (--init-from), from which to copy")
        self.heads_kept(model)
        for part in self.only:
            if part not in part_names(model):
                raise one_of("init.only (a part of this model)", part, part_names(model))
        for layer, head in self.heads_reset(model):
            if not self.takes(f"blocks.{layer}.attn.W_Q") and (layer, head) not in self.heads_kept(model):
                raise UserError(f"init.reset_heads: {layer}.{head} is drawn anew already, as it is not copied")

    def heads_kept(self, model: ModelConfig) -> list[tuple[int, int]]:
        return parse_heads("init.keep_heads", self.keep_heads, model)

    def heads_reset(self, model: ModelConfig) -> list[tuple[int, int]]:
        return parse_heads("init.reset_heads", self.reset_heads, model)

    def takes(self, parameter: str) -> bool:
        """Whether the whole of a parameter is copied, before heads are drawn anew.

        >>> InitConfig("zoo:mixed-0", only=("blocks.1",)).takes("blocks.1.mlp.W_in"), InitConfig("x").takes("embed.W_E")
        (True, True)
        """
        if not (self.keep_heads or self.only):
            return True
        return any(parameter.startswith(f"{part}.") for part in self.only)

"""Opens models: locates attention heads by what they attend to, and tests what they cause.

Open: `load` a run or a shipped checkpoint; `hooked` gives it as a model of TransformerLens.
Look: `score` heads, or see their `patterns` in a prompt.
Remove: `ablate` sets of heads (`parse_heads`), one after another (`cumulative`) or in `pairs`; `pooled` over seeds.
Patch: `patch` activations between `prompt_pairs`, or `path_effects`.
Attribute: `attribute` nodes, `attribute_edges`, and cut out `circuits`.
Read: `lens`, `probe`, `decode_heads`, and `swap` what a probe reads.

Every result has tables (pandas), `plot()`, `show()` for a terminal, and shows itself in a notebook.

>>> from interp import load, score
>>> axes = score(load("zoo:mixed-0"), ["linear"], n_prompts=16).plot()
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from interp.doctor.package_origin import DISTRIBUTION

if TYPE_CHECKING:
    from interp.ablation.ablate import ablate
    from interp.ablation.cumulative import cumulative
    from interp.ablation.pairs import pairs
    from interp.ablation.pooled import pooled
    from interp.attribution.attribute import attribute, attribute_edges
    from interp.attribution.circuits import circuits
    from interp.model.heads import Head, parse_heads
    from interp.model.hooked_transformer import hooked
    from interp.patching.maps import patch
    from interp.patching.paths import path_effects
    from interp.patching.prompt_pairs import prompt_pairs
    from interp.readouts.head_decoding import decode_heads
    from interp.readouts.lens import lens
    from interp.readouts.probes import probe
    from interp.readouts.subspace_patching import swap
    from interp.scores.patterns import patterns
    from interp.scores.score import score
    from training.checkpoints.checkpoint import load

# Resolved on first use, so that `import interp` and `interp --help` import no torch.
_HOMES = {
    "Head": "interp.model.heads",
    "ablate": "interp.ablation.ablate",
    "attribute": "interp.attribution.attribute",
    "attribute_edges": "interp.attribution.attribute",
    "circuits": "interp.attribution.circuits",
    "cumulative": "interp.ablation.cumulative",
    "decode_heads": "interp.readouts.head_decoding",
    "hooked": "interp.model.hooked_transformer",
    "lens": "interp.readouts.lens",
    "load": "training.checkpoints.checkpoint",
    "pairs": "interp.ablation.pairs",
    "parse_heads": "interp.model.heads",
    "patch": "interp.patching.maps",
    "path_effects": "interp.patching.paths",
    "patterns": "interp.scores.patterns",
    "pooled": "interp.ablation.pooled",
    "probe": "interp.readouts.probes",
    "prompt_pairs": "interp.patching.prompt_pairs",
    "score": "interp.scores.score",
    "swap": "interp.readouts.subspace_patching",
}

__all__ = [
    "Head",
    "ablate",
    "attribute",
    "attribute_edges",
    "circuits",
    "cumulative",
    "decode_heads",
    "hooked",
    "lens",
    "load",
    "pairs",
    "parse_heads",
    "patch",
    "path_effects",
    "patterns",
    "pooled",
    "probe",
    "prompt_pairs",
    "score",
    "swap",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version(DISTRIBUTION)
    if name not in _HOMES:
        raise AttributeError(f"module 'interp' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

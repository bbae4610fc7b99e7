"""Locates attention heads of a trained model by what they attend to, and tests what they cause.

Load: `load` reads a run or a shipped checkpoint, `import_checkpoint` a model of another program (`export_checkpoint`
writes one); `hooked` converts it to TransformerLens; `OwnPrompts` (`read_prompts` from a file) are prompts of yours.
Evaluate: `error_curves` beside baseline predictors.
Locate: `score` heads, or show their attention `patterns` token by token.
Ablate: `ablate` sets of heads (`parse_heads`), in sequence (`cumulative`) or in `pairs`; `pooled` over seeds.
Patch: `patch` activations between `prompt_pairs`, or measure `path_effects`; `composition` says which paths the weights
allow.
Attribute: `attribute` nodes, `attribute_edges`, and find `circuits`.
Any model: `attach` a torch module to score, ablate and patch it; `judge` removals by losses alone.
Read out: `lens`, `probe`, `decode_heads`, and `swap` the subspace that a probe reads; `head_weights` has OV and QK
circuits.
Extend: `check_class` compares what a function class of yours declares with many draws.

Every result has tables (pandas), `plot()`, `show()` for a terminal, and is displayed in notebooks.

>>> from interp import load, score
>>> axes = score(load("zoo:mixed-0"), ["linear"], n_prompts=16).plot()
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from interp.doctor.package_origin import DISTRIBUTION, misplaced

if TYPE_CHECKING:
    from interp.ablation.ablate import ablate as ablate
    from interp.ablation.cumulative import cumulative as cumulative
    from interp.ablation.pairs import pairs as pairs
    from interp.ablation.pooled import pooled as pooled
    from interp.any_model.attach import attach as attach
    from interp.any_model.judge import judge as judge
    from interp.attribution.attribute import attribute as attribute
    from interp.attribution.attribute import attribute_edges as attribute_edges
    from interp.attribution.circuits import circuits as circuits
    from interp.doctor.class_checks import check_class as check_class
    from interp.model.heads import Head as Head
    from interp.model.heads import parse_heads as parse_heads
    from interp.model.hooked_transformer import hooked as hooked
    from interp.patching.composition import composition as composition
    from interp.patching.maps import patch as patch
    from interp.patching.paths import path_effects as path_effects
    from interp.patching.prompt_pairs import prompt_pairs as prompt_pairs
    from interp.readouts.head_decoding import decode_heads as decode_heads
    from interp.readouts.head_weights import head_weights as head_weights
    from interp.readouts.lens import lens as lens
    from interp.readouts.probes import probe as probe
    from interp.readouts.subspace_patching import swap as swap
    from interp.scores.patterns import patterns as patterns
    from interp.scores.score import score as score
    from training.checkpoints.checkpoint import Checkpoint as Checkpoint
    from training.checkpoints.checkpoint import load as load
    from training.common.errors import UserError as UserError
    from training.evaluation.evaluate import error_curves as error_curves
    from training.evaluation.own_files import read_prompts as read_prompts
    from training.evaluation.own_prompts import OwnPrompts as OwnPrompts
    from training.importing.export import export_checkpoint as export_checkpoint
    from training.importing.run import import_checkpoint as import_checkpoint
    from training.tasks.prompts import to_prompt as to_prompt

_HOMES = {
    "Checkpoint": "training.checkpoints.checkpoint",
    "UserError": "training.common.errors",
    "Head": "interp.model.heads",
    "OwnPrompts": "training.evaluation.own_prompts",
    "ablate": "interp.ablation.ablate",
    "attach": "interp.any_model.attach",
    "attribute": "interp.attribution.attribute",
    "attribute_edges": "interp.attribution.attribute",
    "check_class": "interp.doctor.class_checks",
    "circuits": "interp.attribution.circuits",
    "composition": "interp.patching.composition",
    "cumulative": "interp.ablation.cumulative",
    "decode_heads": "interp.readouts.head_decoding",
    "error_curves": "training.evaluation.evaluate",
    "export_checkpoint": "training.importing.export",
    "head_weights": "interp.readouts.head_weights",
    "hooked": "interp.model.hooked_transformer",
    "import_checkpoint": "training.importing.run",
    "judge": "interp.any_model.judge",
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
    "read_prompts": "training.evaluation.own_files",
    "score": "interp.scores.score",
    "swap": "interp.readouts.subspace_patching",
    "to_prompt": "training.tasks.prompts",
}
"""The module of every public name, imported at its first use: `import interp` and `interp --help` import no torch."""

if not TYPE_CHECKING:
    __all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version(DISTRIBUTION)
    if name not in _HOMES:
        raise AttributeError(f"module 'interp' has no attribute '{name}'")
    if problem := misplaced("training"):  # not when `interp` is imported: the command line reports it in its own way
        raise ImportError(problem)
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)

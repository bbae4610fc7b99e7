"""Scores that are any function of a model and prompts, beside those of attention (`interp.scores.kinds`)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float

from interp.names import SCORE_DEFINITIONS
from training.checkpoints.checkpoint import Checkpoint
from training.common.docstrings import docstring
from training.evaluation.evaluate import evaluation_prompts
from training.tasks.prompts import Prompts


class ScoredPrompts(NamedTuple):
    """A model, and the prompts of one class on which its heads are scored.

    Attributes:
        checkpoint: the model.
        function_class: of the prompts.
        n_prompts: how many.
        seed: determines them together with `stream`.
        stream: `test` or `selection`.
    """

    checkpoint: Checkpoint
    function_class: str
    n_prompts: int
    seed: int
    stream: str

    @property
    def prompts(self) -> Prompts:
        """The prompts, the same ones on which attention is scored."""
        return evaluation_prompts(
            self.checkpoint.config, self.function_class, n_prompts=self.n_prompts, seed=self.seed, stream=self.stream
        )


MeasureHeads = Callable[[ScoredPrompts], Float[np.ndarray, "batch layer head"]]
"""The value of every head on every prompt; the score is its mean over prompts."""


@dataclass(frozen=True)
class MeasuredScore:
    """A score that is measured by a function of your own.

    Attributes:
        name: on the command line and in tables.
        measure: gives the values; the first line of its docstring explains the score.
        best: the value of a head that does nothing else.
    """

    name: str
    measure: MeasureHeads
    best: float = 1.0
    n_pairs: ClassVar[None] = None

    @property
    def definition(self) -> str:
        return SCORE_DEFINITIONS.get(self.name, docstring(self.measure).partition("\n")[0])


MEASURED: Mapping[str, str] = {"function_vector": "interp.patching.function_vectors:measure_function_vectors"}
"""By name, where a score is measured: patching builds on attention scores, and is imported when it is needed."""


def measured_score(name: str) -> MeasuredScore:
    """The score of a name in `MEASURED`."""
    module, _, function = MEASURED[name].partition(":")
    return MeasuredScore(name, getattr(import_module(module), function))

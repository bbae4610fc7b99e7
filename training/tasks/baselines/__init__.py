"""Reference predictors, to which errors are compared. Each sees what the model sees, per prompt.

Those that need no parameters have a name here; a function class brings its own (`FunctionClass.baseline`).
"""

from collections.abc import Callable
from functools import partial

from jaxtyping import Float
from torch import Tensor

from training.common.errors import one_of
from training.tasks.baselines.lasso import best_lasso
from training.tasks.baselines.plain import (
    averaging,
    best_ridge,
    gradient_descent,
    greedy_tree,
    least_squares,
    lookup,
    nearest_neighbours,
)
from training.tasks.prompts import Prompts

Predictor = Callable[[Prompts], Float[Tensor, "batch point"]]

BASELINES: dict[str, Predictor] = {
    "least_squares": least_squares,
    "ridge": best_ridge,
    "lasso": best_lasso,
    "averaging": averaging,
    "gradient_descent_1": partial(gradient_descent, steps=1),
    "gradient_descent_10": partial(gradient_descent, steps=10),
    "nearest_neighbours": nearest_neighbours,
    "tree": greedy_tree,
    "lookup": lookup,
}


def baseline(name: str) -> Predictor:
    """The baseline with this name.

    Raises:
        UserError: there is none.
    """
    if name not in BASELINES:
        raise one_of("baseline", name, BASELINES)
    return BASELINES[name]

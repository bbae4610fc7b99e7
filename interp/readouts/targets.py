"""What a probe looks for in the residual stream, and for which function classes it exists."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.readouts.stream import Token
from training.common.errors import UserError, one_of
from training.sampling import Sampled
from training.tasks.function_classes import FunctionClass, function_class
from training.tasks.function_classes.base import SingleIndex
from training.tasks.function_classes.quadratic import CoordinatewiseQuadratic


class Target(NamedTuple):
    """A vector that belongs to every prompt and token.

    Attributes:
        definition: for people.
        of: its values after `examples` pairs, at the x or y token that has seen exactly so many.
        exists: for a function class.
        corruption: what the prompts of the causal test differ in (`interp.patching.prompt_pairs.CORRUPTIONS`).
        tokens: where it is looked for.
    """

    definition: str
    of: Callable[[Sampled, Token, int], Float[Tensor, "prompt _"]]
    exists: Callable[[FunctionClass], bool]
    corruption: str = "function"
    tokens: tuple[Token, ...] = ("x", "y")


def w(sampled: Sampled, token: Token, examples: int) -> Float[Tensor, "prompt dim"]:
    del token, examples
    return sampled.weights.double()


def w_ls(sampled: Sampled, token: Token, examples: int) -> Float[Tensor, "prompt dim"]:
    del token
    xs, ys = sampled.prompts.xs.double(), sampled.prompts.ys.double()
    return torch.linalg.lstsq(xs[:, :examples], ys[:, :examples, None], driver="gelsd").solution[:, :, 0]


def xty(sampled: Sampled, token: Token, examples: int) -> Float[Tensor, "prompt dim"]:
    del token
    xs, ys = sampled.prompts.xs.double(), sampled.prompts.ys.double()
    return (xs[:, :examples] * ys[:, :examples, None]).sum(1)


def t(sampled: Sampled, token: Token, examples: int) -> Float[Tensor, "prompt 1"]:
    return (x(sampled, token, examples) * sampled.weights.double()).sum(-1, keepdim=True)


def x(sampled: Sampled, token: Token, examples: int) -> Float[Tensor, "prompt dim"]:
    return sampled.prompts.xs[:, examples - (token == "y")].double()


def no_values(sampled: Sampled, token: Token, examples: int) -> Float[Tensor, "prompt 0"]:
    del token, examples
    return sampled.prompts.ys[:, :0].double()


def is_single_index(drawn: FunctionClass) -> bool:
    return isinstance(drawn, SingleIndex)


def has_vector(drawn: FunctionClass) -> bool:
    return isinstance(drawn, SingleIndex | CoordinatewiseQuadratic)


def always(drawn: FunctionClass) -> bool:
    del drawn
    return True


CLASS = "class"
TARGETS: dict[str, Target] = {
    "w": Target("the function's weights", w, has_vector),
    "w_ls": Target("the least-squares solution of the pairs so far (of minimum norm)", w_ls, always),
    "xty": Target("X'y, the sum of x_i y_i over the pairs so far", xty, always),
    "t": Target("t = w·x of the token's own pair: at an x token the query's", t, is_single_index),
    CLASS: Target("the function class, among those of the run", no_values, always, "class"),
    "x": Target("the x of the token's own pair, at y tokens", x, always, "inputs", ("y",)),
}


def check_targets(
    names: Sequence[str] | None, classes: Sequence[str], run_classes: Sequence[str], tokens: Sequence[Token]
) -> dict[str, list[str]]:
    """By function class the targets to probe for; `class` is kept apart, for all classes of the run together.

    Args:
        names: as given; None takes every one but `x` that exists.
        classes: function classes.
        run_classes: those among which the class is decoded.
        tokens: token types.

    Raises:
        UserError: no such target, or it does not exist for a class, at these tokens, or in this run.

    >>> check_targets(None, ["linear", "general_quadratic"], ["linear"], ["x"])
    {'linear': ['w', 'w_ls', 'xty', 't'], 'general_quadratic': ['w_ls', 'xty']}
    """
    found: dict[str, list[str]] = {}
    for name in names or ():
        if name not in TARGETS:
            raise one_of("--target", name, TARGETS)
        if not set(tokens) & set(TARGETS[name].tokens):
            raise UserError(f"--target {name} is looked for at {TARGETS[name].tokens[0]} tokens (--token given: x)")
    for of_class in classes:
        drawn = function_class(of_class)
        existing = [key for key, target in TARGETS.items() if key != CLASS and target.exists(drawn)]
        for name in names or ():
            if name != CLASS and name not in existing:
                raise UserError(f"--target {name}: {of_class} has none (valid for it: {', '.join(existing)}, {CLASS})")
        wanted = [key for key in existing if key != "x"] if names is None else [key for key in names if key != CLASS]
        if wanted:
            found[of_class] = wanted
    if CLASS in (names or ()) or (names is None and len(run_classes) > 1):
        if len(run_classes) < 2:
            raise UserError(
                f"--target {CLASS} needs a run of two or more function classes ({run_classes[0]} alone here)"
            )
        found[",".join(run_classes)] = [CLASS]
    return found


def values(name: str, sampled: Sampled, token: Token, examples: int) -> Float[np.ndarray, "prompt target"]:
    """A target's values for every prompt."""
    return TARGETS[name].of(sampled, token, examples).numpy()


def one_hot(n_classes: int, n_prompts: int) -> Float[np.ndarray, "row target"]:
    """Labels of prompts of every class, interleaved (prompt 0 of each class, prompt 1 of each, …).

    >>> one_hot(2, 2).tolist()
    [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]
    """
    return np.tile(np.eye(n_classes), (n_prompts, 1))

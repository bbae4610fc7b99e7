"""Targets of probes, and the function classes for which they exist."""

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
    """A vector that is defined for every prompt and token.

    Attributes:
        definition: in words.
        values: after `examples` pairs, at the x or y token that has seen exactly so many.
        classes: the types of function class for which it exists.
        corruption: what differs between the prompts of a swap (`interp.patching.prompt_pairs.CORRUPTIONS`).
        tokens: the token types at which it is decoded.
    """

    definition: str
    values: Callable[[Sampled, Token, int], Float[Tensor, "prompt _"]]
    classes: tuple[type[FunctionClass], ...] = (FunctionClass,)
    corruption: str = "function"
    tokens: tuple[Token, ...] = ("x", "y")

    def exists(self, drawn: FunctionClass) -> bool:
        """Whether functions of this class have the target."""
        return isinstance(drawn, self.classes)


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


CLASS = "class"
TARGETS: dict[str, Target] = {
    "w": Target("the function's weights", w, (SingleIndex, CoordinatewiseQuadratic)),
    "w_ls": Target("the least-squares solution of the pairs so far (of minimum norm)", w_ls),
    "xty": Target("X'y, the sum of x_i y_i over the pairs so far", xty),
    "t": Target("t = w·x of the token's own pair: at an x token the query's", t, (SingleIndex,)),
    CLASS: Target("the function class, among those of the run", no_values, corruption="class"),
    "x": Target("the x of the token's own pair, at y tokens", x, corruption="inputs", tokens=("y",)),
}


def check_targets(
    names: Sequence[str] | None, classes: Sequence[str], run_classes: Sequence[str], tokens: Sequence[Token]
) -> dict[str, list[str]]:
    """The targets to decode by function class; `class` is decoded among all classes of the run together.

    Args:
        names: of targets; None takes all that exist except `x`.
        classes: function classes.
        run_classes: those of the run, among which the class is decoded.
        tokens: token types.

    Raises:
        UserError: no such target, or it does not exist for a class, at these tokens, or in this run.

    >>> check_targets(None, ["linear", "general_quadratic"], ["linear"], ["x"])
    {'linear': ['w', 'w_ls', 'xty', 't'], 'general_quadratic': ['w_ls', 'xty']}
    """
    for name in names or ():
        if name not in TARGETS:
            raise one_of("--target", name, TARGETS)
        if not set(tokens) & set(TARGETS[name].tokens):
            raise UserError(f"--target {name} is decoded at {TARGETS[name].tokens[0]} tokens only (--token given: x)")
    by_class = {name: targets for name in classes if (targets := targets_of_class(names, name))}
    if CLASS in (names or ()) or (names is None and len(run_classes) > 1):
        if len(run_classes) < 2:
            raise UserError(
                f"--target {CLASS} needs a run of two or more function classes ({run_classes[0]} alone here)"
            )
        by_class[",".join(run_classes)] = [CLASS]
    return by_class


def targets_of_class(names: Sequence[str] | None, class_name: str) -> list[str]:
    """The targets among these, other than `class`, that are decoded on prompts of one function class.

    Raises:
        UserError: one does not exist for it.
    """
    drawn = function_class(class_name)
    existing = [name for name, target in TARGETS.items() if name != CLASS and target.exists(drawn)]
    if names is None:
        return [name for name in existing if name != "x"]
    targets = [name for name in names if name != CLASS]
    for name in targets:
        if name not in existing:
            raise UserError(f"--target {name}: {class_name} has none (valid for it: {', '.join(existing)}, {CLASS})")
    return targets


def target_values(name: str, sampled: Sampled, token: Token, examples: int) -> Float[np.ndarray, "prompt target"]:
    """A target's values for every prompt."""
    return TARGETS[name].values(sampled, token, examples).numpy()


def one_hot(n_classes: int, n_prompts: int) -> Float[np.ndarray, "row target"]:
    """Class labels of interleaved prompts (prompt 0 of every class, prompt 1 of every class, …).

    >>> one_hot(2, 2).tolist()
    [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]
    """
    return np.tile(np.eye(n_classes), (n_prompts, 1))

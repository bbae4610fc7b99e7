"""Clean and corrupt prompts: the same question, other evidence before it.

A pair of prompts shares the query x_q, at which the prediction is read, and differs in the examples before it. The
answer is the clean prompt's. A corruption is one small function from the clean prompts and what is drawn beside them to
the corrupt ones; what it changes decides what patching can find (Zhang & Nanda 2023, arXiv 2309.16042).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from interp.ablation.reference_activations import partner_prompts
from training.common.digits import whole
from training.common.errors import UserError, one_of
from training.common.library_defaults import library_defaults
from training.config.config import RunConfig, stream_seed
from training.evaluation.evaluate import evaluation_prompts
from training.tasks.function_classes import function_class
from training.tasks.function_classes.base import FunctionOfX
from training.tasks.prompts import Prompts

KEEP_QUERY = "permuted, pair:J, noise"
"""Corruptions that leave the query as it is whatever the class."""


class PromptPairs(NamedTuple):
    """Clean and corrupt prompts that end in the same query.

    Attributes:
        clean: their last y is the answer.
        corrupt: the same query after other examples; their last y is read by no prediction.
    """

    clean: Prompts
    corrupt: Prompts

    @property
    def n_examples(self) -> int:
        return self.clean.xs.shape[1] - 1

    @property
    def answer(self) -> Float[Tensor, " batch"]:
        return self.clean.ys[:, -1]

    def rows(self, prompts: range) -> "PromptPairs":
        return PromptPairs(self.clean.rows(prompts), self.corrupt.rows(prompts))

    def double(self) -> "PromptPairs":
        return PromptPairs(self.clean.double(), self.corrupt.double())

    def to(self, device: torch.device | str) -> "PromptPairs":
        return PromptPairs(self.clean.to(device), self.corrupt.to(device))


class Draw(NamedTuple):
    """What a corruption is made from.

    Attributes:
        config: the run.
        name: function class.
        clean: the clean prompts, of examples and a query.
        seed: of the clean prompts.
        generator: for what the corruption draws itself.
        argument: what stands behind its name on the command line; None if nothing does.
    """

    config: RunConfig
    name: str
    clean: Prompts
    seed: int
    generator: torch.Generator
    argument: int | None

    @property
    def n_examples(self) -> int:
        return self.clean.xs.shape[1] - 1

    def partner(self, kind: str) -> Prompts:
        """Prompts of another kind for each of the clean ones (`interp.ablation.modes.Partner`)."""
        prompts = partner_prompts(self.config, self.name, kind, len(self.clean.xs), self.seed)  # type: ignore[arg-type]
        return prompts.first(self.n_examples + 1)


def other_function(drawn: Draw) -> Prompts:
    return drawn.partner("function")


def other_class(drawn: Draw) -> Prompts:
    if set(drawn.config.evaluated_classes) <= {drawn.name}:
        raise UserError(f"--corrupt class needs a second function class (this run has only {drawn.name})")
    return drawn.partner("class")


def other_inputs(drawn: Draw) -> Prompts:
    return with_query("inputs", drawn.partner("inputs"), drawn)


def other_prompt(drawn: Draw) -> Prompts:
    return with_query("prompt", drawn.partner("other"), drawn)


def permuted(drawn: Draw) -> Prompts:
    """Every y beside another pair's x: a random cycle through all examples, so that no pair stays together."""
    ys, k = drawn.clean.ys.clone(), drawn.n_examples
    order = torch.rand(len(ys), k, generator=drawn.generator).argsort(1)
    ys[:, :k] = ys[:, :k].scatter(1, order, ys.gather(1, order.roll(1, dims=1)))
    return drawn.clean._replace(ys=ys)


def one_pair(drawn: Draw) -> Prompts:
    """One example from another prompt: other x, other function."""
    k = drawn.n_examples
    place = k - 1 if drawn.argument is None else drawn.argument
    if place >= k:
        raise UserError(f"--corrupt pair:{place}: these prompts have examples 0-{k - 1}")
    other = drawn.partner("other")
    xs, ys = drawn.clean.xs.clone(), drawn.clean.ys.clone()
    xs[:, place], ys[:, place] = other.xs[:, place], other.ys[:, place]
    return drawn.clean._replace(xs=xs, ys=ys)


def noise(drawn: Draw) -> Prompts:
    """Every y of an example drawn from a normal distribution with the mean and variance of y at its place."""
    ys, k = drawn.clean.ys.clone(), drawn.n_examples
    known = ys[:, :k]
    ys[:, :k] = known.mean(0) + known.std(0) * torch.randn(known.shape, generator=drawn.generator)
    return drawn.clean._replace(ys=ys)


class Corruption(NamedTuple):
    """A way to make corrupt prompts.

    Attributes:
        definition: for people.
        make: the corrupt prompts.
        takes: whether the name takes an argument, as in `pair:3`.
    """

    definition: str
    make: Callable[[Draw], Prompts]
    takes: bool = False


CORRUPTIONS: Mapping[str, Corruption] = {
    "function": Corruption("the same inputs under another function of the class", other_function),
    "inputs": Corruption("other inputs to the same function", other_inputs),
    "prompt": Corruption("another prompt's examples: other inputs, other function", other_prompt),
    "class": Corruption("the same inputs under the run's next function class", other_class),
    "permuted": Corruption("every y beside another example's x", permuted),
    "pair": Corruption("one example (pair:J, counted from 0; default the last) from another prompt", one_pair, True),
    "noise": Corruption("every y of an example replaced by normal noise of its mean and variance", noise),
}


def parse_corruption(text: str) -> tuple[Corruption, int | None]:
    """The corruption behind `--corrupt NAME[:J]` and its argument.

    Raises:
        UserError: there is none, or the argument is not one.

    >>> parse_corruption("pair:3")[1], parse_corruption("noise")[1]
    (3, None)
    """
    name, colon, argument = text.partition(":")
    if name not in CORRUPTIONS:
        raise one_of("--corrupt", text, CORRUPTIONS)
    if not colon:
        return CORRUPTIONS[name], None
    number = whole(argument)
    if not CORRUPTIONS[name].takes or number is None:
        raise UserError(f"--corrupt {text}: only pair:J takes an argument, the number of an example")
    return CORRUPTIONS[name], number


@library_defaults()
def prompt_pairs(
    config: RunConfig, name: str, corruption: str, *, n_prompts: int, seed: int, examples: int | None = None
) -> PromptPairs:
    """Clean prompts of the stream `test` and their corrupt partners.

    Args:
        config: the run.
        name: function class.
        corruption: a name in `CORRUPTIONS`, with its argument.
        n_prompts: how many.
        seed: determines everything.
        examples: pairs before the query; None takes as many as the run's prompts allow.

    Raises:
        UserError: no such corruption or number of examples, or the class does not allow the corruption.
    """
    made, argument = parse_corruption(corruption)
    most = config.data.n_points - 1
    k = most if examples is None else examples
    if not 1 <= k <= most:
        raise UserError(f"--examples {k}: this run's prompts have 1 to {most} examples before a query")
    if made.make is permuted and k < 2:
        raise UserError("--corrupt permuted needs at least two examples")
    clean = evaluation_prompts(config, name, n_prompts=n_prompts, seed=seed).first(k + 1)
    generator = torch.Generator().manual_seed(stream_seed("corruption", corruption, seed, name))
    corrupt = made.make(Draw(config, name, clean, seed, generator, argument))
    if not torch.equal(clean.xs[:, -1], corrupt.xs[:, -1]):
        raise UserError(
            f"--corrupt {corruption}: on {name} the query depends on what is corrupted (valid: {KEEP_QUERY})"
        )
    return PromptPairs(clean, corrupt)


def with_query(name: str, examples: Prompts, drawn: Draw) -> Prompts:
    """These examples before the clean prompts' query and answer.

    Raises:
        UserError: the query of this class belongs to its examples.
    """
    if not isinstance(function_class(drawn.name), FunctionOfX):
        raise UserError(
            f"--corrupt {name}: {drawn.name} is no function of x that could be asked after other examples "
            f"(valid: {KEEP_QUERY})"
        )
    xs, ys = examples.xs.clone(), examples.ys.clone()
    xs[:, -1], ys[:, -1] = drawn.clean.xs[:, -1], drawn.clean.ys[:, -1]
    return examples._replace(xs=xs, ys=ys)

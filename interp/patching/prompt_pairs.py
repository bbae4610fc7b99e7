"""Clean and corrupt prompts: the same query after different examples.

A clean and a corrupt prompt share the query x_q, at which the prediction is read, and differ in the examples before it.
The answer is the clean prompt's y. A corruption is a function that makes the corrupt prompts from the clean ones; what
it changes decides what patching can find (Zhang & Nanda 2023, arXiv 2309.16042).
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
from training.tasks.function_classes import function_class as definition_of
from training.tasks.function_classes.base import FunctionOfX
from training.tasks.prompts import Prompts

KEEP_QUERY = "permuted, pair:J, noise"
"""Corruptions that keep the query for every function class."""


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


class CorruptionRequest(NamedTuple):
    """What a corruption makes corrupt prompts from.

    Attributes:
        config: of the run.
        function_class: of the prompts.
        clean: the clean prompts, examples and a query.
        seed: of the clean prompts.
        generator: for random numbers of the corruption itself.
        argument: the number after the colon of `pair:J`; None without one.
    """

    config: RunConfig
    function_class: str
    clean: Prompts
    seed: int
    generator: torch.Generator
    argument: int | None

    @property
    def n_examples(self) -> int:
        return self.clean.xs.shape[1] - 1

    def partner(self, kind: str) -> Prompts:
        """A partner of this kind for each of the clean prompts (`interp.ablation.modes.Partner`)."""
        config, n_prompts = self.config, len(self.clean.xs)
        prompts = partner_prompts(config, self.function_class, kind, n_prompts, self.seed)  # type: ignore[arg-type]
        return prompts.first(self.n_examples + 1)


def replace_function(request: CorruptionRequest) -> Prompts:
    return request.partner("function")


def replace_class(request: CorruptionRequest) -> Prompts:
    if set(request.config.evaluated_classes) <= {request.function_class}:
        raise UserError(f"--corrupt class needs a second function class (this run has only {request.function_class})")
    return request.partner("class")


def replace_inputs(request: CorruptionRequest) -> Prompts:
    return with_clean_query("inputs", request.partner("inputs"), request)


def replace_examples(request: CorruptionRequest) -> Prompts:
    return with_clean_query("prompt", request.partner("other"), request)


def permute_ys(request: CorruptionRequest) -> Prompts:
    """Every y moves to another example's x, along a random cycle through all examples: no pair stays together."""
    ys, k = request.clean.ys.clone(), request.n_examples
    order = torch.rand(len(ys), k, generator=request.generator).argsort(1)
    ys[:, :k] = ys[:, :k].scatter(1, order, ys.gather(1, order.roll(1, dims=1)))
    return request.clean._replace(ys=ys)


def replace_pair(request: CorruptionRequest) -> Prompts:
    """One example from another prompt: another x, another function."""
    k = request.n_examples
    index = k - 1 if request.argument is None else request.argument
    if index >= k:
        raise UserError(f"--corrupt pair:{index}: these prompts have examples 0-{k - 1}")
    partner = request.partner("other")
    xs, ys = request.clean.xs.clone(), request.clean.ys.clone()
    xs[:, index], ys[:, index] = partner.xs[:, index], partner.ys[:, index]
    return request.clean._replace(xs=xs, ys=ys)


def replace_ys_by_noise(request: CorruptionRequest) -> Prompts:
    """Every example's y drawn from a normal distribution with the mean and variance of the y at its position."""
    ys, k = request.clean.ys.clone(), request.n_examples
    clean_ys = ys[:, :k]
    ys[:, :k] = clean_ys.mean(0) + clean_ys.std(0) * torch.randn(clean_ys.shape, generator=request.generator)
    return request.clean._replace(ys=ys)


class Corruption(NamedTuple):
    """A way to make corrupt prompts.

    Attributes:
        definition: in words.
        make: gives the corrupt prompts.
        takes_argument: whether the name may have an argument, as in `pair:3`.
        keeps_x: whether both runs have the same inputs.
    """

    definition: str
    make: Callable[[CorruptionRequest], Prompts]
    takes_argument: bool = False
    keeps_x: bool = False


CORRUPTIONS: Mapping[str, Corruption] = {
    "function": Corruption("the same inputs under another function of the class", replace_function, keeps_x=True),
    "inputs": Corruption("other inputs to the same function", replace_inputs),
    "prompt": Corruption("another prompt's examples: other inputs, other function", replace_examples),
    "class": Corruption("the same inputs under the run's next function class", replace_class, keeps_x=True),
    "permuted": Corruption("every y moved to another example's x", permute_ys, keeps_x=True),
    "pair": Corruption("one example (pair:J, counted from 0; default: last) from another prompt", replace_pair, True),
    "noise": Corruption(
        "every example's y replaced by normal noise of its mean and variance", replace_ys_by_noise, keeps_x=True
    ),
}


def parse_corruption(text: str) -> tuple[Corruption, int | None]:
    """The corruption named by `--corrupt NAME[:J]`, and its argument.

    Raises:
        UserError: there is no such corruption, or it takes no such argument.

    >>> parse_corruption("pair:3")[1], parse_corruption("noise")[1]
    (3, None)
    """
    name, colon, argument = text.partition(":")
    if name not in CORRUPTIONS:
        raise one_of("--corrupt", text, CORRUPTIONS)
    if not colon:
        return CORRUPTIONS[name], None
    number = whole(argument)
    if not CORRUPTIONS[name].takes_argument or number is None:
        raise UserError(f"--corrupt {text}: only pair:J takes an argument, the number of an example")
    return CORRUPTIONS[name], number


@library_defaults()
def prompt_pairs(
    config: RunConfig, function_class: str, corruption: str, *, n_prompts: int, seed: int, examples: int | None = None
) -> PromptPairs:
    """Clean prompts of the stream `test`, and the corrupt prompt of each.

    Args:
        config: of the run.
        function_class: of all prompts.
        corruption: a name in `CORRUPTIONS`, with its argument.
        n_prompts: number of pairs of prompts.
        seed: determines all prompts.
        examples: (x, y) pairs before the query; None takes as many as the run's prompts allow.

    Raises:
        UserError: no such corruption or number of examples, or the class does not allow the corruption.
    """
    chosen, argument = parse_corruption(corruption)
    most = config.data.n_points - 1
    k = most if examples is None else examples
    if not 1 <= k <= most:
        raise UserError(f"--examples {k}: this run's prompts have 1 to {most} examples before a query")
    if chosen.make is permute_ys and k < 2:
        raise UserError("--corrupt permuted needs at least two examples")
    clean = evaluation_prompts(config, function_class, n_prompts=n_prompts, seed=seed).first(k + 1)
    generator = torch.Generator().manual_seed(stream_seed("corruption", corruption, seed, function_class))
    corrupt = chosen.make(CorruptionRequest(config, function_class, clean, seed, generator, argument))
    if not torch.equal(clean.xs[:, -1], corrupt.xs[:, -1]):
        raise UserError(f"--corrupt {corruption}: in {function_class} it changes the query too (valid: {KEEP_QUERY})")
    return PromptPairs(clean, corrupt)


def with_clean_query(corruption: str, examples: Prompts, request: CorruptionRequest) -> Prompts:
    """These examples before the clean prompts' query and answer.

    Raises:
        UserError: in this class the query's y depends on the examples.
    """
    if not isinstance(definition_of(request.function_class), FunctionOfX):
        raise UserError(
            f"--corrupt {corruption}: {request.function_class} is not a function of x alone, so its query cannot be "
            f"asked after other examples (valid: {KEEP_QUERY})"
        )
    xs, ys = examples.xs.clone(), examples.ys.clone()
    xs[:, -1], ys[:, -1] = request.clean.xs[:, -1], request.clean.ys[:, -1]
    return examples._replace(xs=xs, ys=ys)

"""A network and what it is judged on: examples, other examples for reference, and the loss of each example."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torch.utils._pytree import tree_flatten

from interp.ablation.reference_activations import Moments, moments_of, sum_over_prompts
from interp.ablation.runner import PASS
from interp.any_model.examples import Examples, count_examples, repeated, rows_of
from interp.any_model.judge import check_losses
from interp.any_model.network import Edits, Location, Network, Recorded
from interp.any_model.token_roles import Roles
from interp.scores.kinds import ScoreKind

Loss = Callable[[Any, Any], Any]
"""From the model's output and the examples that it was run on to one number per example."""
CHUNK = 128  # examples


class Sizes(NamedTuple):
    """How much is run at a time.

    Attributes:
        examples: in a chunk.
        copies: of a chunk in a pass.
    """

    examples: int
    copies: int


@dataclass(frozen=True, eq=False)
class Task:
    """What a model is judged on.

    Attributes:
        name: of the model.
        network: the model.
        examples: under test.
        reference: other examples: for means, for resampling, and by which heads are chosen.
        loss: of every example.
        no_context: the losses of a predictor that ignores the context, or a function as `loss` that gives them; None
            where it is not known.
        conditions: of every example under test; None is one for all.
        corrupt: examples that correspond to those under test one by one, for patching; None where there are none.
        roles: of tokens, of the examples under test and of the reference, for scores.
        kind: the score by which heads are chosen.
        qkv: names of the modules that give queries, keys and values, or all of them together.
        seed: of the split, of partners and of resampling.
        memory: bytes that activations may take.
    """

    name: str
    network: Network
    examples: Examples
    reference: Examples
    loss: Loss
    no_context: Any
    conditions: Sequence[str] | None
    corrupt: Examples | None
    roles: tuple[Roles, Roles]
    kind: str | ScoreKind
    qkv: str | Sequence[str] | None
    seed: int
    memory: int

    @property
    def n_examples(self) -> int:
        return count_examples(self.examples, self.network.example_axis)

    @property
    def n_reference(self) -> int:
        return count_examples(self.reference, self.network.example_axis)

    def rows(self, examples: Examples, rows: Sequence[int]) -> Any:
        return rows_of(examples, rows, self.network.example_axis)

    def losses(self, output: Any, examples: Examples, what: str) -> Float[np.ndarray, " example"]:
        """The loss of every example.

        Raises:
            UserError: they are not one finite number per example.
        """
        n_examples = count_examples(examples, self.network.example_axis)
        return check_losses(self.loss(output, examples), what, n_examples)

    def run(
        self,
        examples: Examples,
        edits: Edits | None = None,
        *,
        recorded: Recorded | None = None,
        first: int = 0,
        times: int = 1,
        what: str = "of the intact model",
    ) -> Float[np.ndarray, " example"]:
        """The losses in a pass over so many copies of these examples (`Network.run`)."""
        several = repeated(examples, times, self.network.example_axis)
        output = self.network.run(several, edits, recorded=recorded, first=first, times=times)
        return self.losses(output, several, what)

    def chunks(self, n_examples: int) -> Iterator[range]:
        """Parts of the examples."""
        size = self.sizes.examples
        for start in range(0, n_examples, size):
            yield range(start, min(start + size, n_examples))

    @property
    def sizes(self) -> Sizes:
        """(examples in a chunk, copies in a pass) that keep activations within the memory limit.

        A chunk keeps an output of every layer; a pass needs about twenty activations of the width of z, and its output.
        The widest activation of a pass stays below `PASS`, as in `interp.ablation.runner`.
        """
        network, (d_head, output_bytes) = self.network, self.probed
        width = 4 * network.n_pos * network.n_heads * d_head
        kept, needed = width * network.n_layers * 4, 20 * width + output_bytes
        rows = max(1, PASS // (4 * width))
        examples = max(1, min(CHUNK, rows, self.memory // (kept + needed), self.n_examples))
        copies = max(1, min(rows // examples, (self.memory - examples * kept) // (examples * needed)))
        return Sizes(examples, copies)

    @cached_property
    def probed(self) -> tuple[int, int]:
        """(d_head, bytes of the model's output for an example)."""
        location = Location("z", 0)
        output, seen = self.network.read(self.rows(self.examples, range(2)), [location])
        tensors = [leaf for leaf in tree_flatten(output)[0] if isinstance(leaf, Tensor)]
        n_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors) // 2
        return seen[location].shape[-1], n_bytes

    @cached_property
    def moments(self) -> Moments:
        """Mean and standard deviation of z over the reference examples, by layer."""
        parts = [
            sum_over_prompts(self.read_z(self.rows(self.reference, rows))) for rows in self.chunks(self.n_reference)
        ]
        return moments_of(parts)

    def read_z(self, examples: Examples) -> list[Tensor]:
        """z of every layer, [example pos head d_head]."""
        locations = [Location("z", layer) for layer in range(self.network.n_layers)]
        _, seen = self.network.read(examples, locations)
        return [seen[location] for location in locations]

    def partners(self) -> list[int]:
        """For every example under test one of the reference examples, drawn so that all are used equally often."""
        rng = np.random.default_rng(self.seed)
        n_rounds = -(-self.n_examples // self.n_reference)
        drawn = np.concatenate([rng.permutation(self.n_reference) for _ in range(n_rounds)])
        return drawn[: self.n_examples].tolist()

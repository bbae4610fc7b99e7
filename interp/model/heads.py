"""Heads by name: `4.1` is head 1 of layer 4, both counted from 0 (the paper counts from 1); `4.mlp` is its MLP."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from training.common.digits import whole
from training.common.errors import UserError
from training.config.config import ModelConfig

SYNTAX = "LAYER.HEAD such as 0.3, LAYER.mlp, a list 0.3,1.2, top:K, above:SCORE, layer:L, all, each, layers, mlps"
MLP, READ_IN = -1, -2


class Head(NamedTuple):
    """An attention head, or the MLP of its layer (number `MLP`), which can be removed in the same way.

    >>> str(Head(4, 1)), str(Head(4, MLP)), str(EMBED), Head(4, 1) < Head(5, 0)
    ('4.1', '4.mlp', 'embed', True)
    """

    layer: int
    number: int

    def __str__(self) -> str:
        if self.number == READ_IN:
            return "embed"
        return f"{self.layer}.{'mlp' if self.number == MLP else self.number}"


EMBED = Head(-1, READ_IN)
"""The read-in, where paths through the model start; it cannot be removed."""


Scores = Sequence[Sequence[float]] | np.ndarray
"""`[layer][head]`."""

HeadSet = tuple[Head, ...]
"""Heads in ascending order, each once."""


def all_heads(n_layers: int, n_heads: int) -> HeadSet:
    return tuple(Head(layer, number) for layer in range(n_layers) for number in range(n_heads))


def head_set(heads: Iterable[Head]) -> HeadSet:
    return tuple(sorted(set(heads)))


def head_grid(names: Sequence[str]) -> tuple[int, int] | None:
    """(layers, heads per layer) if these are the names of all single heads of a model; None otherwise.

    >>> head_grid(["0.0", "0.1", "1.0", "1.1"]), head_grid(["0.0", "1.1"]), head_grid(["0.0", "1.mlp"])
    ((2, 2), None, None)
    """
    n_layers = len({name.split(".")[0] for name in names})
    n_heads = len(names) // n_layers
    all_names = [f"{layer}.{head}" for layer in range(n_layers) for head in range(n_heads)]
    return (n_layers, n_heads) if list(names) == all_names else None


def show(heads: HeadSet) -> str:
    """A head set as it is written on the command line.

    >>> show((Head(0, 3), Head(1, 2)))
    '0.3,1.2'
    """
    return ",".join(str(head) for head in heads)


def parse_heads(text: str, n_layers: int, n_heads: int, scores: Callable[[], Scores] | None = None) -> list[HeadSet]:
    """The head sets that `--heads` names; `each`, `layers` and `mlps` give one set per head, layer or MLP.

    Args:
        text: see `SYNTAX`.
        n_layers: of the model.
        n_heads: per layer.
        scores: computes `[layer][head]`; called for `top:K` and `above:SCORE` only.

    Raises:
        UserError: malformed, or no such head.

    >>> [show(heads) for heads in parse_heads("1.2,0.3", 2, 4)]
    ['0.3,1.2']
    """
    everything = all_heads(n_layers, n_heads)
    kind, colon, argument = text.partition(":")
    families = {
        "all": [everything],
        "each": [(head,) for head in everything],
        "layers": [tuple(head for head in everything if head.layer == layer) for layer in range(n_layers)],
        "mlps": [(Head(layer, MLP),) for layer in range(n_layers)],
    }
    if text in families:
        return families[text]
    if kind == "layer" and colon:
        layer = parse_count(argument, text)
        check_head(Head(layer, 0), text, n_layers, n_heads)
        return [tuple(head for head in everything if head.layer == layer)]
    if kind == "top" and colon:
        return [top_heads(parse_count(argument, text), text, everything, scores)]
    if kind == "above" and colon:
        table = computed_scores(text, scores)
        heads_with_high_scores = heads_above(parse_threshold(argument, text), table)
        if not heads_with_high_scores:
            best = highest_head(table)
            highest = table[best.layer][best.number]
            raise UserError(f"--heads {text}: no head scores that high (the highest is {best} with {highest:.3f})")
        return [heads_with_high_scores]
    heads = [parse_head(name.strip(), text) for name in text.split(",")]
    for head in heads:
        check_head(head, text, n_layers, n_heads)
    if len(set(heads)) < len(heads):
        raise UserError(f"--heads {text}: a head is named twice")
    return [head_set(heads)]


def parse_head(name: str, text: str) -> Head:
    """A head as `0.3` or `L0H3`, or an MLP as `0.mlp`.

    >>> parse_head("L0H3", "L0H3")
    Head(layer=0, number=3)
    """
    layer_text, _, number_text = re.sub(r"^L(\d+)H(\d+)$", r"\1.\2", name).partition(".")
    layer, number = whole(layer_text), MLP if number_text == "mlp" else whole(number_text)
    if layer is None or number is None:
        raise UserError(f"--heads {text}: '{name}' is not a head (valid: {SYNTAX})")
    return Head(layer, number)


def check_head(head: Head, text: str, n_layers: int, n_heads: int) -> None:
    """
    Raises:
        UserError: the model has no such head.
    """
    if not 0 <= head.layer < n_layers or not MLP <= head.number < n_heads:
        raise UserError(
            f"--heads {text}: there is no head {head}; "
            f"this model has layers 0-{n_layers - 1} with heads 0-{n_heads - 1}"
        )


def refuse_absent_mlps(sets: Sequence[HeadSet], model: ModelConfig) -> None:
    """
    Raises:
        UserError: an MLP is named, and the model has none.
    """
    named = [head for heads in sets for head in heads if head.number == MLP]
    if named and not model.mlp_width:
        raise UserError(f"there is no component {named[0]}: this model has no MLPs (model.d_mlp=0)")


def top_heads(count: int, text: str, heads: HeadSet, scores: Callable[[], Scores] | None) -> HeadSet:
    if not 1 <= count <= len(heads):
        raise UserError(f"--heads {text}: this model has {len(heads)} heads, so K is 1 to {len(heads)}")
    table = computed_scores(text, scores)
    return head_set(sorted(heads, key=lambda head: (-table[head.layer][head.number], head))[:count])


def heads_above(minimum: float, scores: Scores) -> HeadSet:
    """The heads whose score exceeds `minimum`.

    >>> heads_above(0.5, [[0.1, 0.9], [0.6, 0.5]])
    (Head(layer=0, number=1), Head(layer=1, number=0))
    """
    return tuple(head for head in all_heads(len(scores), len(scores[0])) if scores[head.layer][head.number] > minimum)


def highest_head(scores: Scores) -> Head:
    """The head with the highest score."""
    heads = all_heads(len(scores), len(scores[0]))
    return max(heads, key=lambda head: scores[head.layer][head.number])


def computed_scores(text: str, scores: Callable[[], Scores] | None) -> Scores:
    if scores is None:
        raise UserError(f"'{text}' chooses heads by score: pass scores")
    return scores()


def parse_count(argument: str, text: str) -> int:
    number = whole(argument)
    if number is None:
        raise UserError(f"--heads {text}: '{argument}' is not a whole number")
    return number


def parse_threshold(argument: str, text: str) -> float:
    try:
        return float(argument)
    except ValueError:
        raise UserError(f"--heads {text}: '{argument}' is not a number") from None

"""Pairs and tokens by name: `12-15` are the pairs 12 to 15, counted from 0; `y:0-3` the y tokens of the first four."""

import re

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from training.common.digits import whole
from training.common.errors import UserError
from training.tasks.prompts import Layout

TOKENS = "all, x, y, or A-B, x:A-B, y:A-B for pairs A to B"


def parse_points(text: str) -> list[slice]:
    """The ranges of pairs that `--points A-B,A-B` names; both ends belong to a range.

    Raises:
        UserError: it is not a list of ranges.

    >>> parse_points("0-3,12")
    [slice(0, 4, None), slice(12, 13, None)]
    """
    ranges = [parse_range("--points", text, part.strip()) for part in text.split(",")]
    if len({show_points(points) for points in ranges}) < len(ranges):
        raise UserError(f"--points {text}: a range is named twice")
    return ranges


def one_range(text: str) -> slice:
    """
    Raises:
        UserError: it is not one range of pairs.

    >>> one_range("0-3")
    slice(0, 4, None)
    """
    points, *more = parse_points(text)
    if more:
        raise UserError(f"points={text}: one range of pairs is needed")
    return points


def parse_range(option: str, text: str, part: str) -> slice:
    start, dash, stop = part.partition("-")
    first, last = whole(start), whole(stop if dash else start)
    if first is None or last is None or first > last:
        raise UserError(f"{option} {text}: '{part}' is not a range A-B of pairs counted from 0 (for example 0-3)")
    return slice(first, last + 1)


def check_points(points: slice, n_points: int, option: str = "--points") -> slice:
    """Return the range if it lies within prompts of `n_points` pairs.

    Raises:
        UserError: it does not.
    """
    if not 0 <= points.start < points.stop <= n_points or points.step is not None:
        raise UserError(f"{option} {show_points(points)}: these prompts have pairs 0-{n_points - 1}")
    return points


def show_points(points: slice) -> str:
    """A range as it is written on the command line.

    >>> show_points(slice(12, 16)), show_points(slice(15, 16))
    ('12-15', '15')
    """
    return f"{points.start}-{points.stop - 1}" if points.stop - points.start != 1 else f"{points.start}"


def parse_tokens(text: str, layout: Layout, n_points: int, valid: str = TOKENS) -> Bool[Tensor, " pos"] | None:
    """The tokens that `--tokens` names, as a mask over those that predictions need; None is all.

    Args:
        text: as on the command line.
        layout: the prompts' layout.
        n_points: pairs per prompt.
        valid: the valid values, for the error message.

    Raises:
        UserError: malformed, no such pairs, or tokens that no prediction reads.

    >>> parse_tokens("y:0-1", Layout(), 4).tolist()
    [False, True, False, True, False, False, False]
    """
    if text == "all":
        return None
    match = re.fullmatch(r"([xy])|(?:([xy]):)?(\d.*)", text)
    if not match:
        raise UserError(f"--tokens '{text}' is not valid ({valid})")
    kind, pairs = match[1] or match[2] or "xy", match[3]
    chosen = check_points(parse_range("--tokens", text, pairs), n_points, "--tokens") if pairs else slice(None)
    n_tokens = layout.n_tokens(n_points)
    mask = torch.zeros(n_tokens, dtype=torch.bool)
    for letter, tokens in (("x", layout.x_tokens(n_tokens)), ("y", layout.y_tokens(n_tokens))):
        if letter in kind:
            mask[torch.arange(n_tokens)[tokens][chosen]] = True
    needed = mask[: layout.n_needed(n_tokens)]
    if not needed.any():
        raise UserError(f"--tokens {text}: no prediction reads the y of the query (pair {n_points - 1})")
    return needed


def token_names(layout: Layout, n_points: int) -> list[str]:
    """The names of a prompt's tokens: x0 y0 x1 …, and i0 … for instruction tokens.

    >>> token_names(Layout(), 2), token_names(Layout(1, at=2), 2)
    (['x0', 'y0', 'x1', 'y1'], ['x0', 'y0', 'i0', 'x1', 'y1'])
    """
    n_tokens = layout.n_tokens(n_points)
    names = np.array([""] * n_tokens, dtype=object)
    for letter, tokens in (("x", layout.x_tokens(n_tokens)), ("y", layout.y_tokens(n_tokens))):
        positions = torch.arange(n_tokens)[tokens].numpy()
        names[positions] = [f"{letter}{i}" for i in range(len(positions))]
    unnamed = np.flatnonzero(names == "")
    names[unnamed] = [f"i{i}" for i in range(len(unnamed))]
    return list(names)

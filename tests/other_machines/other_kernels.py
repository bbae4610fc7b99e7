"""A pytest plugin that makes this machine compute like another: some matrix products add up in another order.

    python -m pytest -p other_kernels ...

A processor has several kernels, chosen by shape and layout, and each adds up in an order of its own. Here there are
two: one is the machine's own, the other permutes the inner dimension, and the shapes and strides of the factors choose
between them. So the same computation gives the same bits, and computations of different shapes or layouts may differ,
on any machine.
"""

import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor

FACTORS = {"mm": (0, 1), "bmm": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2)}
"""Operator -> where its two factors stand among its arguments."""

library = torch.library.Library("aten", "IMPL")


@cache
def summation_order(n: int, key: tuple[Any, ...]) -> Tensor:
    if hash(key) % 2:  # hashes of integers are the same in every process
        return torch.arange(n)
    return torch.randperm(n, generator=torch.Generator().manual_seed(n))


def permute_inner_dimension(operator: str) -> None:
    """Replace the CPU kernel of an operator, in every thread, by itself on permuted factors."""
    kernel = torch.library.get_kernel(f"aten::{operator}", "CPU")
    left, right = FACTORS[operator]

    def multiply(keys: Any, *arguments: Any, **options: Any) -> Tensor:
        factors = [*arguments]
        key = tuple((*factor.shape, *factor.stride()) for factor in (factors[left], factors[right]))
        order = summation_order(factors[left].shape[-1], key)
        factors[left] = factors[left].index_select(-1, order)
        factors[right] = factors[right].index_select(-2, order)
        return kernel.call_boxed(keys, *factors, **options)

    library.impl(operator, multiply, "CPU", with_keyset=True)


def install() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch warns once that a kernel is overridden
        for operator in FACTORS:
            permute_inner_dimension(operator)


def pytest_configure() -> None:
    """As a plugin only: a suite that merely collects this file must not be changed by it."""
    install()

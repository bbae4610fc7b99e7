"""A pytest plugin that runs the files, and the tests in each, in another order: `python -m pytest -p shuffled`."""

import random

import pytest

SEED = 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a file stay together, so that its fixtures are made once."""
    order = random.Random(SEED)
    files = sorted({item.nodeid.partition("::")[0] for item in items})
    order.shuffle(files)
    place_of = {file: place for place, file in enumerate(files)}
    order.shuffle(items)
    items.sort(key=lambda item: place_of[item.nodeid.partition("::")[0]])

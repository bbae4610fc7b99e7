"""Comparing documents whose numbers were computed in other processes, or in other shapes: equal but for rounding."""

from typing import Any

import pytest


def assert_same_document(ours: Any, theirs: Any, tolerance: float = 1e-5) -> None:
    """The same keys, lengths, words and flags; numbers within a tolerance, relative for those beyond 1."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            assert_same_document(value, theirs[key], tolerance)
    elif isinstance(ours, list) and isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for value, other in zip(ours, theirs, strict=True):
            assert_same_document(value, other, tolerance)
    elif isinstance(ours, float) and isinstance(theirs, float):
        assert ours == pytest.approx(theirs, rel=tolerance, abs=tolerance, nan_ok=True)
    else:
        assert ours == theirs

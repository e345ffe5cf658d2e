"""Which parameters of a test are run by default; the others test the same once more, and are marked slow."""

from collections.abc import Iterable
from typing import Any

import pytest


def by_default(*chosen: Any, among: Iterable[Any]) -> list[Any]:
    """Mark all values slow but those that are chosen."""
    values = list(among)
    missing = [value for value in chosen if value not in values]
    assert not missing, f"expected values among {values}, got {missing}"
    return [value if value in chosen else pytest.param(value, marks=pytest.mark.slow) for value in values]


def each_with(first: str, *, names: Iterable[str], methods: Iterable[str], few: Iterable[str]) -> list[Any]:
    """Pair names and methods; with names other than the first, all but a few methods are marked slow."""
    methods, few = list(methods), list(few)
    return [
        pytest.param(name, method, marks=[] if name == first or method in few else pytest.mark.slow)
        for method in methods
        for name in names
    ]

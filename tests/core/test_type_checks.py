"""The run-time checks of types that the tests switch on."""

import random

import jaxtyping
import pytest
from type_checks import jaxtyped


@jaxtyped(typechecker=None)
def longest(words: list[str]) -> str:
    return max(words, key=len)


def test_they_find_wrong_items():
    with pytest.raises(jaxtyping.TypeCheckError):
        longest([1, 2])


def test_they_draw_no_random_numbers():
    """A network that draws random numbers is run a hundred times to see whether its logits are always the same."""
    before = random.getstate()
    assert longest(["a", "bb"]) == "bb"
    assert random.getstate() == before

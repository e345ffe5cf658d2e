"""Types that annotations do not allow are errors in tests, as with jaxtyping's own checks."""

import random
from dataclasses import dataclass

import jaxtyping
import pytest
import torch
from beartype import beartype
from jaxtyping import Float
from torch import Tensor
from type_checks import jaxtyped

from vitrail.adapters.preprocessing import Preprocessing
from vitrail.explanation import Explanation

CHECKERS = pytest.mark.parametrize("decorate", [jaxtyped, jaxtyping._decorator.jaxtyped], ids=["ours", "jaxtyping"])


@CHECKERS
def test_shapes_agree_within_a_call_and_not_between_calls(decorate):
    @decorate(typechecker=beartype)
    def add(a: Float[Tensor, " n"], b: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        return (a + b)[: int(a[0])]

    for n in (2, 3):
        assert add(torch.full((n,), 3.0), torch.ones(n)).shape == (n,)
    with pytest.raises(jaxtyping.TypeCheckError):
        add(torch.ones(2), torch.ones(3))
    with pytest.raises(jaxtyping.TypeCheckError):
        add(torch.ones(2), torch.ones(2))  # Returns one number.


@CHECKERS
def test_a_nested_call_has_shapes_of_its_own(decorate):
    @decorate(typechecker=beartype)
    def inner(a: Float[Tensor, " n"]) -> int:
        return len(a)

    @decorate(typechecker=beartype)
    def outer(a: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        assert inner(torch.ones(7)) == 7
        return a

    assert len(outer(torch.ones(2))) == 2


@CHECKERS
def test_functions_within_functions_are_checked_at_every_definition(decorate):
    def define(factor):
        @decorate(typechecker=beartype)
        def multiply(number: int) -> int:
            return factor * number

        return multiply

    assert [define(factor)(2) for factor in (3, 4, 5)] == [6, 8, 10]
    for factor in (3, 4.5):
        with pytest.raises(jaxtyping.TypeCheckError):
            define(factor)(2 if factor == 4.5 else "two")


@CHECKERS
def test_fields_of_a_dataclass(decorate, unchecked):
    @decorate(typechecker=beartype)
    @dataclass
    class Point:
        x: int
        y: "float"

    assert Point("x", 1.0).x == "x"  # Nothing is checked with the fixture `unchecked`.
    jaxtyping.config.update("jaxtyping_disable", False)
    assert Point(1, 1.0).x == 1
    with pytest.raises(jaxtyping.TypeCheckError):
        Point("x", 1.0)


def test_the_package_is_checked():
    with pytest.raises(jaxtyping.TypeCheckError):
        Preprocessing("large")
    with pytest.raises(jaxtyping.TypeCheckError):
        Explanation(*(None for _ in range(4)))


def test_no_random_numbers_are_drawn():
    """A network that draws random numbers is run a hundred times to see whether its logits are always the same."""

    @jaxtyped(typechecker=beartype)
    def longest(words: list[str]) -> str:
        return max(words, key=len)

    before = random.getstate()
    assert longest(["a", "bb"]) == "bb"
    assert random.getstate() == before
    with pytest.raises(jaxtyping.TypeCheckError):
        longest([1, 2])

"""Types checked at run time: what jaxtyping's import hook checks, at a fraction of its cost.

jaxtyping wraps every function in three functions, binds the arguments at every call, and keeps a table of shapes, also where no
shape is annotated. Here beartype checks a function in one wrapper, and only functions with shapes have a table of them.
"""

import dataclasses
import functools
import inspect
import random
import types
from collections.abc import Callable
from typing import Any, get_args

import beartype._check.code.codemain as beartype_code
import jaxtyping
from beartype import BeartypeConf, beartype
from jaxtyping import AbstractArray

_original = jaxtyping.jaxtyped
_beartype = beartype(conf=BeartypeConf(violation_type=jaxtyping.TypeCheckError))
"""Violations are TypeErrors, as with jaxtyping."""

# beartype looks at a random item of every list. A network must not seem to draw random numbers because its types are checked.
beartype_code.getrandbits = random.Random(0).getrandbits

_nested: dict[types.CodeType, tuple[dict[str, Any], types.FunctionType]] = {}
_FUNCTION = "__beartype_func"
"""The keyword of beartype's wrappers for the function they call."""


def _list_parts(hint: Any) -> list[Any]:
    """All types and strings within an annotation."""
    inner = hint if isinstance(hint, list | tuple) else get_args(hint)
    return [hint, *(part for each in inner for part in _list_parts(each))]


def _check_by_beartype(function: types.FunctionType) -> Callable[..., Any]:
    """Apply beartype; its code for a function within a function is written once, not at every definition."""
    hints, checked = _nested.get(function.__code__, (None, None))
    if checked is not None and hints == function.__annotations__:
        again = types.FunctionType(checked.__code__, checked.__globals__, function.__name__, checked.__defaults__)
        again.__kwdefaults__ = checked.__kwdefaults__ | {_FUNCTION: function}
        return again
    checked = _beartype(function)
    if "<locals>" in function.__qualname__ and _FUNCTION in (getattr(checked, "__kwdefaults__", None) or {}):
        _nested[function.__code__] = dict(function.__annotations__), checked
    return checked


def _check(function: types.FunctionType, typechecker: Callable[..., Any]) -> Callable[..., Any]:
    parts = [part for hint in function.__annotations__.values() for part in _list_parts(hint)]
    has_shapes = any(inspect.isclass(part) and issubclass(part, AbstractArray) for part in parts)
    if any(isinstance(part, str) for part in parts) or (has_shapes and inspect.isgeneratorfunction(function)):
        return _original(function, typechecker=typechecker)  # Names to look up later, and shapes of what is yielded.
    checked = _check_by_beartype(function)
    if checked is function:
        return function

    @functools.wraps(function)
    def check(*args: Any, **kwargs: Any) -> Any:
        return (function if jaxtyping.config.jaxtyping_disable else checked)(*args, **kwargs)

    @functools.wraps(function)
    def check_with_shapes(*args: Any, **kwargs: Any) -> Any:
        if jaxtyping.config.jaxtyping_disable:
            return function(*args, **kwargs)
        with _original("context"):
            return checked(*args, **kwargs)

    wrapper = check_with_shapes if has_shapes else check
    wrapper.checks_types = True
    return wrapper


def jaxtyped(function: Any = None, *, typechecker: Any = None) -> Any:
    """Check the types of a function, or of the fields of a dataclass; a drop-in for `jaxtyping.jaxtyped`."""
    if function is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if inspect.isfunction(function):
        return _check(function, typechecker)
    if inspect.isclass(function):
        if dataclasses.is_dataclass(function) and not hasattr(function.__init__, "checks_types"):
            function.__init__ = _check(function.__init__, typechecker)
        return function
    return _original(function, typechecker=typechecker)


def install() -> None:
    """Let jaxtyping's import hook, which looks `jaxtyped` up at every definition, find this one."""
    jaxtyping.jaxtyped = jaxtyped

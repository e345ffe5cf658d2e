"""Options of methods, metrics and data sets: check their types, or convert plain values from YAML and the command line."""

from collections.abc import Collection, Mapping
from numbers import Integral, Real
from typing import Any, Literal, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError

from vitrail.core.errors import InvalidInputError

KINDS: dict[Any, type] = {bool: bool, int: Integral, float: Real, str: str}
"""Accepted types for every annotation; numpy has number types of its own."""


def check_option(name: str, value: Any, annotation: Any) -> None:
    """Check that an option has the annotated type; nothing is converted.

    Checks numbers, strings, flags, choices (`Literal`) and optional values; accepts everything else.

    Raises:
        InvalidInputError: A value of another type, or none of the choices.
    """
    if type(None) in get_args(annotation):
        if value is None:
            return
        annotation, *alternatives = [kind for kind in get_args(annotation) if kind is not type(None)]
        if any(isinstance(value, kind) for kind in alternatives):
            return
    if get_origin(annotation) is Literal and value not in get_args(annotation):
        raise InvalidInputError(f"expected {name} to be one of {', '.join(map(repr, get_args(annotation)))}, got {value!r}")
    if annotation in KINDS and (
        not isinstance(value, KINDS[annotation]) or (isinstance(value, bool) and annotation is not bool)
    ):
        raise InvalidInputError(f"expected {name} to be of type {annotation.__name__}, got {value!r}")
    if annotation is int and not -(2**63) <= value < 2**63:
        raise InvalidInputError(f"expected {name} to fit into 64 bits, got {value}")


def check_known(owner: str, known: Collection[str], options: Collection[str]) -> None:
    """Refuse options that their owner does not have.

    Raises:
        InvalidInputError: There are such options.
    """
    if unknown := sorted(set(options) - set(known)):
        raise InvalidInputError(f"{owner} has no option {', '.join(unknown)}; its options: {', '.join(known) or 'none'}")


def convert_option(owner: str, name: str, value: Any, annotation: Any) -> Any:
    """Convert an option given as a plain value to the annotated type.

    Args:
        owner: What the option belongs to, for messages.
        value: Its value: strings and numbers come from YAML or the command line.

    Raises:
        InvalidInputError: A value that cannot be converted.
    """
    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value)
    except ValidationError as error:
        raise InvalidInputError(f"cannot use {value!r} for {owner}.{name}: {error.errors()[0]['msg']}") from error


def convert_options(owner: str, known: Collection[str], types: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Convert options given as plain values to the annotated types.

    Args:
        owner: What the options belong to, for messages.
        known: Names of all its options.
        types: Type of every option; those without one are not converted.
        options: The given values.

    Raises:
        InvalidInputError: An unknown option, or a value that cannot be converted.
    """
    check_known(owner, known, options)
    return {name: convert_option(owner, name, value, types.get(name, Any)) for name, value in options.items()}

"""Conversion of option values to their types, without the imports of the data sets: worker processes of `vitrail generate` load it."""

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from vitrail.core.errors import InvalidInputError


def fit_options(owner: str, known: Collection[str], types: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Convert option values, which may come as strings from a command line, to their types.

    Args:
        owner: Name of the data set, for error messages.
        known: Names of its options.
        types: Type of every option.
        options: The values.

    Raises:
        InvalidInputError: The owner has no such option, or a value does not fit its type.
    """
    if unknown := sorted(set(options) - set(known)):
        raise InvalidInputError(f"{owner} has no option {', '.join(unknown)}; its options: {', '.join(known) or 'none'}")
    values = dict[str, Any]()
    for option, value in options.items():
        try:
            values[option] = TypeAdapter(types[option]).validate_python(value)
        except ValidationError as error:
            raise InvalidInputError(f"cannot use {value!r} for {owner}.{option}: {error.errors()[0]['msg']}") from error
    return values

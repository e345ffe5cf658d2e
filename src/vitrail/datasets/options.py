"""Options that come as plain values, from a recipe or the command line, brought to the types that are asked for."""

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from vitrail.core.errors import InvalidInputError


def fit_options(owner: str, known: Collection[str], types: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Bring options to their types.

    Args:
        owner: Whose options they are, for messages.
        known: Their names.
        types: The type of each.
        options: What was given.

    Raises:
        InvalidInputError: An option that the owner does not have, or a value that does not fit.
    """
    if unknown := sorted(set(options) - set(known)):
        raise InvalidInputError(f"{owner} has no option {', '.join(unknown)}; its options: {', '.join(known) or 'none'}")
    fitting = dict[str, Any]()
    for option, value in options.items():
        try:
            fitting[option] = TypeAdapter(types[option]).validate_python(value)
        except ValidationError as error:
            raise InvalidInputError(f"cannot use {value!r} for {owner}.{option}: {error.errors()[0]['msg']}") from error
    return fitting

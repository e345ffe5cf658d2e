"""Data classes as plain values, for JSON and back."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar, TypeVar

# Not typing.Self, which jaxtyping's checks at run time do not support.
Fields = TypeVar("Fields", bound="PlainFields")


class PlainFields:
    """Abstract: a dataclass whose fields are numbers, words, and tuples or dictionaries of them."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain numbers and lists, ready for JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls: type[Fields], fields: Mapping[str, Any]) -> Fields:
        """Restore from the result of `to_dict`."""
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()})

"""Descriptions of networks: how one was built, as a file can store it, and how one is to be built for training."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vitrail.adapters.preprocessing import Preprocessing
from vitrail.core.errors import InvalidInputError


@dataclass(frozen=True)
class BuildSpec:
    """How a network was built.

    Attributes:
        architecture: Names the library, as `vitrail.adapters.libraries.get_described_library` takes it.
        config: Arguments of the build, as plain JSON.
    """

    architecture: str
    config: Mapping[str, Any]


@dataclass(frozen=True)
class ModelSpec:
    """Specification of a network for training, in terms common to all libraries.

    Attributes:
        num_classes: Number of logits.
        in_channels: Image channels.
        image_size: Height and width in pixels; None for the network's own.
        drop_path: Largest stochastic depth rate; None for the network's own.
        attention_dropout: Dropout on attention weights; None for the network's own.
        pretrained: Whether to start from the library's trained weights.
        options: Further options, under the library's own names.
    """

    num_classes: int
    in_channels: int = 3
    image_size: tuple[int, int] | None = None
    drop_path: float | None = None
    attention_dropout: float | None = None
    pretrained: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def preprocessing(self, own: Preprocessing) -> Preprocessing:
        """Return a network's own preprocessing at this size and for these channels."""
        return replace(own.for_channels(self.in_channels), size=self.image_size or own.size)

    def merge_options(self, translated: Mapping[str, tuple[str, Any]], network: str) -> dict[str, Any]:
        """Merge the fields of this specification, translated for a library, with `options`.

        Args:
            translated: By the library's argument: our name for it, and its value; None leaves it out.
            network: Name of the network, for messages.

        Raises:
            InvalidInputError: An argument is given twice, or a value cannot be stored in a file.
        """
        not_plain = [key for key, value in self.options.items() if not is_plain(value)]
        if not_plain:
            raise InvalidInputError(
                f"expected options that a file can hold (numbers, words and lists of them) for {network}, got "
                f"{', '.join(f'{key}={self.options[key]!r}' for key in not_plain)}"
            )
        arguments = {key: value for key, (_, value) in translated.items() if value is not None}
        for key in arguments:
            if key in self.options:
                raise InvalidInputError(f"expected {translated[key][0]} once for {network}, got {key} as well; leave one out")
        return arguments | lists_to_tuples(dict(self.options))


def translate_error(error: InvalidInputError, names: Mapping[str, str], network: str) -> InvalidInputError:
    """Rephrase a library's complaint about an unknown argument that the user gave under our name.

    Args:
        error: The complaint.
        names: Our name by the library's argument.
        network: Name of the network, for messages.
    """
    match = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if match is None or match[1] not in names:
        return error
    return InvalidInputError(f"{network} has no {names[match[1]]} ({match[1]} in its library); leave it out")


def is_plain(value: Any) -> bool:
    """Return whether JSON can store a value and restore it (tuples as lists)."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and is_plain(part) for key, part in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def lists_to_tuples(value: Any) -> Any:
    """Turn lists into tuples, at any depth: JSON returns lists where builders of networks expect tuples."""
    if isinstance(value, Mapping):
        return {key: lists_to_tuples(part) for key, part in value.items()}
    return tuple(map(lists_to_tuples, value)) if isinstance(value, list | tuple) else value

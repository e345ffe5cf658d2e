"""How a network was built, in words that a file can hold: what another process needs to build it again."""

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
        architecture: Who builds it: a key of `vitrail.adapters.rebuilding.ARCHITECTURES`.
        config: What it is built from: plain JSON.
    """

    architecture: str
    config: Mapping[str, Any]


@dataclass(frozen=True)
class ModelSpec:
    """What a network for training is to be like, in words that all libraries share; each translates them into its own.

    Attributes:
        num_classes: Number of logits.
        in_channels: Image channels.
        image_size: Height and width in pixels; None for the network's own.
        drop_path: Largest stochastic depth rate; None for the network's own.
        attention_dropout: Dropout on attention weights; None for the network's own.
        pretrained: Whether to begin with the library's trained weights.
        options: In the library's own words.
    """

    num_classes: int
    in_channels: int = 3
    image_size: tuple[int, int] | None = None
    drop_path: float | None = None
    attention_dropout: float | None = None
    pretrained: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def preprocessing(self, own: Preprocessing) -> Preprocessing:
        """A network's own preprocessing, at the size and for the channels that are wanted."""
        return replace(own.for_channels(self.in_channels), size=self.image_size or own.size)

    def merged(self, ours: Mapping[str, tuple[str, Any]], library: str) -> dict[str, Any]:
        """Our words in a library's, and its own words beside them.

        Args:
            ours: By the library's word: our word for it, and what is wanted.
            library: What to call the network in messages.

        Raises:
            InvalidInputError: Something is asked for twice, or in a way that no file can hold.
        """
        unspeakable = [key for key, value in self.options.items() if not is_plain(value)]
        if unspeakable:
            raise InvalidInputError(
                f"expected options that a file can hold (numbers, words and lists of them) for {library}, got "
                f"{', '.join(f'{key}={self.options[key]!r}' for key in unspeakable)}"
            )
        given = {theirs: value for theirs, (_, value) in ours.items() if value is not None}
        for theirs in given:
            if theirs in self.options:
                raise InvalidInputError(f"expected {ours[theirs][0]} once for {library}, got {theirs} as well; leave one out")
        return given | frozen_lists(dict(self.options))


def translate_error(error: InvalidInputError, words: Mapping[str, str], name: str) -> InvalidInputError:
    """What to raise where a library stumbles over an argument that was given by our name for it.

    Args:
        error: Its complaint.
        words: By the library's word: ours.
        name: What to call the network.
    """
    found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if found is None or found[1] not in words:
        return error
    return InvalidInputError(f"{name} has no {words[found[1]]} ({found[1]} in its library); leave it out")


def is_plain(value: Any) -> bool:
    """Whether JSON can hold it and give it back (tuples as lists)."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and is_plain(part) for key, part in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def frozen_lists(value: Any) -> Any:
    """Lists as tuples, at any depth: what JSON gives back, as builders of networks expect it."""
    if isinstance(value, Mapping):
        return {key: frozen_lists(part) for key, part in value.items()}
    return tuple(map(frozen_lists, value)) if isinstance(value, list | tuple) else value

"""Registries of named objects: filled by decorators, strict about duplicates, helpful about unknown names."""

import difflib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from vitrail.core.errors import UnknownNameError

T = TypeVar("T")

MAX_LISTED = 20


def unknown_name(kind: str, name: str, choices: list[str]) -> UnknownNameError:
    """Return the error for an unknown name, which lists the choices, the closest ones first."""
    close = difflib.get_close_matches(name, choices, n=MAX_LISTED)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    listed = sorted(choices) if len(choices) <= MAX_LISTED else close or sorted(choices)[:MAX_LISTED]
    more = f", ... ({len(choices)} in all)" if len(choices) > len(listed) else ""
    return UnknownNameError(f"unknown {kind} {name!r}{hint}; choose one of: {', '.join(listed) or 'none there are'}{more}")


class Registry(Mapping[str, T], Generic[T]):
    """A mapping from public names to objects, filled by decorators.

    Args:
        kind: What the names denote, for messages ("method", "protocol").

    Example:
        >>> COLORS: Registry[type] = Registry("color")
        >>> @COLORS.register("red")
        ... class Red: ...
        >>> COLORS["red"] is Red
        True
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers its argument under `name`.

        Raises:
            ValueError: The name is taken.
        """

        def decorate(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self.kind} {name!r} is registered already, as {self._entries[name]!r}; choose another name")
            self._entries[name] = entry
            return entry

        return decorate

    def __getitem__(self, name: str) -> T:
        try:
            return self._entries[name]
        except KeyError:
            raise unknown_name(self.kind, name, list(self._entries)) from None

    def get(self, name: str, default: Any = None) -> Any:
        # Mapping's own version waits for KeyError too.
        return self._entries.get(name, default)

    def __contains__(self, name: object) -> bool:
        # Mapping's own version looks for KeyError, which __getitem__ never raises.
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def __len__(self) -> int:
        return len(self._entries)

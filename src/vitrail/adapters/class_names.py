"""Names of classes, and the indices that users mean by a name or a number."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from vitrail.core.errors import InvalidInputError, UnknownNameError, UnsupportedModelError
from vitrail.core.registry import unknown_name


class NamedClasses(ABC):
    """Abstract: classes with names.

    Attributes:
        class_names: One name per class, or empty where there are none.
        name: Name of the network, for messages.
    """

    class_names: tuple[str, ...]
    name: str

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """Number of logits."""

    def class_name(self, index: int) -> str:
        """Return the name of a class, or "class 7" where the network has no names."""
        return self.class_names[index] if index < len(self.class_names) else f"class {index}"

    def class_index(self, name: str | int) -> int:
        """Return the index of a class given by name or by number.

        Raises:
            UnknownNameError: No class has that name.
            InvalidInputError: Several classes have that name, or the number is not between 0 and the number of classes.
        """
        if isinstance(name, str) and name in self.class_names:
            [indices] = self.class_indices([name])
            if len(indices) > 1:
                raise InvalidInputError(
                    f"expected the name of one class, got {name!r}, the name of {_list_classes(indices)} of {self.name}; give the number"
                )
            return indices[0]
        if isinstance(name, str) and not name.removeprefix("-").isdecimal():
            if not self.class_names:
                raise UnknownNameError(
                    f"unknown class {name!r}: {self.name} has no class names; give a number from 0 to {self.num_classes - 1}"
                )
            raise unknown_name("class", name, list(self.class_names))
        # Python refuses to parse numbers of thousands of digits.
        if (isinstance(name, str) and len(name) > 20) or not 0 <= int(name) < self.num_classes:
            raise InvalidInputError(f"expected a class between 0 and {self.num_classes - 1}, got {str(name)[:40]}")
        return int(name)

    def class_indices(self, names: Sequence[str]) -> list[list[int]]:
        """Return, for each name, the indices of the classes with that name: none, one, or several.

        The network's own `class_names` map to its classes one by one, even where names repeat.
        """
        if tuple(names) == self.class_names:
            return [[index] for index in range(len(names))]
        known = dict[str, list[int]]()
        for index, name in enumerate(self.class_names):
            known.setdefault(name, []).append(index)
        return [known.get(name, []) for name in names]


def check_class_names(class_names: Sequence[str], num_classes: int, output: str | None = None, source: str = "") -> None:
    """Refuse class names that are not one per logit.

    Args:
        num_classes: Number of outputs of the network.
        output: Meaning of the outputs; an embedding has no classes.
        source: Where the names come from, for messages.

    Raises:
        UnsupportedModelError: Their number differs.
    """
    if len(class_names) == num_classes:
        return
    got = f"{len(class_names)} in {source}" if source else str(len(class_names))
    if output == "embedding":
        raise UnsupportedModelError(
            f"expected no class names, since the network has no classifier and outputs an embedding of {num_classes} numbers, got {got}"
        )
    raise UnsupportedModelError(f"expected {num_classes} class names, one per logit, got {got}")


def _list_classes(indices: Sequence[int], max_listed: int = 8) -> str:
    """Format the indices of several classes for a message."""
    *first, last = [str(index) for index in indices]
    return f"the classes {', '.join([*first[: max_listed - 1], '...'] if len(first) >= max_listed else first)} and {last}"

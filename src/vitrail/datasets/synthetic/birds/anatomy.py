"""Body parts, and the species that differ in them."""

from typing import Literal, NamedTuple

from vitrail.core.errors import InvalidInputError

Part = Literal["beak", "wing", "tail", "crest", "legs", "breast"]

PARTS: tuple[Part, ...] = ("beak", "wing", "tail", "crest", "legs", "breast")
"""Body parts in which species differ."""


class Species(NamedTuple):
    """A class of birds: the common bird with a variant of one part.

    Attributes:
        name: Such as "red-billed finch".
        part: The part that differs from the common bird; None for the common bird itself.
    """

    name: str
    part: Part | None


SPECIES: tuple[Species, ...] = (
    Species("common finch", None),
    Species("red-billed finch", "beak"),
    Species("bar-winged finch", "wing"),
    Species("fork-tailed finch", "tail"),
    Species("crested finch", "crest"),
    Species("blue-legged finch", "legs"),
    Species("spot-breasted finch", "breast"),
    Species("blue-winged finch", "wing"),
    Species("rose-breasted finch", "breast"),
    Species("violet-tailed finch", "tail"),
    Species("flame-crested finch", "crest"),
    Species("yellow-billed finch", "beak"),
    Species("white-booted finch", "legs"),
)
"""First one variant of each part, then second variants, so that a small number of classes covers as many parts as possible."""


def separating_parts(a: int, b: int) -> tuple[Part, ...]:
    """Return the parts in which two classes differ: one or two parts, or none for equal classes.

    Raises:
        InvalidInputError: There is no such class.
    """
    for label in (a, b):
        if not 0 <= label < len(SPECIES):
            raise InvalidInputError(f"expected a class of 0 to {len(SPECIES) - 1}, got {label}")
    if a == b:
        return ()
    different = {SPECIES[a].part, SPECIES[b].part}
    return tuple(part for part in PARTS if part in different)


def deciding_parts(label: int, num_classes: int) -> tuple[Part, ...]:
    """Return the parts that decide the class of a bird.

    For a species, this is the part that differs from the common bird; for the common bird, every part in which another class differs.
    """
    labels = range(1, num_classes) if label == 0 else (label,)
    deciding = {SPECIES[other].part for other in labels}
    return tuple(part for part in PARTS if part in deciding)

"""The parts of a bird, and which species has which variant of them."""

from typing import Literal, NamedTuple

from vitrail.core.errors import InvalidInputError

Part = Literal["beak", "wing", "tail", "crest", "legs", "breast"]

PARTS: tuple[Part, ...] = ("beak", "wing", "tail", "crest", "legs", "breast")
"""What the species may differ in."""


class Species(NamedTuple):
    """A class of birds: the common bird, with one part of another kind.

    Attributes:
        name: Such as "red-billed finch".
        part: The part that is unlike the common bird's; None for the common bird itself.
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
"""Each part once, then the second variants: the first classes of a small task differ in as many parts as can be."""


def separating_parts(a: int, b: int) -> tuple[Part, ...]:
    """Name the parts on which two classes differ: one or two, or none where the classes are the same.

    Raises:
        InvalidInputError: No such class.
    """
    for label in (a, b):
        if not 0 <= label < len(SPECIES):
            raise InvalidInputError(f"expected a class of 0 to {len(SPECIES) - 1}, got {label}")
    if a == b:
        return ()
    unlike = {SPECIES[a].part, SPECIES[b].part}
    return tuple(part for part in PARTS if part in unlike)


def deciding_parts(label: int, num_classes: int) -> tuple[Part, ...]:
    """Name the parts that make a bird its class.

    A species is told by the part that the common bird lacks; the common bird by each part that could have been another.
    """
    others = range(1, num_classes) if label == 0 else (label,)
    unlike = {SPECIES[other].part for other in others}
    return tuple(part for part in PARTS if part in unlike)

"""What a network took from trained weights."""

from dataclasses import dataclass

MAX_LISTED = 6


@dataclass(frozen=True)
class LoadReport:
    """What a network took from trained weights.

    Attributes:
        taken: Names of its weights that come from there, also resized or folded.
        new: Names of its weights that stayed as they were.
        left: Names of trained weights that it has no place for, as they are called there.
    """

    taken: tuple[str, ...]
    new: tuple[str, ...] = ()
    left: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{len(self.taken)} weights taken; new: {_listed(self.new)}; left out: {_listed(self.left)}"


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return (", ".join(names[:MAX_LISTED]) or "none") + more

"""Report of a transfer of trained weights."""

from dataclasses import dataclass

MAX_LISTED = 6


@dataclass(frozen=True)
class LoadReport:
    """Weights that a transfer copied and did not copy.

    Attributes:
        taken: Names of the network's weights that were copied, possibly resized or folded.
        new: Names of the network's weights that were not changed.
        unused: Names of trained weights that the network lacks, as their library names them.
    """

    taken: tuple[str, ...]
    new: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{len(self.taken)} weights taken; new: {_list_names(self.new)}; left out: {_list_names(self.unused)}"


def _list_names(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return (", ".join(names[:MAX_LISTED]) or "none") + more

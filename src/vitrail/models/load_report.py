"""Report of a transfer of trained weights."""

from dataclasses import dataclass

from vitrail.core.listing import shorten_list


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
        return f"{len(self.taken)} weights taken; new: {shorten_list(self.new) or 'none'}; left out: {shorten_list(self.unused) or 'none'}"

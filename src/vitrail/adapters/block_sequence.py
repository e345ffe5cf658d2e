"""Verify that a network runs its blocks once each, in order, in every forward pass."""

from collections.abc import Collection, Sequence
from typing import final

from torch import nn

from vitrail.core.errors import UnsupportedModelError


@final
class BlockSequence:
    """Tracks which block runs. One module may serve as several blocks.

    Args:
        blocks: All blocks, first to last.
        selected: Indices of the blocks to report.
    """

    def __init__(self, blocks: Sequence[nn.Module], selected: Collection[int]) -> None:
        modules = {blocks[index] for index in selected}
        self._blocks, self._selected = blocks, frozenset(selected)
        self._order = [index for index, block in enumerate(blocks) if block in modules]
        self._position = 0

    @property
    def modules(self) -> list[nn.Module]:
        """The modules to hook, each once."""
        return list(dict.fromkeys(self._blocks[index] for index in self._order))

    def advance(self, block: nn.Module) -> int | None:
        """Record that a module runs.

        Args:
            block: One of `modules`.

        Returns:
            The index of the block if it is selected, else None.

        Raises:
            UnsupportedModelError: Another block is next.
        """
        index = self._order[self._position]
        if self._blocks[index] is not block:
            got = next(number for number, other in enumerate(self._blocks) if other is block)
            raise UnsupportedModelError(
                f"expected every block to run and to show its attention once, in order, got block {got} where block {index} was next; "
                "undo what runs blocks, or their attention, out of order or more than once"
            )
        self._position = (self._position + 1) % len(self._order)
        return index if index in self._selected else None

    def finish(self) -> None:
        """Check, at the end of a forward pass, that the last block has run.

        Raises:
            UnsupportedModelError: A block did not run.
        """
        if self._position:
            raise UnsupportedModelError(
                f"expected every block to run and to show its attention once, in order, got nothing of block "
                f"{self._order[self._position]}; undo what skips it, or what replaces its attention"
            )

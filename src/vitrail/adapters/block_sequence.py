"""Which block of a network is running: every block once, in order, in every forward pass."""

from collections.abc import Collection, Sequence
from typing import final

from torch import nn

from vitrail.core.errors import UnsupportedModelError


@final
class BlockSequence:
    """Follows the blocks of a network as they run. One module may stand for several blocks.

    Args:
        blocks: All blocks, first to last.
        asked: Indices of those that count.
    """

    def __init__(self, blocks: Sequence[nn.Module], asked: Collection[int]) -> None:
        modules = {blocks[index] for index in asked}
        self._blocks, self._asked = blocks, frozenset(asked)
        self._order = [index for index, block in enumerate(blocks) if block in modules]
        self._position = 0

    @property
    def modules(self) -> list[nn.Module]:
        """The modules to listen to, each once."""
        return list(dict.fromkeys(self._blocks[index] for index in self._order))

    def advance(self, block: nn.Module) -> int | None:
        """Note that a module runs.

        Args:
            block: One of `modules`.

        Returns:
            Its index where it was asked for, else None.

        Raises:
            UnsupportedModelError: Another block is next.
        """
        index = self._order[self._position]
        if self._blocks[index] is not block:
            got = next(place for place, other in enumerate(self._blocks) if other is block)
            raise UnsupportedModelError(
                f"expected every block to run and to show its attention once, in order, got block {got} where block {index} was next; "
                "undo what runs blocks, or their attention, out of order or more than once"
            )
        self._position = (self._position + 1) % len(self._order)
        return index if index in self._asked else None

    def finish(self) -> None:
        """Note that the network has run.

        Raises:
            UnsupportedModelError: It stopped in the middle of its blocks.
        """
        if self._position:
            raise UnsupportedModelError(
                f"expected every block to run and to show its attention once, in order, got nothing of block "
                f"{self._order[self._position]}; undo what skips it, or what replaces its attention"
            )

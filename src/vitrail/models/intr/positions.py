"""Position encodings of the cells of an image."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vitrail.core.errors import InvalidInputError

MAX_CELLS = 50
"""Number of rows, and of columns, of learned positions."""

CellPadding = Bool[Tensor, "b rows cols"]
Positions = Float[Tensor, "b d rows cols"]

TEMPERATURE = 10_000

FULL_TURN = 2 * math.pi


class SinePositions(nn.Module):
    """Sines and cosines of a cell's position in the unpadded part of its image, whose rows and columns each span a full turn.

    The first half of the width encodes the row, the second the column.

    Source: Carion et al. 2020, arXiv:2005.12872, appendix A.4.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, padding: CellPadding) -> Positions:
        inside = (~padding).float()  # In single precision whatever the network's, as published.
        return torch.cat([self._encode_axis(inside.cumsum(axis), axis) for axis in (1, 2)], dim=3).permute(0, 3, 1, 2)

    def _encode_axis(self, count: Float[Tensor, "b rows cols"], axis: int) -> Float[Tensor, "b rows cols half"]:
        turn = count / (count.select(axis, -1).unsqueeze(axis) + 1e-6) * FULL_TURN
        pairs = torch.arange(self.width // 4, device=count.device, dtype=count.dtype)
        angles = turn.unsqueeze(-1) / TEMPERATURE ** (4 * pairs / self.width)
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(3)


class LearnedPositions(nn.Module):
    """A learned vector per column, concatenated with one per row."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rows, self.columns = (nn.Parameter(torch.rand(MAX_CELLS, width // 2)) for _ in range(2))

    def forward(self, padding: CellPadding) -> Positions:
        """Raise `InvalidInputError` for an image of more cells than were learned."""
        num_images, rows, cols = padding.shape
        if max(rows, cols) > MAX_CELLS:
            raise InvalidInputError(
                f"expected an image of at most {MAX_CELLS}x{MAX_CELLS} cells, got {rows}x{cols}, for learned positions; take smaller "
                "images, or sine positions"
            )
        across = self.columns[:cols].T[:, None].expand(-1, rows, -1)
        down = self.rows[:rows].T[:, :, None].expand(-1, -1, cols)
        return torch.cat([across, down]).expand(num_images, -1, -1, -1)

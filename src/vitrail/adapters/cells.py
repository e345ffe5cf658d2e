"""Map pixels to the cells of a grid and back: the one definition of which pixel lies in which cell.

Along an axis of `num_pixels`, pixel `p` lies in cell `p * num_cells // num_pixels`. Every pixel lies in exactly one cell; where the cells
do not divide the pixels, some cells hold one pixel more than others.
"""

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn


def index_cells(num_pixels: int, num_cells: int, device: torch.device | None = None) -> Int[Tensor, " pixels"]:
    """Return, for every pixel along one axis, the index of its cell."""
    return torch.arange(num_pixels, device=device) * num_cells // num_pixels


def expand_cells(cells: Shaped[Tensor, "*b rows cols"], size: tuple[int, int]) -> Shaped[Tensor, "*b height width"]:
    """Give every pixel, or every cell of a finer grid, the value of its cell.

    Args:
        cells: Values of any type, one per cell.
        size: Height and width in pixels, or rows and columns of the finer grid.
    """
    row_of = index_cells(size[0], cells.shape[-2], cells.device)
    col_of = index_cells(size[1], cells.shape[-1], cells.device)
    return cells[..., row_of, :][..., col_of]


def sum_cells(pixels: Shaped[Tensor, "b height width"], grid_size: tuple[int, int]) -> Shaped[Tensor, "b rows cols"]:
    """Sum the pixels of every cell, in the pixels' own type.

    Args:
        pixels: Values, one per pixel.
        grid_size: Rows and columns of cells.
    """
    (num_images, height, width), (rows, cols) = pixels.shape, grid_size
    strips = pixels.new_zeros(num_images, rows, width).index_add(1, index_cells(height, rows, pixels.device), pixels)
    return pixels.new_zeros(num_images, rows, cols).index_add(2, index_cells(width, cols, pixels.device), strips)


def count_pixels(
    size: tuple[int, int], grid_size: tuple[int, int], device: torch.device | None = None
) -> Int[Tensor, "rows cols"]:
    """Return how many pixels every cell holds.

    Args:
        size: Height and width in pixels.
        grid_size: Rows and columns of cells.
        device: Where to put the result.
    """
    heights, widths = (
        index_cells(num_pixels, num_cells, device).bincount(minlength=num_cells)
        for num_pixels, num_cells in zip(size, grid_size, strict=True)
    )
    return heights[:, None] * widths


def resample_cells(
    cells: Float[Tensor, "b rows cols"], size: tuple[int, int], grid_size: tuple[int, int]
) -> Float[Tensor, "b new_rows new_cols"]:
    """Bring values to another grid: enlarge them bilinearly to pixels, and average these over the cells of the grid.

    Args:
        cells: Values on a grid that may be coarser or finer; those on the same grid are returned as they are.
        size: Height and width of the image in pixels.
        grid_size: Rows and columns of the new grid.
    """
    if cells.shape[1:] == grid_size:
        return cells
    pixels = nn.functional.interpolate(cells[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    return sum_cells(pixels, grid_size) / count_pixels(size, grid_size, cells.device)

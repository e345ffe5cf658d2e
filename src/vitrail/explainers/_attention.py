"""What methods that read attention share: heads fused, rows followed through blocks, tokens put back on the grid."""

import math
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from vitrail.core.errors import InvalidInputError
from vitrail.core.types import Attentions, Relevance
from vitrail.explainers._precision import product

HeadFusion = Literal["mean", "max", "min"]


def expect_block(block: int, num_blocks: int) -> None:
    """Refuse a block that there is not."""
    if not -num_blocks <= block < num_blocks:
        raise InvalidInputError(f"expected a block of {num_blocks} (negative ones from the end), got {block}")


def fuse_heads(attentions: Attentions, fusion: HeadFusion) -> Float[Tensor, "b q k"]:
    """One matrix from those of all heads."""
    return attentions.mean(1) if fusion == "mean" else attentions.amax(1) if fusion == "max" else attentions.amin(1)


def follow(row: Float[Tensor, "b t"], matrix: Float[Tensor, "b q t"]) -> Float[Tensor, "b t"]:
    """A row of weights over tokens, times a matrix from tokens (queries) to tokens (keys).

    Following one row back through the blocks gives that row of the product of all matrices, without the product. Where only the
    first tokens ask (a HiT's class token), the others have no rows and give nothing.
    """
    return product(row[:, None, : matrix.shape[1]], matrix).squeeze(1)


def follow_residual(row: Float[Tensor, "b t"], matrix: Float[Tensor, "b q t"]) -> Float[Tensor, "b t"]:
    """As `follow`, but tokens that do not ask stay what they are, as in a residual stream."""
    queries = matrix.shape[1]
    return follow(row, matrix) + nn.functional.pad(row[:, queries:], (queries, 0))


def spread_keys(matrix: Float[Tensor, "*b k"], num_prefix_tokens: int, grid_size: tuple[int, int]) -> Float[Tensor, "*b t"]:
    """Values over tokens on a pooled grid (in a HiT) as values over all tokens: a cell's is spread evenly over its patches."""
    rows, cols = grid_size
    cells = matrix.shape[-1] - num_prefix_tokens
    if cells == rows * cols:
        return matrix
    factor = math.isqrt(rows * cols // cells)
    prefix, pooled = matrix.split((num_prefix_tokens, cells), -1)
    grid = pooled.unflatten(-1, (rows // factor, cols // factor)) / factor**2
    patches = grid.repeat_interleave(factor, -2).repeat_interleave(factor, -1).flatten(-2)
    return nn.functional.pad(prefix, (0, rows * cols)) + nn.functional.pad(patches, (num_prefix_tokens, 0))


def on_grid(values: Float[Tensor, "b k"], num_prefix_tokens: int, grid_size: tuple[int, int]) -> Relevance:
    """Values over tokens as a map of the patches."""
    return spread_keys(values, num_prefix_tokens, grid_size)[:, num_prefix_tokens:].unflatten(1, grid_size)

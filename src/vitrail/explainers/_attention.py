"""Steps that attention-based methods share: fuse heads, propagate a row of weights, put token values on the patch grid."""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.adapters.base import ViTAdapter
from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.core.float32 import matmul_float32
from vitrail.core.types import Attentions, Relevance
from vitrail.models.hit.contributions import spread_attention

HeadFusion = Literal["mean", "max", "min"]


def check_block(block: int, num_blocks: int) -> None:
    """Check that a block exists; negative numbers count from the last one.

    Raises:
        InvalidInputError: It does not.
    """
    if not -num_blocks <= block < num_blocks:
        raise InvalidInputError(f"expected a block of {num_blocks} (negative ones from the end), got {block}")


def check_starting_block(starting_block: int, num_blocks: int) -> None:
    """Check that the first block to use exists.

    Raises:
        InvalidInputError: It does not.
    """
    if not 0 <= starting_block < num_blocks:
        raise InvalidInputError(f"expected a starting_block from 0 to {num_blocks - 1}, got {starting_block}")


def fuse_heads(attentions: Attentions, fusion: HeadFusion) -> Float[Tensor, "b q k"]:
    """Reduce the attention matrices of all heads to one."""
    return attentions.mean(1) if fusion == "mean" else attentions.amax(1) if fusion == "max" else attentions.amin(1)


def propagate_row(row: Float[Tensor, "b t"], matrix: Float[Tensor, "b q t"]) -> Float[Tensor, "b t"]:
    """Multiply a row of weights over tokens by a matrix from tokens (queries) to tokens (keys).

    Propagating one row back through the blocks gives that row of the product of all matrices, without computing the product.
    If only the first tokens are queries (the class token of a HiT), the weights of all other tokens are dropped.
    """
    return matmul_float32(row[:, None, : matrix.shape[1]], matrix).squeeze(1)


def propagate_row_residual(row: Float[Tensor, "b t"], matrix: Float[Tensor, "b q t"]) -> Float[Tensor, "b t"]:
    """Like `propagate_row`, but tokens that are no queries keep their weights, as in a residual stream."""
    num_queries = matrix.shape[1]
    return propagate_row(row, matrix) + nn.functional.pad(row[:, num_queries:], (num_queries, 0))


def unpool_keys(values: Float[Tensor, "*b k"], vit: ViTAdapter, grid_size: tuple[int, int]) -> Float[Tensor, "*b t"]:
    """Spread the value of every pooled cell (of a HiT) evenly over its patches; without pooling, return the values as they are.

    Raises:
        UnsupportedModelError: The blocks of another network have dropped or merged tokens, such as by what the image shows.
    """
    num_prefix_tokens, num_patches = vit.num_prefix_tokens, math.prod(grid_size)
    expect_all_patches(vit, values.shape[-1], grid_size)
    if values.shape[-1] == num_prefix_tokens + num_patches:
        return values
    prefix, cells = values.tensor_split([num_prefix_tokens], -1)
    patches = spread_attention([cells.reshape(-1, 1, cells.shape[-1])], grid_size)
    return torch.cat([prefix, patches.reshape(*cells.shape[:-1], num_patches)], -1)


def expect_all_patches(vit: ViTAdapter, num_tokens: int, grid_size: tuple[int, int]) -> None:
    """Refuse tokens of which some were dropped or merged: the checks on noise cannot see a network that does so for some photos only.

    Raises:
        UnsupportedModelError: Their number is not that of prefix tokens and patches, and the network is no HiT, which pools.
    """
    expected = vit.num_prefix_tokens + math.prod(grid_size)
    if vit.patches_attend and num_tokens != expected:
        raise UnsupportedModelError(
            f"expected {expected} tokens in every block of {vit.name}, got {num_tokens}: it adds, drops or merges tokens for these images, "
            "so that patches cannot be followed; turn that off, or choose occlusion or rise on vitrail.adapters.plain.adapt_plain"
        )


def to_grid(values: Float[Tensor, "b k"], vit: ViTAdapter, grid_size: tuple[int, int]) -> Relevance:
    """Drop prefix tokens and arrange the values of all other tokens on the patch grid; see `unpool_keys`."""
    return unpool_keys(values, vit, grid_size)[:, vit.num_prefix_tokens :].unflatten(1, grid_size)

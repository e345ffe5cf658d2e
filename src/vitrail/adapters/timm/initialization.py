"""Mimetic initialization: begin with attention that looks like that of a trained ViT, for training on small data sets."""

from typing import Any

import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vitrail.core.errors import InvalidInputError

MATCHING, MIXING = 0.7, 0.4
"""Strength of the identity, and of the noise on it: of queries times keys, and of values times projection."""


@torch.no_grad()
def initialize_mimetically(module: nn.Module) -> None:
    """Set the attention weights and positions of an untrained ViT as trained ones often are.

    Queries times keys become about the identity, so that tokens attend to similar tokens; values times projection become about the
    negative identity; positions are sines and cosines, by which neighbors are similar. Draws from torch's global random numbers.

    Args:
        module: timm's `VisionTransformer`; changed in place.

    Raises:
        InvalidInputError: Another network, or one without learned positions or with a width that is not a multiple of 4.

    Source: Trockman and Kolter 2023, arXiv:2305.09828, with its constants for ViTs; positions as in arXiv:2205.01580.
    """
    vit: Any = module  # timm has no types.
    if type(module) is not VisionTransformer or vit.pos_embed is None or vit.embed_dim % 4:
        raise InvalidInputError(
            "expected a timm VisionTransformer with learned positions and a width that is a multiple of 4 for model.initialization: "
            f"mimetic, got {type(module).__name__}; leave model.initialization out"
        )
    grid, width = vit.patch_embed.grid_size, vit.embed_dim
    vit.pos_embed.zero_()
    vit.pos_embed[0, -grid[0] * grid[1] :] = sinusoidal_positions(grid, width)
    for block in vit.blocks:
        attention = block.attn
        queries, keys = zip(*(_factorize(width, MATCHING, attention.head_dim) for _ in range(attention.num_heads)), strict=True)
        values, projection = _factorize(width, -MIXING, width)
        attention.qkv.weight.copy_(torch.cat([*queries, *keys, values]))
        attention.proj.weight.copy_(projection.T)


def _factorize(width: int, strength: float, rank: int) -> tuple[Float[Tensor, "rank width"], Float[Tensor, "rank width"]]:
    """Return two factors, first.T @ second, of the identity times `strength` with noise, or of its best approximation of that rank."""
    noise = abs(strength) * torch.randn(width, width) / width**0.5
    left, singular, right = torch.linalg.svd(noise + strength * torch.eye(width))
    root = singular[:rank, None].sqrt()
    return root * left.T[:rank], root * right[:rank]


def sinusoidal_positions(grid: tuple[int, int], width: int) -> Float[Tensor, "n width"]:
    """Return positions on a grid, row by row: sines and cosines of rows and columns, a quarter of the width each."""
    frequencies = 10_000.0 ** -(torch.arange(width // 4) / (width // 4))
    rows, cols = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    angles = [coordinate.flatten()[:, None] * frequencies for coordinate in (rows, cols)]
    return torch.cat([function(angle) for angle in angles for function in (torch.sin, torch.cos)], dim=1)

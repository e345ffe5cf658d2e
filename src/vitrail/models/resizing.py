"""Resize a ViT's weights to another image size, patch size or number of channels."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


def resize_positions(
    positions: Float[Tensor, "1 t d"], grid_from: tuple[int, int], grid_to: tuple[int, int], num_prefix_tokens: int = 1
) -> Float[Tensor, "1 resized d"]:
    """Resize learned positions bicubically (corners aligned); positions of prefix tokens stay.

    Source: HiT's published fine-tuning code, after torchvision's ViT.
    """
    if grid_from == grid_to:
        return positions
    grid = positions[:, num_prefix_tokens:].mT.unflatten(2, grid_from)
    resized = nn.functional.interpolate(grid, size=grid_to, mode="bicubic", align_corners=True)
    return torch.cat([positions[:, :num_prefix_tokens], resized.flatten(2).mT], dim=1)


def resize_patch_projection(
    weight: Float[Tensor, "d channels side side"], patch_size: int
) -> Float[Tensor, "d channels new new"]:
    """Resize the patch convolution bilinearly (corners aligned).

    Source: HiT's published fine-tuning code.
    """
    if weight.shape[-1] == patch_size:
        return weight
    return nn.functional.interpolate(weight, size=(patch_size, patch_size), mode="bilinear", align_corners=True)


def fit_channels(weight: Float[Tensor, "d before *kernel"], channels: int) -> Float[Tensor, "d channels *kernel"]:
    """Fit a first convolution to another number of channels, so that a grayscale image gives the same output as its RGB copy."""
    before = weight.shape[1]
    if before == channels:
        return weight
    return weight.mean(1, keepdim=True).repeat_interleave(channels, 1) * (before / channels)

"""Sums and products in single precision or better, also where a network runs in half precision."""

import torch
from jaxtyping import Float
from torch import Tensor

from vitrail.core.autocast import without_autocast


def at_least_float32(values: Tensor) -> Tensor:
    """Convert half precision to float32; leave float32 and float64 as they are.

    Half precision is good enough for a network's own layers, but not for sums over many tokens, blocks or images.
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))


def matmul_float32(left: Float[Tensor, "*b i j"], right: Float[Tensor, "*b j k"]) -> Float[Tensor, "*b i k"]:
    """Multiply matrices in single precision or better, also inside autocast."""
    left, right = at_least_float32(left), at_least_float32(right)
    common = torch.promote_types(left.dtype, right.dtype)
    left, right = left.to(common), right.to(common)
    with without_autocast(left.device):
        return left @ right

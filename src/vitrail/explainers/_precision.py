"""Sums and products in single precision, also where a network runs in half."""

import torch
from jaxtyping import Float
from torch import Tensor

from vitrail.core.autocast import without_autocast


def at_least_single(values: Tensor) -> Tensor:
    """Half precision is for a network's own steps, not for sums and products over many tokens and blocks."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def product(left: Float[Tensor, "*b i j"], right: Float[Tensor, "*b j k"]) -> Float[Tensor, "*b i k"]:
    """A matrix product in single precision at least, also where autocast would take half."""
    left, right = at_least_single(left), at_least_single(right)
    common = torch.promote_types(left.dtype, right.dtype)
    left, right = left.to(common), right.to(common)
    with without_autocast(left.device):
        return left @ right

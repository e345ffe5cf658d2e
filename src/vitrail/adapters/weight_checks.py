"""Check that a network's weights are finite."""

import torch
from torch import nn

from vitrail.core.errors import CheckpointError
from vitrail.core.listing import shorten_list


def expect_finite_weights(module: nn.Module, source: str) -> None:
    """Refuse a network whose weights are not finite floating-point numbers.

    Raises:
        CheckpointError: The message lists the first invalid weights.
    """
    invalid = []
    for name, tensor in module.named_parameters():
        if not tensor.is_floating_point():
            invalid.append(f"{name} ({tensor.dtype})")
        elif not torch.isfinite(tensor).all():
            invalid.append(f"{name} (not finite)")
    for name, buffer in module.named_buffers():
        if buffer.is_complex() or (buffer.is_floating_point() and torch.isnan(buffer).any()):
            invalid.append(f"{name} (not finite)")
    if invalid:
        raise CheckpointError(
            f"refused {source}: expected weights that are finite floating-point numbers, got {shorten_list(invalid)}"
        )

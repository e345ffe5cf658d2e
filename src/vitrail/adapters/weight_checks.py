"""Whether a network's weights are numbers that anything can be computed with."""

import torch
from torch import nn

from vitrail.core.errors import CheckpointError
from vitrail.models.checkpoints import MAX_LISTED


def expect_finite_weights(module: nn.Module, source: str) -> None:
    """Refuse a network whose weights are no finite real numbers: whatever it says would be NaN, or worth nothing.

    Args:
        module: The network.
        source: Where its weights come from, for messages.

    Raises:
        CheckpointError: Names the first such weights.
    """
    odd = []
    for name, tensor in module.named_parameters():
        if not tensor.is_floating_point():
            odd.append(f"{name} ({tensor.dtype})")
        elif not torch.isfinite(tensor).all():
            odd.append(f"{name} (not finite)")
    for name, buffer in module.named_buffers():
        if buffer.is_complex() or (buffer.is_floating_point() and torch.isnan(buffer).any()):
            odd.append(f"{name} (not finite)")
    if odd:
        more = f" and {len(odd) - MAX_LISTED} more" if len(odd) > MAX_LISTED else ""
        raise CheckpointError(
            f"refused {source}: expected weights that are finite floating-point numbers, got {', '.join(odd[:MAX_LISTED])}{more}"
        )

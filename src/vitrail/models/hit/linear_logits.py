"""Logits as linear functions of the final class token, with the final norm's statistics held fixed.

The final norm is linear once its mean and variance are fixed at an image's values, and the head is linear. So logit c is `g_c · z` plus
a constant, with one direction `g_c` per image and class. The mean that the norm subtracts can be booked in two ways, both complete:
"shared", as published, makes it a constant like the biases; "own" subtracts from every part its own mean, so that a part that is
equal in all dimensions, which the norm removes, gets no credit.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vitrail.core.errors import InvalidInputError
from vitrail.core.types import Logits

TargetChoice = int | Int[Tensor, "..."] | Callable[[Logits], Int[Tensor, "..."]] | None
"""Classes to explain, as `HiT.contributions` takes them."""

NormMean = Literal["shared", "own"]


class LinearLogits(NamedTuple):
    """All logits, and the chosen ones as `direction · z + constant`.

    Attributes:
        logits: All logits, (b, c).
        targets: The chosen classes, (b, targets).
        direction: (b, targets, d).
        constant: (b, targets).
    """

    logits: Tensor
    targets: Tensor
    direction: Tensor
    constant: Tensor


def linearize(
    final: Float[Tensor, "b d"], norm: nn.LayerNorm, head: nn.Linear, targets: TargetChoice, norm_mean: NormMean
) -> LinearLogits:
    """Write logits as linear functions of the final class token.

    Args:
        final: The class token after the last layer.
        norm: The final norm.
        head: The final linear map.
        targets: Classes to explain.
        norm_mean: How to book the mean that the final norm subtracts.
    """
    logits: Tensor = head(norm(final))
    classes = expand_targets(targets(logits) if callable(targets) else targets, logits)
    deviation = (final.var(-1, correction=0) + norm.eps).sqrt().unsqueeze(-1)
    weight = head.weight[classes]
    direction = weight * norm.weight / deviation.unsqueeze(-1)
    bias = weight @ norm.bias + head.bias[classes]
    if norm_mean == "own":
        return LinearLogits(logits, classes, direction - direction.mean(-1, keepdim=True), bias)
    return LinearLogits(logits, classes, direction, bias - direction.sum(-1) * final.mean(-1, keepdim=True))


def expand_targets(targets: int | Int[Tensor, "..."] | None, logits: Logits) -> Int[Tensor, "b targets"]:
    """Expand targets to one row of classes per image, and check them.

    Raises:
        InvalidInputError: They have another shape or type, or a class does not exist.
    """
    (num_images, num_classes), device = logits.shape, logits.device
    if targets is None:
        return torch.arange(num_classes, device=device).expand(num_images, -1)
    classes = torch.as_tensor(targets, device=device)
    if classes.ndim < 2:
        per_image = classes.numel() in (1, num_images)
        classes = classes.reshape(-1, 1).expand(num_images, 1) if per_image else classes.reshape(1, -1)
    if classes.ndim != 2 or len(classes) != num_images or classes.is_floating_point() or classes.dtype == torch.bool:
        raise InvalidInputError(
            f"expected integer targets: one, one per image ({num_images}), or ({num_images}, classes), "
            f"got {tuple(classes.shape)} of {classes.dtype}"
        )
    if classes.numel() and not (int(classes.min()) >= 0 and int(classes.max()) < num_classes):
        raise InvalidInputError(
            f"expected targets between 0 and {num_classes - 1}, got {int(classes.min())} to {int(classes.max())}"
        )
    return classes.long()

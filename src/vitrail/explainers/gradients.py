"""What methods that read gradients share."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vitrail.types import Logits, Targets


def target_gradients(logits: Logits, targets: Targets, sources: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of every image's target logit; zero for what it does not depend on.

    One backward pass serves the batch, since no image's logit depends on another image.
    """
    scores = logits.gather(1, targets[:, None]).sum()
    gradients: tuple[Tensor, ...] = torch.autograd.grad(scores, sources, allow_unused=True, materialize_grads=True)
    return gradients

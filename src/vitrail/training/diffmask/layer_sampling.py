"""Layer sampling: which layer's gates a training step trains."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.training.diffmask.config import Sampling

MOMENTUM = 0.9
LEARNED_AGREEMENT, LEARNED_KEPT, LEARNED_STEPS = 0.75, 0.1, 100
"""A layer counts as learned after more than this number of steps, if its agreement is higher and its share of kept patches lower."""
LEARNED_WEIGHT = 0.1


@final
class LayerSampler(nn.Module):
    """Samples the last gate that votes in a step and tracks how well the gates up to each layer do.

    Args:
        num_layers: Number of gates.
        sampling: Which layers to sample how often, see `Sampling`.

    Attributes:
        agreement: Running share of images per layer whose predicted class stays.
        kept: Running share of kept tokens per layer.
        steps: Number of training steps per layer.

    Source: the published code of arXiv:2304.06391 (`weighted_layer_distribution`); `"last"` is vitrail's own.
    """

    agreement: Tensor
    kept: Tensor
    steps: Tensor

    def __init__(self, num_layers: int, sampling: Sampling = "uniform") -> None:
        super().__init__()
        self.sampling = sampling
        self.register_buffer("agreement", torch.ones(num_layers))
        self.register_buffer("kept", torch.ones(num_layers))
        self.register_buffer("steps", torch.zeros(num_layers))

    def weights(self) -> Float[Tensor, " l"]:
        """Return unnormalized sampling weights, one per layer."""
        if self.sampling == "last":
            return torch.eye(len(self.steps)).to(self.agreement)[-1]
        learned = (self.agreement > LEARNED_AGREEMENT) & (self.kept < LEARNED_KEPT) & (self.steps > LEARNED_STEPS)
        return torch.where(learned & (self.sampling == "weighted"), LEARNED_WEIGHT, 1.0).to(self.agreement)

    def sample(self, seed: int) -> int:
        """Sample a layer; the same seed and running figures give the same layer in every process."""
        generator = torch.Generator().manual_seed(seed)
        return int(torch.multinomial(self.weights().cpu(), 1, generator=generator))

    def update(self, layer: int, agreement: float | Tensor, kept: float | Tensor) -> None:
        """Update the running figures of a layer with those of a step."""
        for figures, value in ((self.agreement, agreement), (self.kept, kept)):
            figures[layer] = MOMENTUM * figures[layer] + (1 - MOMENTUM) * value
        self.steps[layer] += 1

"""Which layer's gates a step trains."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

MOMENTUM = 0.9
LEARNED_AGREEMENT, LEARNED_KEPT, LEARNED_STEPS = 0.75, 0.1, 100
"""A layer has learned its task when the masked prediction agrees more often, and fewer patches are kept, after more steps."""
LEARNED_WEIGHT = 0.1


class LayerChoice(nn.Module):
    """Draws the last gate that votes in a step, and remembers how the gates up to each layer do.

    Args:
        num_layers: Gates.
        weighted: Whether layers that have learned their task are drawn a tenth as often; else all alike.

    Source: the published code of arXiv:2304.06391 (`weighted_layer_distribution`).
    """

    agreement: Tensor
    kept: Tensor
    steps: Tensor

    def __init__(self, num_layers: int, weighted: bool = False) -> None:
        super().__init__()
        self.weighted = weighted
        self.register_buffer("agreement", torch.ones(num_layers))
        self.register_buffer("kept", torch.ones(num_layers))
        self.register_buffer("steps", torch.zeros(num_layers))

    def weights(self) -> Float[Tensor, " l"]:
        """How often every layer is drawn, up to a factor."""
        learned = (self.agreement > LEARNED_AGREEMENT) & (self.kept < LEARNED_KEPT) & (self.steps > LEARNED_STEPS)
        return torch.where(learned & self.weighted, LEARNED_WEIGHT, 1.0).to(self.agreement)

    def draw(self, seed: int) -> int:
        """Draw a layer: for the same figures and the same seed the same one, in every process."""
        generator = torch.Generator().manual_seed(seed)
        return int(torch.multinomial(self.weights().cpu(), 1, generator=generator))

    def update(self, layer: int, agreement: float | Tensor, kept: float | Tensor) -> None:
        """Take a step's figures into the running ones."""
        for figures, value in ((self.agreement, agreement), (self.kept, kept)):
            figures[layer] = MOMENTUM * figures[layer] + (1 - MOMENTUM) * value
        self.steps[layer] += 1

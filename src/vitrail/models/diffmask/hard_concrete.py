"""The hard concrete distribution: a gate between 0 and 1 that is often exactly 0 or 1, and still has a gradient."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class HardConcrete:
    """Independent gates: binary concrete variables, stretched beyond [0, 1] and clamped back.

    Attributes:
        logits: Logits of the binary concrete variables.
        temperature: Below 1, values concentrate near 0 and 1.
        stretch: The interval that (0, 1) is stretched to. A gate below 0 is closed.

    Source: Louizos et al. 2018, section 2.2, arXiv:1712.01312; with the constants of Vision DiffMask, arXiv:2304.06391.

    Differs: Computed from the logits. The published code goes through their sigmoid, in which logits beyond 10 lose precision.
    """

    logits: Float[Tensor, "*shape"]
    temperature: float = 0.2
    stretch: tuple[float, float] = (-0.2, 1.0)

    DTYPE: ClassVar[torch.dtype] = torch.float32
    """Lowest precision of computation: in half precision, probabilities near 1 round to 1."""

    def log_probability_open(self) -> Float[Tensor, "*shape"]:
        """Return log P(gate > 0), the logarithm of the expected L0 norm."""
        low, high = self.stretch
        # A gate is closed where the stretched variable is below 0: where its logit is below log(-low / high).
        return nn.functional.logsigmoid(self._logits - self.temperature * math.log(-low / high))

    def sample(self, uniform: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Sample gates from uniform noise in [0, 1), in the graph."""
        low, high = self.stretch
        logits = self._logits
        epsilon = torch.finfo(logits.dtype).eps
        noise = uniform.to(logits.dtype).clamp(epsilon, 1 - epsilon).logit()
        # Beyond this bound, a probability rounds to 0 or 1.
        bound = math.log1p(-epsilon) - math.log(epsilon)
        soft = ((noise + logits.clamp(-bound, bound)) / self.temperature).sigmoid()
        return (soft * (high - low) + low).clamp(0, 1)

    @property
    def _logits(self) -> Tensor:
        return self.logits.to(torch.promote_types(self.logits.dtype, self.DTYPE))

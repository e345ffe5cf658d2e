"""Chance: the control that every comparison needs."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch

from vitrail.adapters import Check
from vitrail.core.types import Images, Relevance, Targets
from vitrail.explainers.base import EXPLAINERS, Explainer


@EXPLAINERS.register("random")
@final
@dataclass(frozen=True, eq=False)
class RandomRelevance(Explainer):
    """Uniform noise in [0, 1), drawn per image from the image itself, so that batches and single images agree.

    Args:
        model: Any classifier.
        seed: Another seed, another noise.
    """

    seed: int = 0

    paper: ClassVar[str] = "control"
    needs_model: ClassVar[str] = "any"
    relies_on: ClassVar[tuple[Check, ...]] = ()

    def relevance(self, images: Images, targets: Targets) -> Relevance:
        rows, cols = self.model.grid_size(images)
        maps = []
        for image in images.cpu().float():
            fingerprint = int(image.double().sum().mul(1e6).round().remainder(2**31))
            # The generator reads 32 bits of its seed: mix, do not append.
            generator = torch.Generator().manual_seed((fingerprint + self.seed * 1_000_003) % 2**32)
            maps.append(torch.rand(rows, cols, generator=generator, dtype=torch.float32, device="cpu"))
        return torch.stack(maps).to(images)

"""Random relevance: the control that every comparison needs."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from vitrail.adapters import Check
from vitrail.core.types import Images
from vitrail.explainers.base import EXPLAINERS, Attribution, ChooseTargets, Explainer


@EXPLAINERS.register("random")
@final
@dataclass(frozen=True, eq=False)
class RandomRelevance(Explainer):
    """Uniform noise in [0, 1), seeded by the image itself, so that batches and single images agree.

    Args:
        model: Any classifier.
        seed: Changes the noise of all images.
    """

    seed: int = 0

    paper: ClassVar[str] = "control"
    is_control: ClassVar[bool] = True
    needs_class: ClassVar[bool] = False
    needs_model: ClassVar[str] = "any"
    relies_on: ClassVar[tuple[Check, ...]] = ()

    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        logits, grid_size = self.model.logits(images), self.model.grid_size(images)
        maps = torch.stack([self._draw_map(image, grid_size) for image in images.cpu().float()])
        return Attribution(logits, choose(logits), maps.to(images))

    def _draw_map(self, image: Tensor, grid_size: tuple[int, int]) -> Tensor:
        fingerprint = int(image.double().sum().mul(1e6).round().remainder(2**31))
        # Generators use 32 bits of their seed, so the two numbers are mixed instead of concatenated.
        generator = torch.Generator().manual_seed((fingerprint + self.seed * 1_000_003) % 2**32)
        return torch.rand(*grid_size, generator=generator, dtype=torch.float32, device="cpu")

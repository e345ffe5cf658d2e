"""Input x gradient and integrated gradients on embedded patches."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor

from vitrail.adapters import Check
from vitrail.adapters.memory import run_in_batches
from vitrail.core.baselines import check_baseline
from vitrail.core.errors import InvalidInputError
from vitrail.core.precision import at_least_float32
from vitrail.core.types import Images
from vitrail.explainers._gradients import target_gradients
from vitrail.explainers._libra import balanced_gradients
from vitrail.explainers.base import EXPLAINERS, Attribution, ChooseTargets, Explainer


@EXPLAINERS.register("input-x-gradient")
@final
@dataclass(frozen=True, eq=False)
class InputXGradient(Explainer):
    """Embedded patch times the gradient of the target logit: the drop of a linear logit if the patch were zero.

    Args:
        model: Any ViT.
        libra: Balance gradients with LibraGrad, see `vitrail.explainers._libra`.

    Source: Shrikumar et al. 2016, arXiv:1605.01713.

    Differs: taken at the embedded patches, before positions; gradients at the pixels are noisier.
    """

    libra: bool = False

    paper: ClassVar[str] = "Shrikumar et al. 2016, arXiv:1605.01713"
    needs_gradients: ClassVar[bool] = True
    relies_on: ClassVar[tuple[Check, ...]] = ("parts", "gradients")

    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        grid_size = self.vit.grid_size(images)
        patches = self.vit.patch_embed(images).detach().requires_grad_()
        with balanced_gradients(self.vit, enabled=self.libra):
            logits = self.vit.forward_tokens(self.vit.assemble(patches, grid_size), grid_size)
        targets = choose(logits)
        [gradient] = target_gradients(logits, targets, [patches])
        return Attribution(logits, targets, (patches.detach() * gradient).sum(-1).unflatten(1, grid_size))


@EXPLAINERS.register("integrated-gradients")
@final
@dataclass(frozen=True, eq=False)
class IntegratedGradients(Explainer):
    """The gradient of the target logit, integrated along the straight line from a baseline's embedded patches to the image's.

    Relevance summed over the grid, plus `bias` (the baseline's logit), is the logit, up to the quadrature error.

    Args:
        model: Any ViT.
        num_steps: Number of points of the Gauss-Legendre quadrature.
        baseline: Name in `vitrail.core.baselines`.

    Source: Sundararajan et al. 2017, arXiv:1703.01365.

    Differs: integrates between embedded patches instead of pixels, which is the same integral, since patches are embedded linearly.
    """

    num_steps: int = 50
    baseline: str = "zero"

    paper: ClassVar[str] = "Sundararajan et al. 2017, arXiv:1703.01365"
    needs_gradients: ClassVar[bool] = True
    relies_on: ClassVar[tuple[Check, ...]] = ("parts", "gradients")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_baseline(self.baseline)
        if self.num_steps < 1:
            raise InvalidInputError(f"expected at least 1 step, got {self.num_steps}")

    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        grid_size = self.vit.grid_size(images)
        with torch.no_grad():
            logits = self.vit.logits(images)
            targets = choose(logits)
            replacement = self.model.baseline(self.baseline, images)
            bias = self.vit.logits(replacement).expand(len(images), -1).gather(1, targets[:, None]).squeeze(1)
            end_patches, start_patches = self.vit.patch_embed(images), self.vit.patch_embed(replacement)
        difference = at_least_float32(end_patches) - at_least_float32(start_patches)
        quadrature = np.polynomial.legendre.leggauss(self.num_steps)
        nodes, weights = (torch.tensor(numbers, dtype=difference.dtype, device=difference.device) for numbers in quadrature)
        shares = (nodes + 1) / 2

        def integrand(points: slice) -> Tensor:
            point = torch.arange(points.start, points.stop, device=images.device)
            image, step = point // self.num_steps, point % self.num_steps
            share = shares[step][:, None, None]
            patches = (end_patches[image] - (1 - share) * difference[image]).to(end_patches.dtype).requires_grad_()
            point_logits = self.vit.forward_tokens(self.vit.assemble(patches, grid_size), grid_size)
            [gradient] = target_gradients(point_logits, targets[image], [patches], allow_zero=True)
            # Reduce to one number per patch at once: the gradients of all points would fill the memory.
            return (difference[image] * gradient).sum(-1) * weights[step, None] / 2

        # A pass with a graph takes about ten times the memory of one without.
        bytes_each = 10 * self.vit.bytes_per_pass(difference.shape[1], difference.shape[2], difference.element_size())
        terms = run_in_batches(integrand, len(images) * self.num_steps, bytes_each, images.device)
        relevance = terms.unflatten(0, (len(images), self.num_steps)).sum(1)
        return Attribution(logits, targets, relevance.unflatten(1, grid_size), bias)

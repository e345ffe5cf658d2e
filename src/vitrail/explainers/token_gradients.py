"""Input x gradient and integrated gradients, on embedded patches."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor

from vitrail.adapters import Check
from vitrail.adapters.memory import in_batches
from vitrail.core.baselines import check_baseline
from vitrail.core.errors import InvalidInputError
from vitrail.core.types import Images
from vitrail.explainers._gradients import target_gradients
from vitrail.explainers._libra import balanced_gradients
from vitrail.explainers._precision import at_least_single
from vitrail.explainers.base import EXPLAINERS, Attribution, ChooseTargets, OwnPassExplainer


@EXPLAINERS.register("input-x-gradient")
@final
@dataclass(frozen=True, eq=False)
class InputXGradient(OwnPassExplainer):
    """Embedded patch times the target logit's gradient: what the logit would lose if it were linear and the patch were zero.

    Args:
        model: Any ViT.
        libra: Balance the gradients; see `vitrail.explainers._libra`.

    Source: Shrikumar et al. 2016, arXiv:1605.01713.

    Differs: at the embedded patches, before positions, not at the pixels, whose gradients are noise.
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
class IntegratedGradients(OwnPassExplainer):
    """The target logit's gradient, integrated on the straight way from a baseline's embedded patches to the image's.

    Relevance summed over the grid, plus `bias` (the baseline's logit), is the logit, up to the error of the integral.

    Args:
        model: Any ViT.
        num_steps: Points of a Gauss-Legendre quadrature.
        baseline: Name in `vitrail.core.baselines`.

    Source: Sundararajan et al. 2017, arXiv:1703.01365.

    Differs: between embedded patches, not between pixels: the same integral, since patches are embedded linearly.
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
            start = self.vit.logits(replacement).expand(len(images), -1).gather(1, targets[:, None]).squeeze(1)
            end_patches, start_patches = self.vit.patch_embed(images), self.vit.patch_embed(replacement)
        difference = at_least_single(end_patches) - at_least_single(start_patches)
        quadrature = np.polynomial.legendre.leggauss(self.num_steps)
        nodes, weights = (torch.tensor(part, dtype=difference.dtype, device=difference.device) for part in quadrature)
        shares = (nodes + 1) / 2

        def gradients(points: slice) -> Tensor:
            at = torch.arange(points.start, points.stop, device=images.device)
            image, share = at // self.num_steps, shares[at % self.num_steps][:, None, None]
            patches = (end_patches[image] - (1 - share) * difference[image]).to(end_patches.dtype).requires_grad_()
            at_point = self.vit.forward_tokens(self.vit.assemble(patches, grid_size), grid_size)
            [gradient] = target_gradients(at_point, targets[image], [patches], allow_zero=True)
            # One number a patch is kept of every point: whole gradients of all points would fill the memory.
            return (difference[image] * gradient).sum(-1) * weights[at % self.num_steps, None] / 2

        # A graph holds about ten times what a plain pass does.
        bytes_each = 10 * self.vit.bytes_per_pass(difference.shape[1], difference.shape[2], difference.element_size())
        parts = in_batches(gradients, len(images) * self.num_steps, bytes_each, images.device)
        relevance = parts.unflatten(0, (len(images), self.num_steps)).sum(1)
        return Attribution(logits, targets, relevance.unflatten(1, grid_size), start)

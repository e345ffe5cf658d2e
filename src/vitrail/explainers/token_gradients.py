"""Input x gradient and integrated gradients, on embedded patches or on pixels."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vitrail.adapters import Check, Classifier, ViTAdapter
from vitrail.adapters.cells import sum_cells
from vitrail.adapters.memory import run_in_batches
from vitrail.core.baselines import check_baseline
from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.core.float32 import at_least_float32
from vitrail.core.types import Images, Logits, Relevance
from vitrail.explainers._gradients import graph_bytes, target_gradients
from vitrail.explainers._libra import balanced_gradients
from vitrail.explainers.base import EXPLAINERS, Attribution, ChooseTargets, Explainer


@EXPLAINERS.register("input-x-gradient")
@final
@dataclass(frozen=True, eq=False)
class InputXGradient(Explainer):
    """Input times the gradient of the target logit: the drop of a linear logit if the input were zero.

    Args:
        model: Any classifier.
        libra: Balance gradients with LibraGrad, see `vitrail.explainers._libra`; needs a ViT.

    Source: Shrikumar et al. 2016, arXiv:1605.01713.

    Differs: on a ViT, taken at the embedded patches, before positions; gradients at the pixels are noisier. On other networks, taken at
    the normalized pixels and summed over the pixels and channels of every cell.
    """

    libra: bool = False

    paper: ClassVar[str] = "Shrikumar et al. 2016, arXiv:1605.01713"
    needs_gradients: ClassVar[bool] = True
    needs_model: ClassVar[str] = "any"
    relies_on: ClassVar[tuple[Check, ...]] = ("parts", "gradients")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.libra and not isinstance(self.model, ViTAdapter):
            raise UnsupportedModelError(
                f"libra balances the attention of a Vision Transformer, and {self.model.name} is none; leave it out"
            )

    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        source = _Source(self.model, images)
        inputs = source.embed(images).detach().requires_grad_()
        with balanced_gradients(self.vit) if self.libra else nullcontext():
            logits = source.logits(inputs)
        targets = choose(logits)
        [gradient] = target_gradients(logits, targets, [inputs])
        return Attribution(logits, targets, source.to_cells(inputs.detach() * gradient))


@EXPLAINERS.register("integrated-gradients")
@final
@dataclass(frozen=True, eq=False)
class IntegratedGradients(Explainer):
    """The gradient of the target logit, integrated along the straight line from a baseline to the image.

    Relevance summed over the grid, plus `bias` (the baseline's logit), is the logit, up to the quadrature error.

    Args:
        model: Any classifier.
        num_steps: Number of points of the Gauss-Legendre quadrature.
        baseline: Name in `vitrail.core.baselines`.

    Source: Sundararajan et al. 2017, arXiv:1703.01365.

    Differs: on a ViT, integrates between embedded patches instead of pixels, which is the same integral where patches are embedded
    linearly. On other networks, integrates between pixels, and sums over the pixels and channels of every cell.
    """

    num_steps: int = 50
    baseline: str = "zero"

    paper: ClassVar[str] = "Sundararajan et al. 2017, arXiv:1703.01365"
    needs_gradients: ClassVar[bool] = True
    batches_passes: ClassVar[bool] = True
    needs_model: ClassVar[str] = "any"
    relies_on: ClassVar[tuple[Check, ...]] = ("parts", "gradients")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_baseline(self.baseline)
        if self.num_steps < 1:
            raise InvalidInputError(f"expected at least 1 step, got {self.num_steps}")

    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        source = _Source(self.model, images)
        with torch.no_grad():
            logits = self.model.logits(images)
            targets = choose(logits)
            replacement = self.model.baseline(self.baseline, images)
            bias = self.model.logits(replacement).expand(len(images), -1).gather(1, targets[:, None]).squeeze(1)
            end, start = source.embed(images), source.embed(replacement)
        difference = at_least_float32(end) - at_least_float32(start)
        quadrature = np.polynomial.legendre.leggauss(self.num_steps)
        nodes, weights = (torch.tensor(numbers, dtype=difference.dtype, device=difference.device) for numbers in quadrature)
        shares = (nodes + 1) / 2

        def integrand(points: slice) -> Tensor:
            point = torch.arange(points.start, points.stop, device=images.device)
            image, step = point // self.num_steps, point % self.num_steps
            share = shares[step].view(-1, *[1] * (difference.ndim - 1))
            inputs = (end[image] - (1 - share) * difference[image]).to(end.dtype).requires_grad_()
            [gradient] = target_gradients(source.logits(inputs), targets[image], [inputs], allow_zero=True)
            # Reduce to one number per cell at once: the gradients of all points would fill the memory.
            return source.to_cells(difference[image] * gradient).flatten(1) * weights[step, None] / 2

        memory = self.model.bytes_per_image(images), images.device, graph_bytes(self.model, images)
        terms = run_in_batches(integrand, len(images) * self.num_steps, *memory)
        relevance = terms.unflatten(0, (len(images), self.num_steps)).sum(1).unflatten(1, self.model.grid_size(images))
        return Attribution(logits, targets, relevance, bias)


class _Source:
    """Where gradients are taken: the embedded patches of a ViT, (b, n, d), the pixels of any other network."""

    def __init__(self, model: Classifier, images: Images) -> None:
        self._model, self._grid_size = model, model.grid_size(images)

    def embed(self, images: Images) -> Tensor:
        return self._model.patch_embed(images) if isinstance(self._model, ViTAdapter) else images

    def logits(self, inputs: Tensor) -> Logits:
        if not isinstance(self._model, ViTAdapter):
            return self._model.logits(inputs)
        return self._model.forward_tokens(self._model.assemble(inputs, self._grid_size), self._grid_size)

    def to_cells(self, products: Float[Tensor, "b ..."]) -> Relevance:
        """Sum what each number of the inputs contributes over every patch or cell."""
        if isinstance(self._model, ViTAdapter):
            return products.sum(-1).unflatten(1, self._grid_size)
        return sum_cells(products.sum(1), self._grid_size)

"""Logits of images of which cells or pixels are replaced by a baseline."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vitrail.adapters.cells import expand_cells
from vitrail.adapters.memory import run_in_batches
from vitrail.adapters.pixel_steps import PixelSteps, distinct_steps
from vitrail.core.errors import InvalidInputError
from vitrail.core.imputation import Imputer
from vitrail.core.types import Baseline, Images, Keep, Logits

IMPUTER_IMAGES = 20
"""How many images an imputer holds at once for every image that it changes."""


class PerturbedClassifier(ABC):
    """Abstract: runs a network on perturbed images, in pixel space, in batches that fit into memory."""

    @abstractmethod
    def grid_size(self, images: Images) -> tuple[int, int]:
        """Return rows and columns of the cells that explanations are given on."""

    @abstractmethod
    def logits(self, images: Images) -> Logits:
        """Run the network."""

    def perturbed_logits(self, images: Images, baseline: Baseline | Imputer, keep: Keep) -> Float[Tensor, "b s c"]:
        """Return logits with cells replaced by a baseline. Every perturbation metric runs through this method.

        All steps of all images are passed as one mask, so that an adapter may share work between the steps of a curve. This
        implementation makes one forward pass per step, in batches over images and steps.

        Args:
            images: A normalized batch.
            baseline: What replaces removed cells: one per image, a batch of one for all, or a function of images and visible pixels.
            keep: Over the cells of `grid_size`, row by row; True = the cell shows the image.

        Raises:
            InvalidInputError: `keep` or `baseline` does not fit the images.
        """
        grid_size = self._check_perturbation(images, baseline, keep)
        size = (images.shape[2], images.shape[3])
        num_steps, masks = keep.shape[1], keep.flatten(0, 1).unflatten(1, grid_size)

        def select(image_of: Tensor, step_of: Tensor) -> Tensor:
            return expand_cells(masks[image_of * num_steps + step_of], size)

        return self._blended_logits(images, baseline, num_steps, select)

    def perturbed_pixel_logits(
        self,
        images: Images,
        baseline: Baseline | Imputer,
        ranks: Int[Tensor, "b height width"],
        thresholds: Float[Tensor, " s"],
        keep_low: Bool[Tensor, " s"],
    ) -> Float[Tensor, "b s c"]:
        """Return logits with single pixels replaced by a baseline, from one forward pass per step.

        Args:
            images: A normalized batch.
            baseline: What replaces removed pixels: one per image, a batch of one for all, or a function of images and visible pixels.
            ranks: Order in which the pixels change: a permutation from 0 for every image.
            thresholds: Number of pixels that have changed at every step; may be fractional.
            keep_low: Whether the pixels below a step's threshold show the image (insertion), or the others (deletion).

        Raises:
            InvalidInputError: `ranks` or `baseline` does not fit the images.
        """
        if ranks.shape != (len(images), *images.shape[-2:]):
            raise InvalidInputError(
                f"expected ranks of shape {(len(images), *images.shape[-2:])}, one per pixel, got {tuple(ranks.shape)}"
            )
        self._check_baseline(images, baseline)
        if not isinstance(baseline, Tensor):
            thresholds, keep_low = thresholds.to(images.device), keep_low.to(images.device)

            def select(image_of: Tensor, step_of: Tensor) -> Tensor:
                return (ranks[image_of] < thresholds[step_of, None, None]) == keep_low[step_of, None, None]

            return self._blended_logits(images, baseline, len(thresholds), select)
        steps, index = distinct_steps(thresholds, keep_low, ranks[0].numel())
        draw = PixelSteps(images, baseline, ranks, steps).draw
        num_pairs = len(images) * len(steps)
        logits = run_in_batches(lambda batch: self.logits(draw(batch)), num_pairs, self.bytes_per_image(images), images.device)
        return logits.unflatten(0, (-1, len(steps)))[:, index]

    def _blended_logits(
        self,
        images: Images,
        baseline: Baseline | Imputer,
        num_steps: int,
        select: Callable[[Tensor, Tensor], Bool[Tensor, "pairs height width"]],
    ) -> Float[Tensor, "b s c"]:
        """Run every step of every image; `select(image indices, step indices)` returns the pixels that show the image."""

        def run(batch: slice) -> Tensor:
            pairs = torch.arange(batch.start, batch.stop, device=images.device)
            image_of, step_of = pairs // num_steps, pairs % num_steps
            visible = select(image_of, step_of)
            if not isinstance(baseline, Tensor):
                return self.logits(baseline(images[image_of], visible))
            replacement = baseline if len(baseline) == 1 else baseline[image_of]
            return self.logits(torch.where(visible.unsqueeze(1), images[image_of], replacement))

        bytes_each = self.bytes_per_image(images)
        if not isinstance(baseline, Tensor):
            bytes_each += IMPUTER_IMAGES * images[0].numel() * images.element_size()
        return run_in_batches(run, len(images) * num_steps, bytes_each, images.device).unflatten(0, (-1, num_steps))

    def bytes_per_image(self, images: Images) -> int:
        """Estimate the memory of one image's forward pass without gradients."""
        # A guess for convolutional networks: a hundred feature maps of the input's size.
        return images[0].numel() * images.element_size() * 100

    def _check_perturbation(self, images: Images, baseline: Baseline | Imputer, keep: Bool[Tensor, "..."]) -> tuple[int, int]:
        rows, cols = self.grid_size(images)
        if keep.ndim != 3 or keep.shape[0] != len(images) or keep.shape[2] != rows * cols or not keep.shape[1]:
            raise InvalidInputError(
                f"expected keep of shape ({len(images)} images, steps, {rows * cols} cells of a {rows}x{cols} grid), "
                f"got {tuple(keep.shape)}"
            )
        self._check_baseline(images, baseline)
        return rows, cols

    def _check_baseline(self, images: Images, baseline: Baseline | Imputer) -> None:
        if not isinstance(baseline, Tensor):
            return
        if baseline.shape[1:] != images.shape[1:] or len(baseline) not in (1, len(images)):
            raise InvalidInputError(
                f"expected a baseline of shape {tuple(images.shape)} or for one image, got {tuple(baseline.shape)}"
            )

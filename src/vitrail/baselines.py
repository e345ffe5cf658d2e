"""What replaces removed content, by name."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.registry import Registry
from vitrail.types import Baseline, Images

BASELINES: Registry[Callable[[Images], Baseline]] = Registry("baseline")
"""What replaces removed content: from normalised images to as many images, or to one that serves all."""


@BASELINES.register("zero")
def zero_baseline(images: Images) -> Baseline:
    """Zero after normalisation: the mean colour of the training data. Often called "black"."""
    return torch.zeros_like(images[:1])


@BASELINES.register("blur")
def blur_baseline(images: Images) -> Baseline:
    """The normalised image blurred by an 11x11 Gaussian of sigma 5, padded with zeros.

    Source: Petsiuk et al. 2018 (RISE), arXiv:1806.07421; their kernel folds the tails beyond 11 pixels back inside.
    """
    channels = images.shape[1]
    across = _folded_gaussian(11, 5.0).to(images).expand(channels, 1, 1, -1)
    blurred = nn.functional.conv2d(images, across, padding=(0, 5), groups=channels)
    return nn.functional.conv2d(blurred, across.mT, padding=(5, 0), groups=channels)


@BASELINES.register("noise")
def noise_baseline(images: Images) -> Baseline:
    """Uniform noise in [-1, 1] after normalisation: one picture for all images, the same in every run and on every machine.

    Source: the published evaluation of Vision DiffMask (Nalmpantis et al. 2023, arXiv:2304.06391), with its seed.

    Differs: There every place in a batch has noise of its own, drawn where the model runs.
    """
    generator = torch.Generator().manual_seed(123)
    noise = torch.rand(1, *images.shape[1:], generator=generator, device="cpu", dtype=torch.float32)
    return (2 * noise - 1).to(images)


def _folded_gaussian(size: int, sigma: float) -> Float[Tensor, " size"]:
    """A Gaussian of radius 4 sigma, reflected at the ends of `size` cells until it lies inside; sums to 1."""
    offsets = torch.arange(-int(4 * sigma), int(4 * sigma) + 1, dtype=torch.float64)
    weights = torch.exp(-(offsets**2) / (2 * sigma**2))
    at = (offsets.long() + size // 2) % (2 * size)
    inside = torch.where(at < size, at, 2 * size - 1 - at)
    return torch.zeros(size, dtype=torch.float64).index_add(0, inside, weights / weights.sum())

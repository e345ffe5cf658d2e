"""Baselines, the content that replaces removed cells, by name."""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.core.errors import InvalidInputError
from vitrail.core.registry import Registry, unknown_name
from vitrail.core.types import Baseline, Images

BASELINES: Registry[Callable[[Images], Baseline]] = Registry("baseline")
"""Functions from normalized images to baselines: one per image, or one for all."""

BLACK = "black"
"""Black pixels before normalization: the only baseline that depends on the preprocessing; see `Classifier.baseline`."""


def baseline_names() -> list[str]:
    """List the names that `Classifier.baseline` takes."""
    return [*BASELINES, BLACK]


def check_baseline(name: str) -> None:
    """Refuse an unknown name of a baseline.

    Raises:
        UnknownNameError: There is no such baseline.
    """
    if name not in baseline_names():
        raise unknown_name("baseline", name, baseline_names())


@BASELINES.register("zero")
def zero_baseline(images: Images) -> Baseline:
    """Return zero after normalization: the mean color of the training data, often called "black"."""
    return torch.zeros_like(images[:1])


@BASELINES.register("blur")
def blur_baseline(images: Images) -> Baseline:
    """Blur normalized images with an 11x11 Gaussian of sigma 5, padded with zeros.

    Source: Petsiuk et al. 2018 (RISE), arXiv:1806.07421; their kernel folds the tails beyond 11 pixels back inside.
    """
    return _blur(images, _make_folded_gaussian(11, 5.0))


@BASELINES.register("strong-blur")
def strong_blur_baseline(images: Images) -> Baseline:
    """Blur normalized images with a 15x15 Gaussian of sigma 7, reflected at the edges.

    Source: the published evaluation of MUTEX, 2025, DOI 10.1007/s00521-025-11591-x.
    """
    if min(images.shape[2:]) < 8:
        raise InvalidInputError(
            f"expected images of at least 8 pixels a side for strong-blur, which reflects 7 at every edge, got {tuple(images.shape[2:])}"
        )
    offsets = torch.arange(15, dtype=torch.float64, device="cpu") - 7
    weights = torch.exp(-0.5 * (offsets / 7) ** 2)
    return _blur(images, weights / weights.sum(), edges="reflect")


@BASELINES.register("mean")
def mean_baseline(images: Images) -> Baseline:
    """Return the mean of each normalized image, over pixels and channels.

    Source: the published evaluation of MUTEX, 2025, DOI 10.1007/s00521-025-11591-x.
    """
    return images.mean((1, 2, 3), keepdim=True).expand_as(images)


@BASELINES.register("normal-noise")
def normal_noise_baseline(images: Images) -> Baseline:
    """Return standard normal noise after normalization: one image for all, the same in every run and on every machine.

    Source: the published evaluation of MUTEX, 2025, DOI 10.1007/s00521-025-11591-x ("random").

    Differs: The published code draws new noise for every perturbed image, from an unseeded generator.
    """
    generator = torch.Generator().manual_seed(123)
    return torch.randn(1, *images.shape[1:], generator=generator, device="cpu", dtype=torch.float32).to(images)


@BASELINES.register("noise")
def noise_baseline(images: Images) -> Baseline:
    """Return uniform noise in [-1, 1] after normalization: one image for all, the same in every run and on every machine.

    Source: the published evaluation of Vision DiffMask (Nalmpantis et al. 2023, arXiv:2304.06391), with its seed.

    Differs: The published code draws different noise for every index in a batch, on the model's device.
    """
    generator = torch.Generator().manual_seed(123)
    noise = torch.rand(1, *images.shape[1:], generator=generator, device="cpu", dtype=torch.float32)
    return (2 * noise - 1).to(images)


def _blur(images: Images, kernel: Float[Tensor, " size"], edges: Literal["constant", "reflect"] = "constant") -> Images:
    """Blur along rows and columns; beyond the edges the image is zero or reflected."""
    channels, margin = images.shape[1], len(kernel) // 2
    across = kernel.to(images).expand(channels, 1, 1, -1)
    padded = nn.functional.pad(images, (margin,) * 4, mode=edges)
    return nn.functional.conv2d(nn.functional.conv2d(padded, across, groups=channels), across.mT, groups=channels)


def _make_folded_gaussian(size: int, sigma: float) -> Float[Tensor, " size"]:
    """Return a Gaussian of radius 4 sigma, reflected at the ends of `size` pixels until it fits; sums to 1."""
    offsets = torch.arange(-int(4 * sigma), int(4 * sigma) + 1, dtype=torch.float64, device="cpu")
    weights = torch.exp(-(offsets**2) / (2 * sigma**2))
    index = (offsets.long() + size // 2) % (2 * size)
    inside = torch.where(index < size, index, 2 * size - 1 - index)
    return torch.zeros(size, dtype=torch.float64, device="cpu").index_add(0, inside, weights / weights.sum())

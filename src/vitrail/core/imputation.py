"""Noisy linear imputation: fill hidden pixels with what the visible ones around them suggest."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vitrail.core.float32 import at_least_float32
from vitrail.core.types import Images

Imputer = Callable[[Images, Bool[Tensor, "b height width"]], Images]
"""Replaces the hidden pixels of images by what depends on the visible ones; see `impute`."""

Field = Float[Tensor, "b channels height width"]
Mask = Float[Tensor, "b 1 height width"]

NOISE = 0.01
"""Standard deviation of the noise, in units of normalized images."""

NUM_ITERATIONS = 12
"""The error is then below a tenth of the noise: tested against a direct solver."""

_STEP = 0.8
"""Damping of the Jacobi iteration."""


def impute(images: Images, visible: Bool[Tensor, "b height width"]) -> Images:
    """Replace hidden pixels by the weighted mean of their eight neighbors, and add a little noise.

    The values of all hidden pixels are solved for together: direct neighbors weigh 1/6, diagonal ones 1/12. Noise is the same in
    every run and for every image. An image without visible pixels becomes zero, the mean color of the training data.

    Args:
        images: A normalized batch.
        visible: True = the pixel shows the image.

    Source: Rong et al. 2022 (ROAD), arXiv:2202.00449.

    Differs: solves by conjugate gradients with a multigrid preconditioner, on any device, instead of a sparse direct solver; the
    published code draws new noise every time.
    """
    shown, exact = visible.unsqueeze(1).float(), at_least_float32(images)
    values = _solve(torch.where(visible.unsqueeze(1), exact, _fill(exact * shown, shown)), 1 - shown)
    generator = torch.Generator().manual_seed(123)
    noise = torch.randn(1, *images.shape[1:], generator=generator, device="cpu", dtype=torch.float32).to(values)
    return torch.where(visible.unsqueeze(1), images, (values + NOISE * noise).to(images))


def _fill(sums: Field, weights: Mask) -> Field:
    """Fill hidden pixels with the mean of the visible ones in the smallest square of 2, 4, 8 ... pixels that has any."""
    known = sums / weights.clamp_min(torch.finfo(weights.dtype).tiny)
    if max(sums.shape[2:]) == 1:
        return torch.where(weights > 0, known, 0)
    coarse = _fill(_sum_squares(sums), _sum_squares(weights))
    return torch.where(weights > 0, known, nn.functional.interpolate(coarse, size=sums.shape[2:], mode="bilinear"))


def _solve(start: Field, hidden: Mask) -> Field:
    """Solve for the hidden pixels by preconditioned conjugate gradients; visible ones keep the values of `start`."""
    apply = _laplacian(hidden)
    values, residual = start, -apply(start)
    direction = torch.zeros_like(start)
    energy = torch.ones_like(start[:, :1, :1, :1])
    for _ in range(NUM_ITERATIONS):
        correction = hidden * _cycle(residual, hidden)
        new_energy = _dot(residual, correction)
        direction = correction + _ratio(new_energy, energy) * direction
        energy, image = new_energy, apply(direction)
        step = _ratio(energy, _dot(direction, image))
        values, residual = values + step * direction, residual - step * image
    return values


def _cycle(residual: Field, hidden: Mask) -> Field:
    """Solve for the hidden pixels roughly: a few Jacobi iterations here, and the smooth rest of the error on a coarser grid."""
    apply, inverse = _laplacian(hidden), _STEP / _sum_neighbors(torch.ones_like(hidden))
    values = inverse * residual
    values = values + inverse * (residual - apply(values))
    if min(hidden.shape[2:]) > 2:
        coarse_hidden = 1 - nn.functional.max_pool2d(1 - hidden, 2, ceil_mode=True)
        coarse = _cycle(_sum_squares(residual - apply(values)) * coarse_hidden, coarse_hidden)
        rows, cols = hidden.shape[2:]
        values = values + hidden * nn.functional.interpolate(coarse, scale_factor=2)[..., :rows, :cols]
    for _ in range(2):  # As many as before, so that the preconditioner is symmetric.
        values = values + inverse * (residual - apply(values))
    return values


def _laplacian(hidden: Mask) -> Callable[[Field], Field]:
    """Return the difference of each hidden pixel, times the weights of its neighbors, from their weighted sum."""
    weights = _sum_neighbors(torch.ones_like(hidden))  # Less than 1 at the edges of the image.
    return lambda values: hidden * (weights * values - _sum_neighbors(values))


def _sum_neighbors(values: Field) -> Field:
    padded = nn.functional.pad(values, (1, 1, 1, 1))
    beside = padded[..., :-2] + padded[..., 2:]
    across = padded[..., 1:-1] / 6 + beside / 12
    return across[..., :-2, :] + across[..., 2:, :] + beside[..., 1:-1, :] / 6


def _sum_squares(values: Field) -> Float[Tensor, "b channels rows cols"]:
    """Sum squares of 2x2 pixels; at odd edges, what there is of them."""
    return nn.functional.avg_pool2d(values, 2, ceil_mode=True, divisor_override=1)


def _dot(first: Field, second: Field) -> Float[Tensor, "b 1 1 1"]:
    return (first * second).sum((1, 2, 3), keepdim=True)


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Divide; 0 where an image is solved, so that its values do not depend on the others of the batch."""
    return torch.where(denominator > 0, numerator / denominator.clamp_min(torch.finfo(denominator.dtype).tiny), 0)

"""Compare the gradient of a network's logits with their slope."""

import warnings
from collections import OrderedDict
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from vitrail.adapters.classifier import Classifier
from vitrail.adapters.memory import is_out_of_memory
from vitrail.core.float32 import at_least_float32
from vitrail.core.hooks import attributes
from vitrail.core.types import Images, Logits

PRECISE_DTYPES = (torch.float32, torch.float64)
"""Precisions in which a small change of the image shows in the logits; in others, only large errors of a gradient do."""

NUM_DIRECTIONS = 2
"""Random directions in which the gradient is compared with the slope."""


def is_slope(classifier: Classifier, image: Images, gradient: Tensor, weights: Tensor, expected: Logits) -> bool:
    """Return whether the gradient is the slope of the logits, as far as its precision tells."""
    length, scale = at_least_float32(gradient).norm(), (expected * weights).abs().max()
    if not length or not torch.isfinite(length) or not scale:
        return True
    generator = torch.Generator().manual_seed(3)
    shape = (NUM_DIRECTIONS, *image.shape[1:])
    directions = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu").to(image)
    slopes = _forward_slopes(classifier, image, directions, weights)
    if slopes is None:
        return _predicts_a_step(classifier, image, gradient, weights, scale)
    # In a random direction, a gradient predicts a slope of about its length.
    errors = slopes - (at_least_float32(directions) * gradient).flatten(1).sum(1)
    tolerance = 0.05 if image.dtype in PRECISE_DTYPES else 0.3
    return bool((errors.abs() < tolerance * length).all())


def _forward_slopes(classifier: Classifier, image: Images, directions: Tensor, weights: Tensor) -> Float[Tensor, " n"] | None:
    """Compute slopes in several directions by forward differentiation, which no backward hook changes; None where it is unsupported."""
    hooked = [part for part in classifier.module.modules() if part._backward_hooks or part._backward_pre_hooks]
    # Fused attention has no forward derivative; fused encoder layers of torch run where no gradient is asked for.
    images = image.expand_as(directions).clone().requires_grad_()
    try:
        _load_forward_derivatives()
        with (
            attributes(hooked, _backward_hooks=OrderedDict(), _backward_pre_hooks=OrderedDict()),
            sdpa_kernel(SDPBackend.MATH),
            torch.enable_grad(),
            forward_ad.dual_level(),
        ):
            logits = classifier.logits(forward_ad.make_dual(images, directions))
            tangent = forward_ad.unpack_dual(logits).tangent
    except (RuntimeError, NotImplementedError) as error:
        if is_out_of_memory(error):
            raise
        return None
    return (
        None if tangent is None or not torch.isfinite(tangent).all() else (at_least_float32(tangent) * weights).sum(1).detach()
    )


@cache
def _load_forward_derivatives() -> None:
    """Let torch load what it loads at their first use, without its warning about a call of its own."""
    with warnings.catch_warnings(), forward_ad.dual_level():
        warnings.simplefilter("ignore", FutureWarning)
        forward_ad.make_dual(torch.zeros(1, device="cpu"), torch.zeros(1, device="cpu"))


@torch.no_grad()
def _predicts_a_step(classifier: Classifier, image: Images, gradient: Tensor, weights: Tensor, scale: Tensor) -> bool:
    """Return whether a small step along the gradient changes the logits as predicted."""
    eps = torch.finfo(image.dtype).eps
    # Half precision sees large steps only, over which logits bend.
    shares, visible, tolerance = ((1e-2, 2e-3, 4e-4), 1e3, 0.03) if image.dtype in PRECISE_DTYPES else ((0.4, 0.2, 0.1), 8, 0.9)
    length = at_least_float32(gradient).norm()
    direction = at_least_float32(gradient) / length
    for share in shares:  # Where curvature or kinks spoil a step, the next one decides.
        step = share * torch.minimum(scale / length, at_least_float32(image).norm())
        if step * length < visible * eps * scale:
            return True  # The logits hardly depend on the image: the change is lost in rounding.
        moved = [
            (at_least_float32(classifier.logits((image + sign * step * direction).to(image))) * weights).sum()
            for sign in (1, -1)
        ]
        if abs(float((moved[0] - moved[1]) / (2 * step * length)) - 1) < tolerance:
            return True
    return False

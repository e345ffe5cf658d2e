"""A normalization of pixels in front of a network: found from what comes out of it, and built into a copy of the network."""

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.adapters.classifier import Classifier
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.core.types import Images

LARGE = 256.0
"""Beyond every pixel, so that the fit of a factor does not drown in rounding."""


@dataclass(frozen=True)
class Normalization:
    """What a wrapper does to images before the network inside: `images * scale + shift`, per channel.

    Attributes:
        scale: Factor per channel.
        shift: Added per channel.
    """

    scale: Float[Tensor, " channels"]
    shift: Float[Tensor, " channels"]

    def __call__(self, images: Images) -> Images:
        return images * self.scale.view(-1, 1, 1) + self.shift.view(-1, 1, 1)

    def preprocessing_before(self, inner: Preprocessing) -> Preprocessing | None:
        """Return the preprocessing of the wrapper: pixels in [0, 1] or in [0, 255]; None where its numbers fit neither."""
        mean, std = -self.shift / self.scale, 1 / self.scale
        if bool(((mean > 0) & (mean < 1) & (std > 0) & (std <= 1)).all()):
            largest = 1.0
        elif bool(((mean >= 0) & (mean < 255) & (std > 2) & (std < 256)).all()):
            largest = 255.0
        else:
            return None
        return replace(inner, mean=(0.0,) * len(mean), std=(1 / largest,) * len(mean))


def make_images(classifier: Classifier) -> Float[Tensor, "4 channels height width"]:
    """Return an image of zeros, one of `LARGE`, pixels from 0 to 1, and noise beyond them, which shows what is not linear."""
    shape = (classifier.preprocessing.num_channels, *classifier.probe_size)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(1, *shape, generator=generator, device="cpu")
    noise = 3 * torch.randn(1, *shape, generator=generator, device="cpu")
    images = torch.cat([torch.zeros_like(pixels), torch.full_like(pixels, LARGE), pixels, noise])
    return images.to(classifier.device, classifier.dtype)


def fit_normalization(images: Images, received: Tensor) -> Normalization | None:
    """Find factor and shift per channel between a module's images and those that a network inside receives; None if there are none."""
    if received.shape != images.shape or received.dtype != images.dtype:
        return None
    images, rounding = images.double(), torch.finfo(images.dtype).eps
    zero, large = (received[index].double().flatten(1).mean(1) for index in (0, 1))
    fitted = Normalization((large - zero) / LARGE, zero)
    tolerance = 8 * rounding * Normalization(fitted.scale.abs(), zero.abs())(images.abs())
    close = bool(((fitted(images) - received.double()).abs() <= tolerance).all())
    return fitted if close and bool((fitted.scale != 0).all()) else None


def normalize_input(module: nn.Module, normalization: Normalization) -> nn.Module:
    """Copy a network, sharing all weights, so that its first convolution, which embeds patches, normalizes images.

    The numbers are buffers of the copy: it moves between devices with them, and no file of weights can be mistaken for the original's.
    """
    path = next((path for path, part in module.named_modules() if isinstance(part, nn.Conv2d)), "")
    root = part = _share(module)
    for name in filter(None, path.split(".")):
        part._modules[name] = part = _share(part._modules[name])
    like = next(part.parameters())
    for name in ("scale", "shift"):
        part.register_buffer(f"normalization_{name}", getattr(normalization, name).to(like).view(-1, 1, 1))
    part.register_forward_pre_hook(_normalize, prepend=True)
    return root


def normalizes_inside(module: nn.Module) -> bool:
    """Return whether a network is a copy that normalizes its images as the wrapper that it came from."""
    return any(name.endswith("normalization_scale") for name, _ in module.named_buffers())


def _normalize(part: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (inputs[0] * part.normalization_scale + part.normalization_shift, *inputs[1:])


def _share(module: Any) -> Any:
    """Copy a module whose parts and parameters are the same objects, but may be replaced one by one."""
    shared = copy.copy(module)
    for name in ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set", "_forward_pre_hooks"):
        vars(shared)[name] = vars(module)[name].copy()
    return shared

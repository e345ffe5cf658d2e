"""Checks of the images and targets that methods are given."""

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.parameter import is_lazy

from vitrail.adapters import Classifier
from vitrail.core.errors import InvalidInputError
from vitrail.core.types import Targets


def check_images(images: Tensor, model: Classifier) -> None:
    """Check for a batch of finite images with the model's device and dtype.

    Raises:
        InvalidInputError: Anything else.
    """
    if not isinstance(images, Tensor):
        raise InvalidInputError(f"expected a batch of images as a torch.Tensor, got {type(images).__name__}")
    for name, parameter in model.module.named_parameters():
        if is_lazy(parameter) or parameter.is_meta:
            remedy = "without a shape; run it on images" if is_lazy(parameter) else "on the meta device; load them"
            raise InvalidInputError(f"expected weights of {model.name}, got {name} {remedy} first")
    if images.ndim != 4 or not len(images) or not images.is_floating_point():
        raise InvalidInputError(
            f"expected a batch of images (b, channels, height, width) of floats, got {tuple(images.shape)} of {images.dtype}"
        )
    if (images.dtype, images.device) != (model.dtype, model.device):
        raise InvalidInputError(
            f"expected images of {model.dtype} on {model.device}, like the model, got {images.dtype} on {images.device}; "
            f"convert them with images.to(model.device, model.dtype)"
        )
    if not torch.isfinite(images).all():
        raise InvalidInputError("expected finite images, got NaN or infinite values")


def check_targets(targets: Int[Tensor, "..."], num_images: int, num_classes: int) -> Targets:
    """Return targets as int64, if they are one class per image.

    Raises:
        InvalidInputError: Another number of targets, no integers, or classes that do not exist.
    """
    is_integer = not targets.is_floating_point() and targets.dtype != torch.bool
    if targets.shape != (num_images,) or not is_integer:
        raise InvalidInputError(
            f"expected {num_images} integer targets, one per image, got {tuple(targets.shape)} of {targets.dtype}"
        )
    targets = targets.long()  # Some integers have no minimum.
    if not (int(targets.min()) >= 0 and int(targets.max()) < num_classes):
        raise InvalidInputError(
            f"expected targets between 0 and {num_classes - 1}, got {int(targets.min())} to {int(targets.max())}"
        )
    return targets

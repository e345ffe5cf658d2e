"""What methods refuse: options of another kind, images and targets that do not fit."""

from numbers import Integral, Real
from typing import Any, Literal, get_args, get_origin

import torch
from jaxtyping import Int
from torch import Tensor

from vitrail.adapters import Classifier
from vitrail.core.errors import InvalidInputError
from vitrail.core.types import Targets

KINDS: dict[Any, type] = {bool: bool, int: Integral, float: Real, str: str}
"""What stands for the types of options; numpy has numbers of its own."""


def expect_kind(name: str, value: Any, annotation: Any) -> None:
    """Refuse what is no number, text or switch where an option is one, and what is none of a `Literal`'s choices."""
    if type(None) in get_args(annotation):  # An option that may be left out.
        if value is None:
            return
        annotation, *others = [kind for kind in get_args(annotation) if kind is not type(None)]
        if any(isinstance(value, kind) for kind in others):
            return
    if get_origin(annotation) is Literal and value not in get_args(annotation):
        raise InvalidInputError(f"expected {name} to be one of {', '.join(map(repr, get_args(annotation)))}, got {value!r}")
    if annotation in KINDS and (
        not isinstance(value, KINDS[annotation]) or (isinstance(value, bool) and annotation is not bool)
    ):
        raise InvalidInputError(f"expected {name} to be of type {annotation.__name__}, got {value!r}")
    if annotation is int and not -(2**63) <= value < 2**63:
        raise InvalidInputError(f"expected {name} to fit into 64 bits, got {value}")


def check_images(images: Tensor, model: Classifier) -> None:
    """Refuse what is no finite batch of images that lies where the model does, in its precision."""
    if not isinstance(images, Tensor):
        raise InvalidInputError(f"expected a batch of images as a torch.Tensor, got {type(images).__name__}")
    if images.ndim != 4 or not len(images) or not images.is_floating_point():
        raise InvalidInputError(
            f"expected a batch of images (b, channels, height, width) of floats, got {tuple(images.shape)} of {images.dtype}"
        )
    if (images.dtype, images.device) != (model.dtype, model.device):
        raise InvalidInputError(
            f"expected images of {model.dtype} on {model.device}, as the model is, got {images.dtype} on {images.device}; "
            f"bring them there by images.to(model.device, model.dtype)"
        )
    if not torch.isfinite(images).all():
        raise InvalidInputError("expected finite images, got NaN or infinite values")


def check_targets(targets: Int[Tensor, "..."], logits: Tensor) -> Targets:
    """Refuse what is not one class per image."""
    integer = not targets.is_floating_point() and targets.dtype != torch.bool
    if targets.shape != logits.shape[:1] or not integer:
        raise InvalidInputError(
            f"expected {len(logits)} integer targets, one per image, got {tuple(targets.shape)} of {targets.dtype}"
        )
    if not (int(targets.min()) >= 0 and int(targets.max()) < logits.shape[1]):
        raise InvalidInputError(
            f"expected targets between 0 and {logits.shape[1] - 1}, got {int(targets.min())} to {int(targets.max())}"
        )
    return targets.long()

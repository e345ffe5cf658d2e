"""How a loaded network's photos are prepared, where the user says so."""

from collections.abc import Sequence
from dataclasses import replace
from math import isclose
from typing import Any

import torch
from torch import nn

from vitrail.adapters.classifier import Classifier
from vitrail.adapters.input_normalization import normalizes_inside
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.adapters.resizing import MAX_RESIZED_PIXELS
from vitrail.adapters.unwrap import unwrap
from vitrail.core.errors import InvalidInputError

NUM_IMAGENET_CLASSES = 1000

BY_OPTIONS = "mean and std, crop_mode, crop_fraction and interpolation (--mean, ...)"


def set_normalization(
    classifier: Classifier, mean: float | Sequence[float] | None, std: float | Sequence[float] | None
) -> Classifier:
    """Return the classifier with a mean and a standard deviation, one number per channel or one for all; as it is if both are None.

    Raises:
        InvalidInputError: One without the other, or another number of channels.
    """
    if mean is None and std is None:
        return classifier
    if mean is None or std is None:
        raise InvalidInputError(f"expected mean and std together, got {'std' if mean is None else 'mean'} alone")
    layers = (part for part in classifier.module.modules() if isinstance(part, nn.Conv2d))
    count = next((layer.in_channels for layer in layers), classifier.preprocessing.num_channels)
    values = [tuple(given) if isinstance(given, Sequence) else (given,) for given in (mean, std)]
    both = [numbers * count if len(numbers) == 1 else numbers for numbers in values]
    if any(len(numbers) != count for numbers in both):
        raise InvalidInputError(
            f"expected mean and std of {count} numbers, one per channel, or of one for all, got {mean} and {std}"
        )
    preprocessing = replace(classifier.preprocessing, mean=both[0], std=both[1])
    if normalizes_inside(classifier.module) or unwrap(classifier.module).normalizes:
        refuse_second_normalization(preprocessing, classifier.preprocessing, classifier.name)
    return replace(classifier, preprocessing=preprocessing)


def refuse_second_normalization(preprocessing: Preprocessing, expected: Preprocessing, name: str) -> None:
    """Refuse to normalize photos of a network that normalizes its images itself: it would see other images than it was trained on.

    Args:
        preprocessing: What a user gives.
        expected: What gives the pixels that the network normalizes, from 0 to 1 or from 0 to 255.
        name: Name of the network, for the message.

    Raises:
        InvalidInputError: The preprocessing gives other pixels.
    """
    pairs = zip((*preprocessing.mean, *preprocessing.std), (*expected.mean, *expected.std), strict=False)
    if not all(isclose(given, own, rel_tol=1e-3) for given, own in pairs):
        raise InvalidInputError(
            f"expected photos of {name} not to be normalized, since it normalizes its images itself, got mean {_join(preprocessing.mean)} "
            f"and std {_join(preprocessing.std)}; give mean {_join(expected.mean)} and std {_join(expected.std)}"
        )


def set_crop(
    classifier: Classifier, crop_mode: str | None, crop_fraction: float | None, interpolation: str | None
) -> Classifier:
    """Return the classifier with photos resized and cropped in another way; as it is if all are None.

    Raises:
        InvalidInputError: A value is not one of `Preprocessing`.
    """
    if crop_mode in ("squash", "whole") and crop_fraction is None:
        crop_fraction = 1.0  # Who names these modes wants nothing cropped.
    given = {"crop_mode": crop_mode, "crop_fraction": crop_fraction, "interpolation": interpolation}
    changes: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
    return replace(classifier, preprocessing=replace(classifier.preprocessing, **changes)) if changes else classifier


def is_guessed(classifier: Classifier) -> bool:
    """Return whether a network has classes of the user's own: its weights were then trained on photos prepared as they liked.

    Reads the size of its last linear layer: the network may not run yet.
    """
    module = classifier.module
    if type(module).__module__.startswith("vitrail.") or classifier.output == "embedding":
        return False
    sizes = [layer.out_features for layer in module.modules() if isinstance(layer, nn.Linear)]
    published = (getattr(module, "pretrained_cfg", None) or {}).get("num_classes", NUM_IMAGENET_CLASSES)
    return not sizes or sizes[-1] != published


def describe_photos(preprocessing: Preprocessing, remedy: str = BY_OPTIONS) -> str:
    """Say how photos are prepared: weights alone do not tell how those were that they were trained on.

    Args:
        remedy: What to give if that is wrong.
    """
    height, width = preprocessing.size
    how = {"center": "cropped to", "squash": "stretched to", "whole": "kept whole, with sides within"}[preprocessing.crop_mode]
    mean, std = _join(preprocessing.mean), _join(preprocessing.std)
    return (
        f"photos are {how} {height}x{width} pixels (crop_fraction {preprocessing.crop_fraction:g}, "
        f"{preprocessing.interpolation}), with mean {mean} and std {std}; if the weights were trained on photos prepared in another way, "
        f"give {remedy}"
    )


def _join(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)


def set_image_size(classifier: Classifier, size: tuple[int, int]) -> Classifier:
    """Return the classifier with photos resized to height and width.

    Raises:
        InvalidInputError: The network does not take images of this size.
    """
    if size[0] * size[1] > MAX_RESIZED_PIXELS:
        raise InvalidInputError(f"expected an image_size of at most {MAX_RESIZED_PIXELS:,} pixels, got {size[0]}x{size[1]}")
    resized = replace(classifier, preprocessing=replace(classifier.preprocessing, size=size))
    try:  # Fail here rather than at the first photo. An expanded tensor takes no memory.
        resized.grid_size(torch.zeros(1, 1, 1, 1).expand(1, len(resized.preprocessing.mean), *size))
    except InvalidInputError as error:
        if classifier.build_spec is None:
            raise
        # Its file fixes how it is built, so that the options that the message may advise are none.
        height, width = classifier.preprocessing.size
        raise InvalidInputError(
            f"expected images of {height}x{width} pixels (height x width) for {classifier.name}, got {size[0]}x{size[1]}; leave out the "
            "image size, or train the network for another one (model.start_from and model.image_size of a recipe)"
        ) from error
    return resized

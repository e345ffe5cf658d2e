"""The preprocessing of published Hugging Face models, by family."""

import logging
from dataclasses import replace
from typing import Any

from vitrail.adapters.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

logger = logging.getLogger(__name__)

HALF = ((0.5,) * 3, (0.5,) * 3)
IMAGENET = (IMAGENET_MEAN, IMAGENET_STD)
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))

DEFAULT = (0.875, "center", "bicubic", IMAGENET)

FAMILIES: dict[tuple[str, ...], tuple[float, str, str, tuple[tuple[float, ...], tuple[float, ...]]]] = {
    ("vit", "ijepa", "siglip2"): (1.0, "squash", "bilinear", HALF),
    ("vit_msn", "vit_mae", "dinov3_vit"): (1.0, "squash", "bilinear", IMAGENET),
    ("beit", "data2vec-vision", "siglip"): (1.0, "squash", "bicubic", HALF),
    ("clip", "metaclip_2"): (1.0, "center", "bicubic", CLIP),
    ("deit",): (0.875, "squash", "bicubic", IMAGENET),
}
"""Crop fraction, crop mode, interpolation, and mean and std, by the `model_type` of families."""


def family_name(config: Any) -> str:
    """Return the `model_type` of a configuration; that of an image tower alone is its family's."""
    return str(getattr(config, "model_type", None)).removesuffix("_vision_model")


def vision_config(config: Any) -> Any:
    """Return the configuration of the image tower of a model of images and texts, else the configuration itself."""
    return getattr(config, "vision_config", config)


def family_preprocessing(config: Any) -> Preprocessing:
    """Return the preprocessing of a family's published models, at a model's own size."""
    vision = vision_config(config)
    family = family_name(config)
    published = (settings for families, settings in FAMILIES.items() if family in families)
    fraction, mode, interpolation, (mean, std) = next(published, DEFAULT)
    num_channels = getattr(vision, "num_channels", 3)
    if len(set(mean)) == 1:
        mean, std = mean[:1] * num_channels, std[:1] * num_channels
    return Preprocessing(_size(vision), fraction, mode, interpolation, mean, std).for_channels(num_channels)


def _size(vision: Any) -> tuple[int, int]:
    if (num_patches := getattr(vision, "num_patches", None)) is not None:  # NaFlex takes any number; these were trained.
        side = int(num_patches**0.5) * vision.patch_size
    else:
        side = getattr(vision, "image_size", 224)  # A ResNet has no image_size.
    return (side[0], side[1]) if isinstance(side, list | tuple) else (side, side)


def whole_patches(preprocessing: Preprocessing, patch_size: tuple[int, int], name: str) -> Preprocessing:
    """Round the size of images down to whole patches, as networks do that drop the last pixels, with a message.

    SigLIP of 14-pixel patches on 384 pixels sees 27 x 27 patches, 378 pixels; what it drops could not be explained.
    """
    height, width = (side - side % patch for side, patch in zip(preprocessing.size, patch_size, strict=True))
    if not preprocessing.fixed or (height, width) == preprocessing.size or not height or not width:
        return preprocessing
    published = "x".join(map(str, preprocessing.size))
    logger.info("%s sees photos of %dx%d pixels, whole patches, instead of %s", name, height, width, published)
    return replace(preprocessing, size=(height, width))

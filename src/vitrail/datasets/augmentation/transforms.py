"""Random transforms and label mixing for training: timm's and torchvision's, under named settings."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
from PIL import Image
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from timm.data import Mixup, create_transform
from torch import Tensor
from torchvision.transforms import (
    Compose,
    GaussianBlur,
    Grayscale,
    InterpolationMode,
    RandomCrop,
    RandomHorizontalFlip,
    RandomRotation,
)
from torchvision.transforms.functional import resize

from vitrail.adapters.preprocessing import Preprocessing, refuse_thin
from vitrail.core.errors import InvalidInputError
from vitrail.datasets.augmentation.detr import detr_geometry
from vitrail.datasets.folder import Transform


def _rising(values: tuple[float, float]) -> tuple[float, float]:
    if not 0 < values[0] <= values[1]:
        raise ValueError(f"expected two positive numbers, the smaller one first, got {values}")
    return values


def _shares(values: tuple[float, float] | None) -> tuple[float, float] | None:
    if values is not None and not 0 < values[0] < values[1] <= 1:
        raise ValueError(f"expected two shares of a side, the smaller one first, got {values}")
    return values


def _odd(value: int) -> int:
    if value and value % 2 == 0:
        raise ValueError(f"expected an odd number of pixels, or 0, got {value}")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_rising)]

SHIFT = 4
"""Pixels that a simple crop may lie beside the image, which is mirrored there."""


class AugmentationConfig(BaseModel):
    """How training images are varied.

    Attributes:
        crop: "resized" takes a random part of the image, of random size and shape, and resizes it; "simple" resizes the image
            to fit and shifts it by a few pixels (arXiv:2204.07118, where it goes by SRC); "detr" keeps the image's proportions and
            brings the whole of it, or a random part, to a random size (`vitrail.datasets.augmentation.detr`), for networks that take any.
        crop_scale: Smallest and largest share of the image's area in a crop that is resized.
        crop_ratio: Smallest and largest aspect ratio of a crop that is resized.
        horizontal_flip: Probability.
        color_jitter: Strength for brightness, contrast and saturation; ignored under RandAugment.
        auto_augment: A timm policy, e.g. "rand-m9-mstd0.5-inc1" (RandAugment) or "3a" (3-Augment); null for none.
        random_erasing: Probability.
        erasing_mode: What erased parts are filled with: "pixel" is noise, "rand" one random color, "const" the mean color.
        erasing_count: At most so many parts are erased.
        rotation: Largest angle in degrees, either way; 0 for none. What turns in from outside has the mean color.
        blur: Side in pixels of a Gaussian kernel, odd, of random width; 0 for none.
        noise: Standard deviation of Gaussian noise on the normalized image; 0 for none.
        mixup: Alpha of mixup; 0 for none.
        cutmix: Alpha of cutmix; 0 for none.
        cutmix_sides: Smallest and largest share of a side that cutmix takes, where it is on, instead of drawing by alpha.
        mix_mode: Whether one mixture is drawn for a batch, for every pair of images in it, or for every image.
        mix_probability: Probability that a batch is mixed at all.
        switch_probability: Probability of cutmix where both are on.
        label_smoothing: Share of the label spread over all classes.
    """

    model_config = ConfigDict(extra="forbid")

    crop: Literal["resized", "simple", "detr"] = "resized"
    crop_scale: Range = (0.08, 1.0)
    crop_ratio: Range = (3 / 4, 4 / 3)
    horizontal_flip: float = Field(0.5, ge=0, le=1)
    color_jitter: float = Field(0.3, ge=0)
    auto_augment: str | None = Field(None, pattern=r"^(rand-|augmix-|3a$|v0r?(-|$)|originalr?(-|$))")
    random_erasing: float = Field(0.0, ge=0, le=1)
    erasing_mode: Literal["pixel", "rand", "const"] = "pixel"
    erasing_count: int = Field(1, ge=1)
    rotation: float = Field(0.0, ge=0, le=180)
    blur: Annotated[int, AfterValidator(_odd)] = Field(0, ge=0)
    noise: float = Field(0.0, ge=0)
    mixup: float = Field(0.8, ge=0)
    cutmix: float = Field(1.0, ge=0)
    cutmix_sides: Annotated[tuple[float, float] | None, AfterValidator(_shares)] = None
    mix_mode: Literal["batch", "pair", "elem"] = "batch"
    mix_probability: float = Field(1.0, ge=0, le=1)
    switch_probability: float = Field(0.5, ge=0, le=1)
    label_smoothing: float = Field(0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _mixes_one_size(self) -> "AugmentationConfig":
        if self.crop == "detr" and (self.mixup or self.cutmix):
            raise ValueError(
                "expected mixup 0 and cutmix 0 with crop detr, whose images differ in size and cannot be mixed, got "
                f"mixup {self.mixup} and cutmix {self.cutmix}"
            )
        return self


@dataclass(frozen=True)
class DrawnAgain:
    """timm's random colors, drawn again where its posterize asks for 0 bits, which Pillow refuses."""

    colors: Callable[[Image.Image], Image.Image]

    def __call__(self, image: Image.Image) -> Image.Image:
        for _ in range(10):
            with suppress(ValueError):
                return self.colors(image)
        return self.colors(image)


@dataclass(frozen=True)
class Covering:
    """Resizes a photo, in its own proportions, to the smallest size that covers a target of height and width."""

    size: tuple[int, int]
    interpolation: InterpolationMode

    def __call__(self, image: Image.Image) -> Image.Image:
        scale = max(self.size[0] / image.height, self.size[1] / image.width)
        sides = [max(round(scale * side), target) for side, target in zip((image.height, image.width), self.size, strict=True)]
        refuse_thin(image, (sides[0], sides[1]))
        resized: Image.Image = resize(image, sides, self.interpolation)
        return resized


@dataclass(frozen=True)
class Noise:
    """Gaussian noise on a normalized image."""

    std: float

    def __call__(self, image: Tensor) -> Tensor:
        return image + self.std * torch.randn_like(image)


def training_transform(config: AugmentationConfig, preprocessing: Preprocessing) -> Transform:
    """Return the random transform of training images, with the network's own size and normalization.

    Raises:
        InvalidInputError: Images of differing sizes for a network that takes one size, or the other way round.
    """
    if config.crop == "detr" and preprocessing.fixed:
        raise InvalidInputError(
            f"expected data.crop_mode whole with augmentation.crop detr, whose images differ in size, got {preprocessing.crop_mode}; set "
            "data.crop_mode to whole, or augmentation.crop to resized or simple"
        )
    if config.crop != "detr" and not preprocessing.fixed:
        raise InvalidInputError(
            f"expected augmentation.crop detr with data.crop_mode whole, where images differ in size, got {config.crop}; set "
            "augmentation.crop to detr, or data.crop_mode to center or squash"
        )
    geometry, colors, normalization = create_transform(
        preprocessing.size,
        is_training=True,
        scale=config.crop_scale,
        ratio=config.crop_ratio,
        hflip=config.horizontal_flip,
        color_jitter=config.color_jitter or None,
        auto_augment=config.auto_augment,
        interpolation=preprocessing.interpolation,
        re_prob=config.random_erasing,
        re_mode=config.erasing_mode,
        re_count=config.erasing_count,
        mean=preprocessing.mean,
        std=preprocessing.std,
        separate=True,
    )
    interpolation = InterpolationMode(preprocessing.interpolation)
    if config.crop == "simple":
        covering = Covering(preprocessing.size, interpolation)
        shifted = RandomCrop(preprocessing.size, padding=SHIFT, padding_mode="reflect")
        geometry = Compose([covering, shifted, RandomHorizontalFlip(config.horizontal_flip)])
    elif config.crop == "detr":
        geometry = detr_geometry(preprocessing.size, interpolation, config.horizontal_flip)
    # timm's policies want three channels.
    to_gray = [Grayscale()] if len(preprocessing.mean) == 1 else []
    # On the normalized image, in the order of arXiv:2304.06391's code: 0 is the mean color.
    noise = [Noise(config.noise)] if config.noise else []
    turned = [RandomRotation(config.rotation)] if config.rotation else []
    blurred = [GaussianBlur(config.blur)] if config.blur else []
    return Compose([geometry, DrawnAgain(colors), *to_gray, normalization, *noise, *turned, *blurred])


def label_mixing(config: AugmentationConfig, num_classes: int) -> Callable[[Tensor, Tensor], tuple[Any, Any]] | None:
    """Return mixup / cutmix for a batch of an even number of images, or None where both are off."""
    if not config.mixup and not config.cutmix:
        return None
    mixing: Callable[[Tensor, Tensor], tuple[Any, Any]] = Mixup(
        mixup_alpha=config.mixup,
        cutmix_alpha=config.cutmix,
        cutmix_minmax=config.cutmix_sides if config.cutmix else None,
        prob=config.mix_probability,
        switch_prob=config.switch_probability,
        mode=config.mix_mode,
        label_smoothing=config.label_smoothing,
        num_classes=num_classes,
    )
    return mixing

"""Random transforms and label mixing for training, by timm and torchvision, from one configuration."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal

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
from torchvision.transforms.v2 import GaussianNoise

from vitrail.adapters.preprocessing import Preprocessing
from vitrail.adapters.resizing import refuse_thin
from vitrail.core.errors import InvalidInputError
from vitrail.datasets.augmentation.detr import detr_geometry
from vitrail.datasets.dataset import Transform


def _check_range(values: tuple[float, float]) -> tuple[float, float]:
    if not 0 < values[0] <= values[1]:
        raise ValueError(f"expected two positive numbers, the smaller one first, got {values}")
    return values


def _check_shares(values: tuple[float, float] | None) -> tuple[float, float] | None:
    if values is not None and not 0 < values[0] < values[1] <= 1:
        raise ValueError(f"expected two different shares of a side, above 0 and up to 1, the smaller one first, got {values}")
    return values


def _check_odd(value: int) -> int:
    if value and value % 2 == 0:
        raise ValueError(f"expected an odd number of pixels, or 0, got {value}")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_check_range)]

SHIFT = 4
"""Pixels by which a simple crop may reach beyond the image, which is mirrored there."""


class AugmentationConfig(BaseModel):
    """Augmentation of training images.

    Attributes:
        crop: "resized" crops a random part of the image, of random size and shape, and resizes it; "simple" resizes the image to the
            network's size and shifts it by a few pixels (Simple Random Crop, SRC, arXiv:2204.07118); "detr" resizes the image or a random
            part of it, with its aspect ratio, to a random size (`vitrail.datasets.augmentation.detr`), for networks without fixed size.
        crop_scale: Smallest and largest share of the image area in a "resized" crop.
        crop_ratio: Smallest and largest aspect ratio of a "resized" crop.
        horizontal_flip: Probability of a flip.
        color_jitter: Strength for brightness, contrast and saturation; ignored with RandAugment.
        auto_augment: A timm policy, e.g. "rand-m9-mstd0.5-inc1" (RandAugment) or "3a" (3-Augment); null for none.
        random_erasing: Probability of random erasing.
        erasing_mode: Content of erased regions: "pixel" for noise, "rand" for one random color, "const" for the mean color.
        erasing_count: Largest number of erased regions.
        rotation: Largest angle in degrees, in both directions; 0 for none. Uncovered corners get the mean color.
        blur: Side of a Gaussian kernel in pixels, odd, with random standard deviation; 0 for none.
        noise: Standard deviation of Gaussian noise on the normalized image; 0 for none.
        mixup: Alpha of mixup; 0 for none.
        cutmix: Alpha of cutmix; 0 for none.
        cutmix_sides: Smallest and largest share of a side that cutmix replaces, instead of shares drawn with alpha; ignored without cutmix.
        mix_mode: Whether mixing parameters are drawn per batch, per pair of images or per image ("elem").
        mix_probability: Probability that a batch is mixed.
        switch_probability: Probability of cutmix instead of mixup, if both are on.
        label_smoothing: Share of the label that is distributed over all classes.
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
    blur: Annotated[int, AfterValidator(_check_odd)] = Field(0, ge=0)
    noise: float = Field(0.0, ge=0)
    mixup: float = Field(0.8, ge=0)
    cutmix: float = Field(1.0, ge=0)
    cutmix_sides: Annotated[tuple[float, float] | None, AfterValidator(_check_shares)] = None
    mix_mode: Literal["batch", "pair", "elem"] = "batch"
    mix_probability: float = Field(1.0, ge=0, le=1)
    switch_probability: float = Field(0.5, ge=0, le=1)
    label_smoothing: float = Field(0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _check_mixing(self) -> "AugmentationConfig":
        if self.crop == "detr" and (self.mixup or self.cutmix):
            raise ValueError(
                "expected mixup 0 and cutmix 0 with crop detr, whose images differ in size and cannot be mixed, got "
                f"mixup {self.mixup} and cutmix {self.cutmix}"
            )
        return self


@dataclass(frozen=True)
class RedrawOnError:
    """timm's random color transform, drawn again if its posterize draws 0 bits, for which Pillow raises an error."""

    colors: Callable[[Image.Image], Image.Image]

    def __call__(self, image: Image.Image) -> Image.Image:
        for _ in range(10):
            with suppress(ValueError):
                return self.colors(image)
        return self.colors(image)


@dataclass(frozen=True)
class ResizeToCover:
    """Resize a photo, with its aspect ratio, to the smallest size that covers the target size (height, width)."""

    size: tuple[int, int]
    interpolation: InterpolationMode

    def __call__(self, image: Image.Image) -> Image.Image:
        scale = max(self.size[0] / image.height, self.size[1] / image.width)
        sides = [max(round(scale * side), target) for side, target in zip((image.height, image.width), self.size, strict=True)]
        refuse_thin(image, (sides[0], sides[1]))
        return resize(image, sides, self.interpolation)


def make_training_transform(config: AugmentationConfig, preprocessing: Preprocessing) -> Transform:
    """Return the random transform of training images, with the network's size and normalization.

    Raises:
        InvalidInputError: `config` yields images of varying size for a network with a fixed input size, or vice versa.
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
        cover = ResizeToCover(preprocessing.size, interpolation)
        shift = RandomCrop(preprocessing.size, padding=SHIFT, padding_mode="reflect")
        geometry = Compose([cover, shift, RandomHorizontalFlip(config.horizontal_flip)])
    elif config.crop == "detr":
        geometry = detr_geometry(preprocessing.size, interpolation, config.horizontal_flip)
    # timm's policies need three channels.
    to_gray = [Grayscale()] if len(preprocessing.mean) == 1 else []
    # On the normalized image, where 0 is the mean color, in the order of the published code of arXiv:2304.06391.
    noise = [GaussianNoise(sigma=config.noise, clip=False)] if config.noise else []
    rotation = [RandomRotation(config.rotation)] if config.rotation else []
    blur = [GaussianBlur(config.blur)] if config.blur else []
    return Compose([geometry, RedrawOnError(colors), *to_gray, normalization, *noise, *rotation, *blur])


def make_label_mixing(config: AugmentationConfig, num_classes: int) -> Callable[[Tensor, Tensor], tuple[Any, Any]] | None:
    """Return mixup or cutmix for batches of an even number of images, or None if both are off."""
    if not config.mixup and not config.cutmix:
        return None
    return Mixup(
        mixup_alpha=config.mixup,
        cutmix_alpha=config.cutmix,
        cutmix_minmax=config.cutmix_sides if config.cutmix else None,
        prob=config.mix_probability,
        switch_prob=config.switch_probability,
        mode=config.mix_mode,
        label_smoothing=config.label_smoothing,
        num_classes=num_classes,
    )

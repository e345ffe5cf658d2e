"""Random transforms and label mixing for training: timm's, under named settings."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

from PIL import Image
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from timm.data import Mixup, create_transform
from torch import Tensor
from torchvision.transforms import Compose, Grayscale

from vitrail.adapters.preprocessing import Preprocessing
from vitrail.data.folders import Transform


def _rising(values: tuple[float, float]) -> tuple[float, float]:
    if not 0 < values[0] <= values[1]:
        raise ValueError(f"expected two positive numbers, the smaller one first, got {values}")
    return values


Range = Annotated[tuple[float, float], AfterValidator(_rising)]


class AugmentationConfig(BaseModel):
    """How training images are varied.

    Attributes:
        crop_scale: Smallest and largest share of the image's area in a random crop.
        crop_ratio: Smallest and largest aspect ratio of a random crop.
        horizontal_flip: Probability.
        color_jitter: Strength for brightness, contrast and saturation; ignored under RandAugment.
        auto_augment: A timm policy, e.g. "rand-m9-mstd0.5-inc1" (RandAugment) or "3a" (3-Augment); null for none.
        random_erasing: Probability.
        mixup: Alpha of mixup; 0 for none.
        cutmix: Alpha of cutmix; 0 for none.
        mix_probability: Probability that a batch is mixed at all.
        switch_probability: Probability of cutmix where both are on.
        label_smoothing: Share of the label spread over all classes.
    """

    model_config = ConfigDict(extra="forbid")

    crop_scale: Range = (0.08, 1.0)
    crop_ratio: Range = (3 / 4, 4 / 3)
    horizontal_flip: float = Field(0.5, ge=0, le=1)
    color_jitter: float = Field(0.3, ge=0)
    auto_augment: str | None = Field(None, pattern=r"^(rand-|augmix-|3a$|v0r?(-|$)|originalr?(-|$))")
    random_erasing: float = Field(0.0, ge=0, le=1)
    mixup: float = Field(0.8, ge=0)
    cutmix: float = Field(1.0, ge=0)
    mix_probability: float = Field(1.0, ge=0, le=1)
    switch_probability: float = Field(0.5, ge=0, le=1)
    label_smoothing: float = Field(0.1, ge=0, lt=1)


@dataclass(frozen=True)
class DrawnAgain:
    """timm's random colours, drawn again where its posterize asks for 0 bits, which Pillow refuses."""

    colours: Callable[[Image.Image], Image.Image]

    def __call__(self, image: Image.Image) -> Image.Image:
        for _ in range(10):
            with suppress(ValueError):
                return self.colours(image)
        return self.colours(image)


def training_transform(config: AugmentationConfig, preprocessing: Preprocessing) -> Transform:
    """Return the random transform of training images, with the network's own size and normalisation."""
    geometry, colours, normalisation = create_transform(
        preprocessing.size,
        is_training=True,
        scale=config.crop_scale,
        ratio=config.crop_ratio,
        hflip=config.horizontal_flip,
        color_jitter=config.color_jitter or None,
        auto_augment=config.auto_augment,
        interpolation=preprocessing.interpolation,
        re_prob=config.random_erasing,
        mean=preprocessing.mean,
        std=preprocessing.std,
        separate=True,
    )
    # timm's policies want three channels.
    to_gray = [Grayscale()] if len(preprocessing.mean) == 1 else []
    return Compose([geometry, DrawnAgain(colours), *to_gray, normalisation])


def label_mixing(config: AugmentationConfig, num_classes: int) -> Callable[[Tensor, Tensor], tuple[Any, Any]] | None:
    """Return mixup / cutmix for a batch of an even number of images, or None where both are off."""
    if not config.mixup and not config.cutmix:
        return None
    mixing: Callable[[Tensor, Tensor], tuple[Any, Any]] = Mixup(
        mixup_alpha=config.mixup,
        cutmix_alpha=config.cutmix,
        prob=config.mix_probability,
        switch_prob=config.switch_probability,
        label_smoothing=config.label_smoothing,
        num_classes=num_classes,
    )
    return mixing

"""From a photo to what the network eats, and back to the photo's pixels."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import isfinite
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from vitrail.core.errors import ImageError, InvalidInputError
from vitrail.core.types import Images

MAX_RESIZED_PIXELS = 100_000_000

CROP_MODES = ("center", "squash", "whole")

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """Resize, center crop, scale to [0, 1], normalize: what a trained network expects.

    Args:
        size: Height and width that the network eats, in pixels. With crop_mode "whole" the two limits, in any order: of the
            shorter and of the longer side.
        crop_fraction: The crop's share of the resized image (timm's `crop_pct`); with crop_mode "whole", which crops nothing, 1.
        crop_mode: "center" keeps the aspect ratio and crops; "squash" stretches the photo, then crops; "whole" keeps the aspect
            ratio and the whole photo, so that images differ in size (`resize_within`).
        interpolation: Name of a torchvision interpolation mode.
        mean: Per channel, in [0, 1]; one number for a gray-scale network. Photos have one or three channels; networks of other
            numbers of channels take images that are prepared elsewhere.
        std: Per channel, in [0, 1].
    """

    size: tuple[int, int] = (224, 224)
    crop_fraction: float = 0.875
    crop_mode: str = "center"
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        # It may stand in a file, where anything may stand.
        if self.crop_mode not in CROP_MODES:
            raise InvalidInputError(
                f"expected crop_mode to be one of {', '.join(map(repr, CROP_MODES))}, got {self.crop_mode!r}"
            )
        if not _are_numbers((self.crop_fraction,)) or not 0 < self.crop_fraction <= 1:
            raise InvalidInputError(f"expected 0 < crop_fraction <= 1, got {self.crop_fraction}")
        if not isinstance(self.interpolation, str) or self.interpolation not in {mode.value for mode in InterpolationMode}:
            modes = ", ".join(sorted(mode.value for mode in InterpolationMode))
            raise InvalidInputError(f"unknown interpolation {self.interpolation!r}; choose one of: {modes}")
        if not _are_numbers(self.mean) or not _are_numbers(self.std) or len(self.mean) != len(self.std) or not self.mean:
            raise InvalidInputError(
                f"expected mean and std of one finite number per channel, as many of both, got {self.mean} and {self.std}"
            )
        if min(self.std) <= 0:
            raise InvalidInputError(f"expected a std above 0 in every channel, got {self.std}")
        if not _are_numbers(self.size, Integral) or len(self.size) != 2 or min(self.size) < 1:
            raise InvalidInputError(f"expected a size of two positive numbers of pixels, got {self.size}")
        height, width = self.size
        if (height / self.crop_fraction) * (width / self.crop_fraction) > MAX_RESIZED_PIXELS:
            raise InvalidInputError(
                f"expected a size of at most {MAX_RESIZED_PIXELS:,} pixels, got {height}x{width} with crop_fraction {self.crop_fraction}"
            )
        # Ignored, the default would look as if margins were cut off.
        if not self.fixed and self.crop_fraction != 1:
            raise InvalidInputError(
                f"expected crop_fraction 1 with crop_mode 'whole', which crops nothing, got {self.crop_fraction}; set crop_fraction to 1"
            )

    @property
    def num_channels(self) -> int:
        """How many channels the images have that it is made for."""
        return len(self.mean)

    def for_channels(self, num_channels: int) -> "Preprocessing":
        """The same for another network: for a gray one, mean and std of the colors averaged; others stay as they are."""
        if num_channels != 1 or self.num_channels == 1:
            return self
        return replace(self, mean=(sum(self.mean) / self.num_channels,), std=(sum(self.std) / self.num_channels,))

    @property
    def fixed(self) -> bool:
        """Whether every photo comes to an image of one size, `size`."""
        return self.crop_mode != "whole"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, ready for JSON; `from_dict` gives it back."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Preprocessing":
        """Read what `to_dict` gave."""
        frozen: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
        return cls(**frozen)

    def resized_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after resizing, before the crop."""
        if not self.fixed:
            return resize_within(height, width, min(self.size), max(self.size))
        target_height, target_width = (int(side / self.crop_fraction + 1e-6) for side in self.size)
        if self.crop_mode == "squash":
            return target_height, target_width
        if target_height * width <= target_width * height:
            return max(target_height, int(target_width * height / width)), target_width
        return target_height, max(target_width, int(target_height * width / height))

    def seen_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the image that the network gets of a photo of that size."""
        return self.size if self.fixed else self.resized_size(height, width)

    def check(self, image: Image.Image) -> None:
        """Refuse a photo so thin that resizing would blow it up beyond reason.

        Raises:
            ImageError: It is.
        """
        refuse_thin(image, self.resized_size(image.height, image.width))

    def __call__(self, image: Image.Image) -> Float[Tensor, "channels height width"]:
        """Turn a photo into one normalized image.

        Raises:
            ImageError: A photo so thin that resizing would blow it up beyond reason.
            InvalidInputError: A network that takes other images than photos.
        """
        if self.num_channels not in (1, 3):
            raise InvalidInputError(
                f"expected a network of 1 or 3 channels for photos, got a preprocessing of {self.num_channels}; prepare its images "
                "yourself, and explain them as tensors"
            )
        self.check(image)
        size, cropped = list(self.resized_size(image.height, image.width)), list(self.seen_size(image.height, image.width))
        image = image.convert("L" if self.num_channels == 1 else "RGB")
        resized = transforms.resize(image, size, InterpolationMode(self.interpolation), antialias=True)
        pixels = transforms.to_dtype(
            transforms.pil_to_tensor(transforms.center_crop(resized, cropped)), torch.float32, scale=True
        )
        return transforms.normalize(pixels, list(self.mean), list(self.std))

    def region(self, mask: Bool[np.ndarray, "rows cols"]) -> Bool[Tensor, "height width"]:
        """Bring a region of a photo, in the photo's own pixels, to what the network sees: resized and cropped as the photo is.

        Every pixel takes the nearest one's part; none is half in the region.
        """
        resized_size = list(self.resized_size(*mask.shape))
        resized = transforms.resize(Image.fromarray(mask.astype(np.uint8)), resized_size, InterpolationMode.NEAREST)
        return transforms.pil_to_tensor(transforms.center_crop(resized, list(self.seen_size(*mask.shape))))[0].bool()

    def visible_box(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Left, top, right and bottom, in the photo's own pixels, of the part that the network sees."""
        resized_height, resized_width = self.resized_size(height, width)
        cropped_height, cropped_width = self.seen_size(height, width)
        seen_height, seen_width = cropped_height / resized_height * height, cropped_width / resized_width * width
        left, top = (width - seen_width) / 2, (height - seen_height) / 2
        return max(left, 0.0), max(top, 0.0), min(left + seen_width, float(width)), min(top + seen_height, float(height))

    def denormalize(self, images: Images) -> Images:
        """Undo the normalization: pixels in [0, 1]."""
        mean, std = (torch.tensor(v, dtype=images.dtype, device=images.device).view(1, -1, 1, 1) for v in (self.mean, self.std))
        return (images * std + mean).clamp(0, 1)


def _are_numbers(values: Any, kind: Any = Real) -> bool:
    """Whether a tuple holds finite numbers alone."""
    return isinstance(values, tuple) and all(
        isinstance(value, kind) and not isinstance(value, bool) and isfinite(value) for value in values
    )


def resize_within(height: int, width: int, shorter: int, longest: int | None = None) -> tuple[int, int]:
    """Height and width, in pixels, of an image in its own proportions within two limits.

    The shorter side becomes `shorter`, unless the longer one would then exceed `longest`, which it becomes instead. The shorter side
    is rounded first and the longer one follows it, so that it may exceed `longest` a little. No side is less than a pixel.

    Args:
        height: Of the image.
        width: Of the image.
        shorter: What the shorter side becomes.
        longest: What the longer side may have; None for no limit.

    Source: Carion et al. 2020 (DETR), arXiv:2005.12872, rounded as in its code.

    Differs: An image so thin that its shorter side is rounded away keeps one pixel; DETR's code fails.
    """
    short, long = min(height, width), max(height, width)
    if longest is not None and long / short * shorter > longest:
        shorter = round(longest * short / long)
        if not shorter:
            shorter, short, long = 1, 1, longest
    longer = int(shorter * long / short)
    return (shorter, longer) if height <= width else (longer, shorter)


def refuse_thin(image: Image.Image, size: tuple[int, int]) -> None:
    """Refuse a photo so thin that resizing it, to a size of height and width, would blow it up beyond reason.

    Raises:
        ImageError: It is.
    """
    height, width = size
    if height * width > MAX_RESIZED_PIXELS:
        raise ImageError(
            f"expected a photo of ordinary proportions, got {image.width}x{image.height} pixels, which resizes to {width}x{height}; "
            "crop it first"
        )

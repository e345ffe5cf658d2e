"""Turn photos into the network's input, and map regions back to the photo's pixels."""

from dataclasses import dataclass, replace
from math import isfinite
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from PIL import Image
from torch import Tensor

from vitrail.adapters.resizing import MAX_RESIZED_PIXELS, refuse_thin, resize_within
from vitrail.adapters.spectral_photo import SpectralPhoto
from vitrail.core.errors import InvalidInputError
from vitrail.core.plain_fields import PlainFields
from vitrail.core.types import Images

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "nearest-exact": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
    "lanczos": Image.Resampling.LANCZOS,
}
"""Pillow's filters by torchvision's names. Photos are prepared by Pillow alone, since it takes seconds to import torchvision."""

CROP_MODES = ("center", "squash", "whole")

TENSOR_INTERPOLATIONS = ("bicubic", "bilinear", "nearest", "nearest-exact")
"""Interpolations of photos that are no pictures."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing(PlainFields):
    """Resize, center crop, scale to [0, 1], normalize: the preprocessing that a trained network expects.

    Args:
        size: Height and width of the network's input, in pixels. With crop_mode "whole": the limits of the shorter and of the
            longer side, in any order.
        crop_fraction: Share of the resized image that the crop covers (timm's `crop_pct`); must be 1 with crop_mode "whole".
        crop_mode: "center" keeps the aspect ratio and crops; "squash" stretches the photo, then crops; "whole" keeps the aspect
            ratio and the whole photo, so that images differ in size (`resize_within`).
        interpolation: Name of a torchvision interpolation mode.
        mean: Per channel, in [0, 1]; one number for a grayscale network. Networks with neither one nor three channels take spectral
            photos, see `vitrail.adapters.spectral_photo`.
        std: Per channel, in [0, 1].
    """

    size: tuple[int, int] = (224, 224)
    crop_fraction: float = 0.875
    crop_mode: str = "center"
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        # Values may come from a file and be of any type.
        if self.crop_mode not in CROP_MODES:
            raise InvalidInputError(
                f"expected crop_mode to be one of {', '.join(map(repr, CROP_MODES))}, got {self.crop_mode!r}"
            )
        if not _are_numbers((self.crop_fraction,)) or not 0 < self.crop_fraction <= 1:
            raise InvalidInputError(f"expected 0 < crop_fraction <= 1, got {self.crop_fraction}")
        if not isinstance(self.interpolation, str) or self.interpolation not in INTERPOLATIONS:
            raise InvalidInputError(
                f"unknown interpolation {self.interpolation!r}; choose one of: {', '.join(sorted(INTERPOLATIONS))}"
            )
        if not _are_numbers(self.mean) or not _are_numbers(self.std) or len(self.mean) != len(self.std) or not self.mean:
            raise InvalidInputError(
                f"expected mean and std of one finite number per channel, both of the same length, got {self.mean} and {self.std}"
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
        # Ignoring it would suggest that margins are cut off.
        if not self.fixed and self.crop_fraction != 1:
            raise InvalidInputError(
                f"expected crop_fraction 1 with crop_mode 'whole', which crops nothing, got {self.crop_fraction}; set crop_fraction to 1"
            )

    @property
    def num_channels(self) -> int:
        """Number of channels of the images."""
        return len(self.mean)

    def renormalize(self, images: Images, target: "Preprocessing") -> Images:
        """Return images of this preprocessing, normalized as those of another one are."""
        if (self.mean, self.std) == (target.mean, target.std):
            return images
        mean, std, new_mean, new_std = (
            images.new_tensor(values)[:, None, None] for values in (self.mean, self.std, target.mean, target.std)
        )
        return (images * std + (mean - new_mean)) / new_std

    @classmethod
    def unnormalized(cls, num_channels: int, size: tuple[int, int] = (224, 224), **fields: Any) -> "Preprocessing":
        """Return a preprocessing that leaves pixels between 0 and 1, for any number of channels."""
        return cls(size, **{"mean": (0.0,) * num_channels, "std": (1.0,) * num_channels, **fields})

    def for_channels(self, num_channels: int) -> "Preprocessing":
        """Adapt to another number of channels: for a grayscale network average mean and std over colors, else change nothing."""
        if num_channels != 1 or self.num_channels == 1:
            return self
        return replace(self, mean=(sum(self.mean) / self.num_channels,), std=(sum(self.std) / self.num_channels,))

    @property
    def fixed(self) -> bool:
        """Whether every photo becomes an image of size `size`."""
        return self.crop_mode != "whole"

    def resized_size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width after resizing, before the crop."""
        if not self.fixed:
            return resize_within(height, width, min(self.size), max(self.size))
        target_height, target_width = (int(side / self.crop_fraction + 1e-6) for side in self.size)
        if self.crop_mode == "squash":
            return target_height, target_width
        if target_height * width <= target_width * height:
            return max(target_height, int(target_width * height / width)), target_width
        return target_height, max(target_width, int(target_height * width / height))

    def seen_size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the network's input for a photo of this size."""
        return self.size if self.fixed else self.resized_size(height, width)

    def check(self, image: Image.Image) -> None:
        """Refuse a photo so thin that resizing would make it huge.

        Raises:
            ImageError: The resized photo would exceed `MAX_RESIZED_PIXELS`.
        """
        refuse_thin(image, self.resized_size(image.height, image.width))

    def __call__(self, image: Image.Image) -> Float[Tensor, "channels height width"]:
        """Turn a photo into one normalized image.

        Raises:
            ImageError: The resized photo would exceed `MAX_RESIZED_PIXELS`.
            InvalidInputError: The photo does not have the network's number of channels.
        """
        self.check(image)
        size, seen = self.resized_size(image.height, image.width), self.seen_size(image.height, image.width)
        if isinstance(image, SpectralPhoto):
            pixels = _center_crop(self._resize_samples(image, size), seen)
        else:
            resized = self._convert(image).resize(size[::-1], INTERPOLATIONS[self.interpolation])
            pixels = _center_crop(_to_tensor(resized), seen).to(torch.float32) * (1 / 255)
        mean, std = (torch.tensor(values, device="cpu").view(-1, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std

    def _convert(self, image: Image.Image) -> Image.Image:
        if self.num_channels not in (1, 3):
            raise InvalidInputError(
                f"expected a photo of {self.num_channels} channels, as the network's preprocessing, got one of 1 or 3; save it as .npy, or "
                "as TIFF with a page per channel"
            )
        return image.convert("L" if self.num_channels == 1 else "RGB")

    def _resize_samples(self, photo: SpectralPhoto, size: tuple[int, int]) -> Float[Tensor, "channels height width"]:
        if len(photo.samples) != self.num_channels:
            raise InvalidInputError(
                f"expected a photo of {self.num_channels} channels, as the network's preprocessing, got {len(photo.samples)}; pass "
                "vitrail.adapt a Preprocessing whose mean and std have one number per channel, or load the network with these numbers "
                "(--mean, --std)"
            )
        if self.interpolation not in TENSOR_INTERPOLATIONS:
            raise InvalidInputError(
                f"expected an interpolation of {', '.join(TENSOR_INTERPOLATIONS)} for photos of {self.num_channels} channels, got "
                f"{self.interpolation!r}; choose one of these"
            )
        from torchvision.transforms.v2 import InterpolationMode, functional  # noqa: PLC0415 (takes seconds)

        samples = torch.from_numpy(photo.samples)
        resized = functional.resize(samples, list(size), InterpolationMode(self.interpolation), antialias=True)
        return resized.clamp(0, 1)  # Bicubic interpolation of floating-point numbers overshoots.

    def region(self, mask: Bool[np.ndarray, "rows cols"]) -> Bool[Tensor, "height width"]:
        """Resize and crop a mask of a photo as the photo itself, by nearest neighbor.

        Args:
            mask: In the photo's own pixels.

        Returns:
            In the pixels of the network's input.
        """
        resized = Image.fromarray(mask.astype(np.uint8)).resize(self.resized_size(*mask.shape)[::-1], Image.Resampling.NEAREST)
        return _center_crop(_to_tensor(resized), self.seen_size(*mask.shape))[0].bool()

    def visible_box(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom of the part of a photo that the network sees, in the photo's own pixels."""
        resized_height, resized_width = self.resized_size(height, width)
        cropped_height, cropped_width = self.seen_size(height, width)
        seen_height, seen_width = cropped_height / resized_height * height, cropped_width / resized_width * width
        left, top = (width - seen_width) / 2, (height - seen_height) / 2
        return max(left, 0.0), max(top, 0.0), min(left + seen_width, float(width)), min(top + seen_height, float(height))

    def denormalize(self, images: Images) -> Images:
        """Undo the normalization; returns pixels in [0, 1]."""
        mean, std = (torch.tensor(v, dtype=images.dtype, device=images.device).view(1, -1, 1, 1) for v in (self.mean, self.std))
        return (images * std + mean).clamp(0, 1)


def _to_tensor(image: Image.Image) -> UInt8[Tensor, "channels height width"]:
    return torch.from_numpy(np.array(image)).view(image.height, image.width, -1).permute(2, 0, 1)


def _center_crop(
    pixels: Shaped[Tensor, "channels rows cols"], size: tuple[int, int]
) -> Shaped[Tensor, "channels height width"]:
    """Cut the center out; of an odd margin, the larger half may be on either side, as in torchvision."""
    height, width = size
    top, left = (round((whole - part) / 2) for whole, part in zip(pixels.shape[1:], size, strict=True))
    return pixels[:, top : top + height, left : left + width]


def _are_numbers(values: Any, kind: Any = Real) -> bool:
    """Return whether `values` is a tuple of finite numbers."""
    return isinstance(values, tuple) and all(
        isinstance(value, kind) and not isinstance(value, bool) and isfinite(value) for value in values
    )

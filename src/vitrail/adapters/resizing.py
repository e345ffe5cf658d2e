"""Sizes of resized photos, and their limit."""

from PIL import Image

from vitrail.core.errors import ImageError

MAX_RESIZED_PIXELS = 100_000_000
"""Largest resized photo, before the crop."""


def resize_within(height: int, width: int, shorter: int, longest: int | None = None) -> tuple[int, int]:
    """Return height and width of an image resized within two limits, keeping its aspect ratio.

    The shorter side becomes `shorter`; if the longer side would then exceed `longest`, the longer side becomes `longest` instead. The
    shorter side is rounded first and determines the longer one, which may exceed `longest` slightly. Both are at least one pixel.

    Args:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        shorter: Target for the shorter side.
        longest: Limit of the longer side; None for no limit.

    Source: Carion et al. 2020 (DETR), arXiv:2005.12872, rounded as in its code.

    Differs: An image so thin that its shorter side would round to zero keeps one pixel; DETR's code fails.
    """
    short, long = min(height, width), max(height, width)
    if longest is not None and long / short * shorter > longest:
        shorter = round(longest * short / long)
        if not shorter:
            shorter, short, long = 1, 1, longest
    longer = int(shorter * long / short)
    return (shorter, longer) if height <= width else (longer, shorter)


def refuse_thin(image: Image.Image, size: tuple[int, int]) -> None:
    """Refuse a photo so thin that resizing it to `size` (height, width) would make it huge.

    Raises:
        ImageError: The resized photo would exceed `MAX_RESIZED_PIXELS`.
    """
    height, width = size
    if height * width > MAX_RESIZED_PIXELS:
        raise ImageError(
            f"expected a photo of ordinary proportions, got {image.width}x{image.height} pixels, which resizes to {width}x{height}; "
            "crop it first"
        )

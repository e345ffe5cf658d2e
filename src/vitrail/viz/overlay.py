"""A relevance map, or a mask, laid over the photo that it explains."""

from typing import Literal

import matplotlib
import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor, nn

from vitrail.viz.ground_truth import faded_beside

SIGNED, UNSIGNED = "RdBu_r", "inferno"
"""Color maps that color-blind eyes can read: red for and blue against the class; dark to bright where nothing is negative."""

Smoothing = Literal["nearest", "bilinear"]

Palette = Literal["color", "gray"]

GRAY = "gray"
"""In place of both: light for, dark against the class; dark to light where nothing is negative."""


def heatmap(
    relevance: Float[Tensor, "rows cols"],
    size: tuple[int, int],
    smoothing: Smoothing = "nearest",
    scale: float | None = None,
    signed: bool | None = None,
    floor: float | None = None,
    palette: Palette = "color",
) -> Image.Image:
    """Color a map; opaque where relevance is strong, transparent where it is zero (signed) or at the map's smallest value.

    Maps without a sign often have a large part that all patches share, such as a probability: colors show the rest.

    Args:
        relevance: Raw relevance.
        size: Width and height of the picture in pixels.
        smoothing: "nearest" shows the patches as they are, "bilinear" blends them.
        scale: The magnitude that gets the full color; the map's own largest if None.
        signed: Red for and blue against, or dark to bright; by the map's own signs if None.
        floor: Of a map without a sign, the value that is transparent; the map's own smallest if None.
        palette: "color", or "gray", which needs no eye for colors.
    """
    full = scale if scale is not None else float(relevance.abs().max())
    corners = None if smoothing == "nearest" else False
    pixels = nn.functional.interpolate(
        relevance.detach().cpu().float()[None, None], size=(size[1], size[0]), mode=smoothing, align_corners=corners
    )
    signed = bool((relevance < 0).any()) if signed is None else signed
    zero = 0.0 if signed else min(float(relevance.min()) if floor is None else floor, full)
    strength = ((pixels[0, 0] - zero) / (full - zero)).clamp(-1, 1) if full > zero else torch.zeros(size[1], size[0])
    # The ends of the signed map are nearly black: stop before them.
    positions = 0.5 + 0.42 * strength.numpy() if signed else strength.numpy()
    colors = matplotlib.colormaps[GRAY if palette == "gray" else SIGNED if signed else UNSIGNED](positions)
    colors[..., 3] = strength.abs().sqrt().numpy()
    return Image.fromarray((colors * 255).round().astype(np.uint8), "RGBA")


def overlay(
    photo: Image.Image,
    relevance: Float[Tensor, "rows cols"],
    box: tuple[float, float, float, float],
    *,
    opacity: float = 0.75,
    smoothing: Smoothing = "nearest",
    scale: float | None = None,
    signed: bool | None = None,
    floor: float | None = None,
    palette: Palette = "color",
    side: int = 448,
) -> Image.Image:
    """Lay a map over the part of a photo that the model saw; the rest of the photo is dimmed.

    Args:
        photo: The photo, upright, at its own size.
        relevance: Raw relevance.
        box: Left, top, right and bottom of what the model saw, in the photo's pixels.
        opacity: Of the strongest color, in [0, 1].
        smoothing: See `heatmap`.
        scale: See `heatmap`.
        signed: See `heatmap`.
        floor: See `heatmap`.
        palette: See `heatmap`.
        side: Shorter side of the picture, in pixels.
    """
    canvas, seen_box = underlay(photo, box, side=side)
    seen = canvas.crop(seen_box)
    colors = heatmap(relevance, seen.size, smoothing, scale, signed, floor, palette)
    colors.putalpha(colors.getchannel("A").point(lambda alpha: alpha * opacity))
    canvas.paste(Image.alpha_composite(seen.convert("RGBA"), colors).convert("RGB"), seen_box[:2])
    _frame(canvas, seen_box, "white", 2)
    return canvas


def underlay(
    photo: Image.Image, box: tuple[float, float, float, float], *, side: int = 448
) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """What a map is laid over: the photo, nearly without colors, dimmed where the model saw nothing.

    Args:
        photo: See `overlay`.
        box: See `overlay`.
        side: See `overlay`.

    Returns:
        The picture, and left, top, right and bottom of what the model saw, in its pixels.
    """
    base, seen_box = _resized(photo, box, side)
    gray = base.convert("L").convert("RGB")
    canvas = Image.blend(gray, Image.new("RGB", gray.size, "white"), 0.6)
    canvas.paste(Image.blend(gray, base, 0.25).crop(seen_box), seen_box[:2])
    return canvas, seen_box


def fade(
    photo: Image.Image,
    keep: Float[Tensor, "rows cols"],
    box: tuple[float, float, float, float],
    *,
    side: int = 448,
) -> Image.Image:
    """Leave the kept cells of a photo as they are, and fade the others, and what the model did not see.

    Colors laid over a colorful photo cannot be read; a photo without its removed cells can.

    Args:
        photo: See `overlay`.
        keep: How far each cell is kept: 1 whole, 0 not at all.
        box: See `overlay`.
        side: See `overlay`.
    """
    base, seen_box = _resized(photo, box, side)
    left, top, right, bottom = seen_box
    kept = torch.zeros(base.height, base.width)
    cells = keep.detach().cpu().float()[None, None]
    kept[top:bottom, left:right] = nn.functional.interpolate(cells, size=(bottom - top, right - left), mode="nearest")[0, 0]
    picture = faded_beside(base, kept.numpy())
    # White would not be seen on what is faded.
    _frame(picture, seen_box, "gray", 1)
    return picture


def _frame(picture: Image.Image, box: tuple[int, int, int, int], color: str, width: int) -> None:
    """Mark what the model saw, unless that is all."""
    left, top, right, bottom = box
    if box != (0, 0, *picture.size):
        ImageDraw.Draw(picture).rectangle((left, top, right - 1, bottom - 1), outline=color, width=width)


def _resized(
    photo: Image.Image, box: tuple[float, float, float, float], side: int
) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """A copy of the photo for a picture, and what the model saw in its pixels."""
    factor = side / min(photo.size)
    # A panorama is not blown up to a shorter side of 448 pixels at any length.
    factor = min(factor, 4 * side / max(photo.size))
    size = (max(round(photo.width * factor), 1), max(round(photo.height * factor), 1))
    left, top, right, bottom = (round(edge * factor) for edge in box)
    # Of a very thin photo, at least one pixel is shown.
    left, top = min(left, size[0] - 1), min(top, size[1] - 1)
    seen_box = left, top, max(right, left + 1), max(bottom, top + 1)
    return photo.resize(size, Image.Resampling.NEAREST if factor > 4 else Image.Resampling.LANCZOS), seen_box

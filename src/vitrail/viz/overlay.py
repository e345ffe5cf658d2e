"""A relevance map laid over the photo that it explains."""

from typing import Literal

import matplotlib
import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor, nn

SIGNED, UNSIGNED = "RdBu_r", "inferno"
"""Colour maps that colour-blind eyes can read: red for and blue against the class; dark to bright where nothing is negative."""

Smoothing = Literal["nearest", "bilinear"]


def heatmap(
    relevance: Float[Tensor, "rows cols"],
    size: tuple[int, int],
    smoothing: Smoothing = "nearest",
    scale: float | None = None,
    signed: bool | None = None,
) -> Image.Image:
    """Colour a map; opaque where relevance is strong, transparent where it is zero (signed) or at the map's smallest value.

    Maps without a sign often have a large part that all patches share, such as a probability: colours show the rest.

    Args:
        relevance: Raw relevance.
        size: Width and height of the picture in pixels.
        smoothing: "nearest" shows the patches as they are, "bilinear" blends them.
        scale: The magnitude that gets the full colour; the map's own largest if None.
        signed: Red for and blue against, or dark to bright; by the map's own signs if None.
    """
    full = scale if scale is not None else float(relevance.abs().max())
    corners = None if smoothing == "nearest" else False
    pixels = nn.functional.interpolate(
        relevance.detach().cpu().float()[None, None], size=(size[1], size[0]), mode=smoothing, align_corners=corners
    )
    signed = bool((relevance < 0).any()) if signed is None else signed
    zero = 0.0 if signed else min(float(relevance.min()), full)
    strength = ((pixels[0, 0] - zero) / (full - zero)).clamp(-1, 1) if full > zero else torch.zeros(size[1], size[0])
    # The ends of the signed map are nearly black: stop before them.
    positions = 0.5 + 0.42 * strength.numpy() if signed else strength.numpy()
    colours = matplotlib.colormaps[SIGNED if signed else UNSIGNED](positions)
    colours[..., 3] = strength.abs().sqrt().numpy()
    return Image.fromarray((colours * 255).round().astype(np.uint8), "RGBA")


def overlay(
    photo: Image.Image,
    relevance: Float[Tensor, "rows cols"],
    box: tuple[float, float, float, float],
    *,
    opacity: float = 0.75,
    smoothing: Smoothing = "nearest",
    scale: float | None = None,
    signed: bool | None = None,
    side: int = 448,
) -> Image.Image:
    """Lay a map over the part of a photo that the model saw; the rest of the photo is dimmed.

    Args:
        photo: The photo, upright, at its own size.
        relevance: Raw relevance.
        box: Left, top, right and bottom of what the model saw, in the photo's pixels.
        opacity: Of the strongest colour, in [0, 1].
        smoothing: See `heatmap`.
        scale: See `heatmap`.
        signed: See `heatmap`.
        side: Shorter side of the picture, in pixels.
    """
    base, factor = _resized(photo, side)
    left, top, right, bottom = (round(edge * factor) for edge in box)
    # Of a very thin photo, at least one pixel is shown.
    left, top = min(left, base.width - 1), min(top, base.height - 1)
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    gray = base.convert("L").convert("RGB")
    canvas = Image.blend(gray, Image.new("RGB", gray.size, "white"), 0.6)
    seen = Image.blend(gray, base, 0.25).crop((left, top, right, bottom))
    colours = heatmap(relevance, seen.size, smoothing, scale, signed)
    colours.putalpha(colours.getchannel("A").point(lambda alpha: alpha * opacity))
    canvas.paste(Image.alpha_composite(seen.convert("RGBA"), colours).convert("RGB"), (left, top))
    if (left, top, right, bottom) != (0, 0, *base.size):
        ImageDraw.Draw(canvas).rectangle((left, top, right - 1, bottom - 1), outline="white", width=2)
    return canvas


def _resized(photo: Image.Image, side: int) -> tuple[Image.Image, float]:
    factor = side / min(photo.size)
    # A panorama is not blown up to a shorter side of 448 pixels at any length.
    factor = min(factor, 4 * side / max(photo.size))
    size = (max(round(photo.width * factor), 1), max(round(photo.height * factor), 1))
    return photo.resize(size, Image.Resampling.NEAREST if factor > 4 else Image.Resampling.LANCZOS), factor

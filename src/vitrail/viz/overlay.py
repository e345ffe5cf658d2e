"""Heatmaps, and overlays of heatmaps or masks on the explained photo."""

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image, ImageDraw
from torch import Tensor, nn

from vitrail.viz.ground_truth import fade_outside
from vitrail.viz.palettes import Palette as Palette
from vitrail.viz.palettes import colorize, photo_colors
from vitrail.viz.smoothing import Smoothing as Smoothing
from vitrail.viz.smoothing import enlarge
from vitrail.viz.strongest import draw_outline


def heatmap(
    relevance: Float[Tensor, "rows cols"],
    size: tuple[int, int],
    smoothing: Smoothing = "auto",
    scale: float | None = None,
    signed: bool | None = None,
    floor: float | None = None,
    palette: Palette = "color",
) -> Image.Image:
    """Draw relevance as a heatmap: opaque where it is strong, transparent at zero (signed) or at its smallest value (unsigned).

    Unsigned relevance often has a large part that all patches share, such as a probability; the colors show the rest.

    Args:
        relevance: Raw relevance.
        size: Width and height of the picture in pixels.
        smoothing: How cells are enlarged.
        scale: Magnitude that gets the full color; the largest magnitude in `relevance` if None.
        signed: True for two colors, False for dark to bright; None looks for negative values.
        floor: Value that is transparent in an unsigned heatmap; the smallest value in `relevance` if None.
        palette: Colors of the heatmap.

    Returns:
        An RGBA picture.
    """
    signed = bool((relevance < 0).any()) if signed is None else signed
    return Image.fromarray(colorize(measure_strength(relevance, size, smoothing, scale, signed, floor), signed, palette))


def measure_strength(
    relevance: Float[Tensor, "rows cols"],
    size: tuple[int, int],
    smoothing: Smoothing,
    scale: float | None,
    signed: bool,
    floor: float | None,
) -> Float[np.ndarray, "height width"]:
    """Return relevance per pixel in shares of the full color, from -1 to 1; see `heatmap`."""
    full = scale if scale is not None else float(relevance.abs().max())
    pixels = enlarge(relevance, (size[1], size[0]), smoothing)
    zero = 0.0 if signed else min(float(relevance.min()) if floor is None else floor, full)
    return ((pixels - zero) / (full - zero)).clamp(-1, 1).numpy() if full > zero else np.zeros(pixels.shape, np.float32)


def overlay(
    photo: Image.Image,
    relevance: Float[Tensor, "rows cols"],
    box: tuple[float, float, float, float],
    *,
    opacity: float = 0.75,
    smoothing: Smoothing = "auto",
    scale: float | None = None,
    signed: bool | None = None,
    floor: float | None = None,
    palette: Palette = "color",
    outline: Bool[Tensor, "rows cols"] | None = None,
    side: int = 448,
) -> Image.Image:
    """Lay a heatmap over the part of a photo that the model sees; the rest of the photo is dimmed.

    The photo turns gray below the heatmap, so that the colors of the two do not mix. Arguments that are not listed are those of `heatmap`.

    Args:
        photo: The photo, upright, at its own size.
        relevance: Raw relevance.
        box: The part of the photo that the model sees: left, top, right, bottom in pixels.
        opacity: Opacity of the strongest color, in [0, 1].
        outline: Cells to outline.
        side: Shorter side of the picture in pixels.
    """
    canvas, box_in_picture = underlay(photo, box, side=side, color=photo_colors(palette))
    seen = canvas.crop(box_in_picture)
    colors = heatmap(relevance, seen.size, smoothing, scale, signed, floor, palette)
    gray = Image.composite(seen.convert("L").convert("RGB"), seen, colors.getchannel("A")).convert("RGBA")
    colors.putalpha(colors.getchannel("A").point(lambda alpha: alpha * opacity))
    colored = Image.alpha_composite(gray, colors).convert("RGB")
    canvas.paste(colored if outline is None else draw_outline(colored, outline), box_in_picture[:2])
    _draw_frame(canvas, box_in_picture, "white", 2)
    return canvas


def underlay(
    photo: Image.Image, box: tuple[float, float, float, float], *, side: int = 448, color: float = 0.0
) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """Prepare a photo for a heatmap: gray, and dimmed outside of the box that the model sees; see `overlay`.

    In gray, the photo's own colors cannot be taken for relevance.

    Args:
        color: How much of its color the photo keeps, from 0 to 1.

    Returns:
        The picture, and the box in its pixels.
    """
    base, box_in_picture = resize_photo(photo, box, side)
    gray = base.convert("L").convert("RGB")
    canvas = Image.blend(gray, Image.new("RGB", gray.size, "white"), 0.6)
    canvas.paste(Image.blend(gray, base, color).crop(box_in_picture), box_in_picture[:2])
    return canvas, box_in_picture


def fade(
    photo: Image.Image,
    keep: Float[Tensor, "rows cols"],
    box: tuple[float, float, float, float],
    *,
    outlined: bool = False,
    side: int = 448,
) -> Image.Image:
    """Draw a mask: kept cells of a photo stay unchanged, all others are faded, and so is what the model does not see.

    Args:
        keep: How far each cell is kept, from 0 to 1; other arguments are those of `overlay`.
        outlined: Whether to outline what is kept at least by half, since white parts of a photo look the same kept and faded.
    """
    base, box_in_picture = resize_photo(photo, box, side)
    left, top, right, bottom = box_in_picture
    kept = torch.zeros(base.height, base.width)
    cells = keep.detach().cpu().float()[None, None]
    kept[top:bottom, left:right] = nn.functional.interpolate(cells, size=(bottom - top, right - left), mode="nearest")[0, 0]
    picture = fade_outside(base, kept.numpy())
    if outlined:
        picture.paste(draw_outline(picture.crop(box_in_picture), keep.detach().cpu() >= 0.5), box_in_picture[:2])
    # White would not be visible on faded pixels.
    _draw_frame(picture, box_in_picture, "gray", 1)
    return picture


def _draw_frame(picture: Image.Image, box: tuple[int, int, int, int], color: str, width: int) -> None:
    """Frame the box, unless it is the whole picture."""
    left, top, right, bottom = box
    if box != (0, 0, *picture.size):
        ImageDraw.Draw(picture).rectangle((left, top, right - 1, bottom - 1), outline=color, width=width)


def resize_photo(
    photo: Image.Image, box: tuple[float, float, float, float], side: int
) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """Resize a photo, and its box with it."""
    factor = side / min(photo.size)
    # A long panorama stays smaller.
    factor = min(factor, 4 * side / max(photo.size))
    size = (max(round(photo.width * factor), 1), max(round(photo.height * factor), 1))
    left, top, right, bottom = (round(edge * factor) for edge in box)
    # A very thin photo shows at least one pixel.
    left, top = min(left, size[0] - 1), min(top, size[1] - 1)
    box_in_picture = left, top, max(right, left + 1), max(bottom, top + 1)
    return photo.resize(size, Image.Resampling.NEAREST if factor > 4 else Image.Resampling.LANCZOS), box_in_picture

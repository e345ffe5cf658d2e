"""One explained image as a picture without text, and the words and numbers that belong beside it."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from vitrail.core.errors import InvalidInputError
from vitrail.core.outputs import format_value, has_probabilities
from vitrail.explanation import Explanation
from vitrail.viz.overlay import fade, measure_strength, overlay, resize_photo
from vitrail.viz.palettes import colorize, colorize_opaque
from vitrail.viz.smoothing import choose_smoothing
from vitrail.viz.strongest import draw_outline, strongest_cells
from vitrail.viz.style import Style

OPACITY = 0.75
GAP = 8
"""Pixels between the photo and the overlay."""


@dataclass(frozen=True)
class Scale:
    """Which color means which number.

    Attributes:
        low: Relevance at the lower end.
        high: Relevance at the upper end.
        signed: Whether negative relevance has a color of its own.
        clipped: Whether stronger relevance than `high` has the color of `high`.
        unit: What the numbers are.
        divisor: What relevance is divided by in the labels: 1, or the largest magnitude for shares of it.
    """

    low: float
    high: float
    signed: bool
    clipped: bool
    unit: str
    divisor: float

    def label(self, value: float) -> str:
        """Return the text at a number of the scale."""
        return f"{value / self.divisor:.3g}"

    def end_labels(self) -> tuple[str, str]:
        """Return the texts at the lower and the upper end."""
        low, high = self.label(self.low), self.label(self.high)
        if self.signed and self.high > 0:
            low, high = (f"\u2264 {low}", f"\u2265 +{high}") if self.clipped else (low, f"+{high}")
            return f"{low} against", f"for {high}"
        return low, f"\u2265 {high}" if self.clipped else high


@dataclass(frozen=True)
class Panel:
    """A drawn image.

    Attributes:
        picture: RGB, without text.
        title: The class with its probability; below it the method, the model, and the predicted class if it is another one.
        scale: Of the colors; None if the picture has none.
        colors: The colors of the scale from low to high, as they look in the picture.
        notes: How the picture was made.
    """

    picture: Image.Image
    title: tuple[str, str]
    scale: Scale | None
    colors: UInt8[np.ndarray, "1 steps 3"]
    notes: tuple[str, ...]


def draw_panel(
    explanation: Explanation,
    style: Style,
    photo: Image.Image | None,
    box: tuple[float, float, float, float] | None = None,
    floor: float | None = None,
) -> Panel:
    """Draw the explanation of one image.

    Args:
        explanation: Of one image.
        style: How the picture looks.
        photo: The photo, upright; None if there is none.
        box: The part of the photo that the model sees: left, top, right, bottom in pixels; None for all of it.
        floor: Lower end of the colors of unsigned relevance; the smallest relevance if None.

    Raises:
        InvalidInputError: A kind that needs a photo, and there is none; the kind "error" for relevance without standard errors.
    """
    kind = style.kind or ("heatmap" if photo is None else "overlay")
    if kind == "error":
        return _draw_errors(explanation, style, photo, box)
    relevance, signed = explanation.relevance[0].detach().cpu().float(), explanation.signed
    scale = _measure_scale(explanation, relevance, style, floor)
    cells = None if style.share is None else strongest_cells(relevance, style.share, signed)
    notes, colored = [], {"smoothing": style.smoothing, "scale": scale.high, "signed": signed, "palette": style.palette}
    if kind == "heatmap":
        size = _heatmap_size(relevance, photo, box, style.side)
        strength = measure_strength(relevance, size, style.smoothing, scale.high, signed, scale.low)
        picture = Image.fromarray(colorize_opaque(strength, signed, style.palette))
        picture = picture if cells is None else draw_outline(picture, cells)
    elif photo is None:
        raise InvalidInputError(
            f"expected kept photos for the kind {kind!r}, got none; explain with keep_photos=True, or draw the kind 'heatmap' "
            "(photos are not saved with the arrays)"
        )
    else:
        box = box or (0.0, 0.0, float(photo.width), float(photo.height))
        if kind == "masked" and cells is not None:  # A style of this kind has a share.
            picture = fade(photo, cells.float(), box, outlined=True, side=style.side)
        else:
            picture = overlay(photo, relevance, box, opacity=OPACITY, side=style.side, outline=cells, **colored)  # type: ignore[arg-type]
        if kind == "side-by-side":
            picture = _beside(resize_photo(photo, box, style.side)[0], picture)
    if kind != "masked":
        notes += _describe_colors(explanation, style, scale)
    if cells is not None:
        notes.append(_describe_cells(cells, "kept" if kind == "masked" else "outlined", style.share or 0, signed))
    strip = _draw_scale(scale, style, opaque=kind == "heatmap")
    return Panel(picture, _title(explanation), None if kind == "masked" else scale, strip, tuple(notes))


def _draw_errors(
    explanation: Explanation, style: Style, photo: Image.Image | None, box: tuple[float, float, float, float] | None
) -> Panel:
    """Draw standard errors as a heatmap, and count the cells whose relevance may as well be zero."""
    error = explanation.standard_error
    if error is None:
        raise InvalidInputError(
            f"expected standard errors for the kind 'error', got relevance by {explanation.method or 'a method'} that does not sample; "
            "rise and shapley do"
        )
    errors = replace(explanation, relevance=error, bias=None, standard_error=None)
    # From zero: colors that began at the smallest error would make equal errors look unequal.
    panel = draw_panel(errors, replace(style, kind="heatmap", share=None), photo, box, floor=0.0)
    unit = "in logits" if explanation.bias is not None and has_probabilities(explanation.output) else "as relevance"
    unclear = int((explanation.relevance[0].abs() < 2 * error[0]).sum())
    return replace(
        panel,
        scale=None if panel.scale is None else replace(panel.scale, unit=f"standard error, {unit}", divisor=1.0),
        notes=(*panel.notes, f"{unclear} of {error[0].numel()} cells are within two standard errors of zero"),
    )


def _measure_scale(explanation: Explanation, relevance: Tensor, style: Style, floor: float | None) -> Scale:
    signed = explanation.signed
    largest = float(relevance.abs().max())
    low = -largest if signed else float(relevance.min()) if floor is None else floor
    high = largest if signed else float(relevance.max())
    clipped = False
    if style.scale is not None:
        low, high, clipped = (-style.scale if signed else min(low, style.scale)), float(style.scale), largest > style.scale
    if style.clip is not None:
        percentile = float(torch.quantile(relevance.abs() if signed else relevance, style.clip / 100))
        # In a map of few cells that are not zero, the percentile is zero, and everything would be as strong as anything.
        if (0.0 if signed else low) < percentile < high:
            low, high, clipped = (-percentile if signed else low), percentile, True
    if explanation.bias is None:
        return Scale(low, high, signed, clipped, "relevance, share of maximum", largest or 1.0)
    unit = "logits" if has_probabilities(explanation.output) else "output units"
    return Scale(low, high, signed, clipped, f"relevance, in {unit}", 1.0)


def _describe_colors(explanation: Explanation, style: Style, scale: Scale) -> list[str]:
    notes = []
    rows, cols = explanation.grid
    smoothing = choose_smoothing(explanation.grid, style.smoothing)
    notes.append(f"{rows}x{cols} cells" + ("" if smoothing == "nearest" else f", blended ({smoothing})"))
    if style.clip is not None:
        notes.append(
            f"colors clipped at the {style.clip:g}th percentile"
            if scale.clipped
            else f"nothing to clip at the {style.clip:g}th percentile"
        )
    return notes


def _describe_cells(cells: Tensor, word: str, share: int | float, signed: bool) -> str:
    what = "positive relevance" if signed else "relevance above its minimum"
    if not cells.any():
        return f"no {what}" if signed else "relevance is the same everywhere"
    return f"{word}: {int(cells.sum())} of {cells.numel()} cells with {share:.0%} of the {what}"


def _title(explanation: Explanation) -> tuple[str, str]:
    below = [part for part in (explanation.method, explanation.model) if part]
    if explanation.output == "embedding":
        return explanation.target_name(), " · ".join(below)
    value = format_value(float(explanation.probabilities[0, int(explanation.targets[0])]), explanation.output)
    top, top_value = explanation.top_classes(0, 1)[0]
    if has_probabilities(explanation.output) and top != explanation.target_name():
        below.append(f"predicted: {top} {format_value(top_value, explanation.output)}")
    return f"{explanation.target_name()} {value}", " · ".join(below)


def _draw_scale(scale: Scale, style: Style, opaque: bool) -> UInt8[np.ndarray, "1 steps 3"]:
    strength = np.linspace(-1 if scale.signed else 0, 1, 256, dtype=np.float32)[None]
    if opaque:
        return colorize_opaque(strength, scale.signed, style.palette)
    colors = colorize(strength, scale.signed, style.palette).astype(float)
    alpha = colors[..., 3:] / 255 * OPACITY
    # As over a gray photo.
    return (colors[..., :3] * alpha + 160 * (1 - alpha)).round().astype(np.uint8)


def _heatmap_size(
    relevance: Tensor, photo: Image.Image | None, box: tuple[float, float, float, float] | None, side: int
) -> tuple[int, int]:
    """Return width and height of a heatmap without a photo: in the proportions of what the model sees, or of the grid."""
    rows, cols = relevance.shape
    width, height = (cols, rows) if photo is None else photo.size
    if box is not None:
        width, height = round(box[2] - box[0]) or 1, round(box[3] - box[1]) or 1
    factor = min(side / min(width, height), 4 * side / max(width, height))
    return max(round(width * factor), 1), max(round(height * factor), 1)


def _beside(left: Image.Image, right: Image.Image) -> Image.Image:
    both = Image.new("RGB", (left.width + GAP + right.width, right.height), "white")
    both.paste(left, (0, 0))
    both.paste(right, (left.width + GAP, 0))
    return both

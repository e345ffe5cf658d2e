"""Write title, color bar and notes around drawn explanations, and put several into one picture."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vitrail.viz.panel import Panel, Scale

MARGIN, GAP, BAR_HEIGHT = 12, 6, 14
MIN_WIDTH = 336
"""Width of the text below and above narrow pictures."""
TITLE, TEXT = 18, 13
"""Font sizes in pixels."""
BLACK, GRAY = (24, 24, 24), (96, 96, 96)


def annotate(panel: Panel) -> Image.Image:
    """Write the title above a drawn explanation, and color bar and notes below it."""
    width = max(panel.picture.width, MIN_WIDTH)
    title, subtitle = panel.title
    above = [(line, TITLE, BLACK) for line in wrap(title, TITLE, width, 2)]
    above += [(line, TEXT, GRAY) for line in wrap(subtitle, TEXT, width, 2)]
    below = [(line, TEXT, GRAY) for line in wrap("; ".join(panel.notes), TEXT, width, 3)]
    top = MARGIN + sum(map(_line_height, (size for _, size, _ in above))) + GAP
    bar = 0 if panel.scale is None else BAR_HEIGHT + 2 * GAP + _line_height(TEXT)
    height = top + panel.picture.height + bar + GAP + sum(_line_height(size) for _, size, _ in below) + MARGIN
    canvas = Image.new("RGB", (width + 2 * MARGIN, height), "white")
    _write_lines(canvas, above, MARGIN)
    canvas.paste(panel.picture, (MARGIN + (width - panel.picture.width) // 2, top))
    if panel.scale is not None:
        _draw_bar(canvas, panel.scale, panel.colors, top + panel.picture.height + GAP)
    _write_lines(canvas, below, top + panel.picture.height + bar + GAP)
    return canvas


def arrange(pictures: Sequence[Image.Image], num_columns: int, note: str = "") -> Image.Image:
    """Put annotated pictures into rows on white, with a note below.

    Args:
        pictures: At least one.
        num_columns: Pictures per row, at most.
        note: Text below all.
    """
    rows = [pictures[start : start + num_columns] for start in range(0, len(pictures), num_columns)]
    columns = [max(row[i].width for row in rows if i < len(row)) for i in range(len(rows[0]))]
    heights = [max(picture.height for picture in row) for row in rows]
    lines = [(line, TEXT, GRAY) for line in wrap(note, TEXT, sum(columns) - 2 * MARGIN, 2)] if note else []
    canvas = Image.new(
        "RGB", (sum(columns), sum(heights) + len(lines) * _line_height(TEXT) + (MARGIN if lines else 0)), "white"
    )
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            canvas.paste(picture, (sum(columns[:j]), sum(heights[:i])))
    _write_lines(canvas, lines, sum(heights))
    return canvas


def wrap(text: str, size: int, width: int, count: int) -> list[str]:
    """Break a text into at most `count` lines of `width` pixels; dots replace what does not fit."""
    # File names need not be UTF-8 and may hold line breaks: fonts know neither.
    words = text.encode(errors="replace").decode().split()
    lines = [""]
    for word in words:
        longer = f"{lines[-1]} {word}".strip()
        if not lines[-1] or _font(size).getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > count:
        lines = [*lines[: count - 1], " ".join(lines[count - 1 :])]
    return [_shorten(line, size, width) for line in lines if line]


def _shorten(line: str, size: int, width: int) -> str:
    if _font(size).getlength(line) <= width:
        return line
    low, high = 0, len(line)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _font(size).getlength(line[:middle] + "...") <= width else (low, middle - 1)
    return line[:low].rstrip() + "..."


def _draw_bar(canvas: Image.Image, scale: Scale, colors: np.ndarray, top: int) -> None:
    left, width = MARGIN, canvas.width - 2 * MARGIN
    bar = Image.fromarray(colors).resize((width, BAR_HEIGHT), Image.Resampling.BILINEAR)
    canvas.paste(bar, (left, top))
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((left, top, left + width - 1, top + BAR_HEIGHT - 1), outline=GRAY)
    low, high = scale.end_labels()
    y = top + BAR_HEIGHT + 2
    unit, middle = _place_unit(scale, width)
    for text, x, anchor in ((low, left, "la"), (high, left + width, "ra"), (unit, left + middle, "ma")):
        draw.text((x, y), text, BLACK, _font(TEXT), anchor)


def _place_unit(scale: Scale, width: int) -> tuple[str, float]:
    """Return the unit, or the end of it that touches no label, and where its middle is below a color bar."""
    low, high = (_font(TEXT).getlength(text) for text in scale.end_labels())
    for text in (scale.unit, scale.unit.split(", ")[-1]):
        if _font(TEXT).getlength(text) + 2 * (max(low, high) + GAP) <= width:
            return text, width / 2
    return " ".join(scale.unit.split()[-2:]), (low + width - high) / 2


def _write_lines(canvas: Image.Image, lines: Sequence[tuple[str, int, tuple[int, int, int]]], top: int) -> None:
    draw = ImageDraw.Draw(canvas)
    for text, size, color in lines:
        draw.text((MARGIN, top), text, color, _font(size))
        top += _line_height(size)


def _line_height(size: int) -> int:
    return round(1.3 * size)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)

"""Contact sheets: photos as rows, methods as columns, in one picture."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from vitrail.core.files import atomic_write
from vitrail.core.listing import shorten_middle
from vitrail.core.outputs import format_value, has_probabilities, value_name
from vitrail.explanation import Explanation
from vitrail.viz.ground_truth import fade_outside
from vitrail.viz.overlay import Palette, Smoothing, fade, overlay

MAX_ROWS = 24
"""Largest number of rows on a sheet; every photo has its own overlay file."""

CELLS_PER_LINE = 7
"""On the sheet of a single photo."""

CELL_WIDTH = 2.6
"""Inches."""

MAX_BAR_LETTERS = 13.0
"""Points: larger letters would leave no room for the names of classes."""

NUM_TITLE_LINES = 3
"""Lines above a photo, at most."""


@dataclass(frozen=True)
class SheetRow:
    """One photo with its explanations.

    Attributes:
        photo: Upright, at its own size.
        box: The part of the photo that the model sees: left, top, right, bottom in pixels.
        explanations: One per column, each of this photo alone.
        title: Text above the photo; it may have several lines.
        ground_truth: True at the pixels that decide the class; drawn beside the photo if given.
        kept: By method, how far each cell is kept, from 0 to 1; these methods are drawn as masks, all others as heatmaps.
    """

    photo: Image.Image
    box: tuple[float, float, float, float]
    explanations: Sequence[Explanation]
    title: str = ""
    ground_truth: Bool[np.ndarray, "height width"] | None = None
    kept: Mapping[str, Float[Tensor, "rows cols"]] = field(default_factory=dict)

    def reduced(self, side: int = 640) -> "SheetRow":
        """Return the row with a smaller copy of the photo, which suffices for a sheet and takes less memory."""
        factor = min(side / max(self.photo.size), 1.0)
        size = (max(round(self.photo.width * factor), 1), max(round(self.photo.height * factor), 1))
        left, top, right, bottom = self.box
        across, down = size[0] / self.photo.width, size[1] / self.photo.height
        mask = self.ground_truth
        if mask is not None:
            mask = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
        box = left * across, top * down, right * across, bottom * down
        return replace(self, photo=self.photo.resize(size), box=box, ground_truth=mask)


def contact_sheet(
    rows: Sequence[SheetRow], path: str | Path, palette: Palette = "color", smoothing: Smoothing = "auto"
) -> None:
    """Draw the first `MAX_ROWS` photos with their explanations and their most probable classes.

    A single row is broken into lines. Wide sheets have large letters, since they are seen reduced.

    Args:
        rows: The photos.
        path: The PNG file.
        palette: Colors of the heatmaps.
        smoothing: How their cells are enlarged.
    """
    rows = rows[:MAX_ROWS]
    num_cells = max(len(row.explanations) + (row.ground_truth is not None) for row in rows) + 2
    num_lines = -(-num_cells // CELLS_PER_LINE) if len(rows) == 1 else len(rows)
    num_columns = -(-num_cells // num_lines) if len(rows) == 1 else num_cells
    size = min(max(9.0, 1.5 * num_columns), 20.0)
    heights = [_row_height(row, size) for row in rows] * (num_lines if len(rows) == 1 else 1)
    figure = Figure(figsize=(CELL_WIDTH * num_columns, sum(heights)), layout="constrained")
    grid = figure.subplots(num_lines, num_columns, squeeze=False, height_ratios=heights)
    for axes in grid.flat:
        axes.axis("off")
    for line, row in zip([grid.flatten()] if len(rows) == 1 else grid, rows, strict=True):
        _draw_row(list(line), row, num_cells, size, palette, smoothing)
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=110)


def _row_height(row: SheetRow, size: float) -> float:
    """Return the height of a row in inches, limited so that bars stay readable and tall photos do not fill the sheet."""
    num_lines = max(2, len(_break_title(row.title, size)))
    return 0.15 + size / 72 * 1.3 * num_lines + CELL_WIDTH * min(max(row.photo.height / row.photo.width, 0.4), 1.5)


def _draw_row(
    cells: Sequence[Axes], row: SheetRow, num_cells: int, size: float, palette: Palette, smoothing: Smoothing
) -> None:
    cells[0].imshow(row.reduced().photo)
    _write(cells[0], row.title, size)
    if row.ground_truth is not None:
        cells[1].imshow(fade_outside(row.photo, row.ground_truth))
        _write(cells[1], "ground truth", size, color="0.4")
    first = 1 + (row.ground_truth is not None)
    for cell, explanation in zip(cells[first:], row.explanations, strict=False):
        _draw_explanation(cell, row, explanation, size, palette, smoothing)
    if row.explanations[0].output != "embedding":
        cells[num_cells - 1].axis("on")
        _draw_classes(cells[num_cells - 1], row.explanations[0], size)


def _draw_explanation(
    axes: Axes, row: SheetRow, explanation: Explanation, size: float, palette: Palette, smoothing: Smoothing
) -> None:
    keep = row.kept.get(explanation.method)
    if keep is None:
        look: dict[str, Any] = {"palette": palette, "smoothing": smoothing, "signed": explanation.signed}
        axes.imshow(overlay(row.photo, explanation.relevance[0], row.box, side=320, **look))
        text = explanation.target_name()
    else:
        # Around cells that are kept by degrees, an outline would show a border that is not there.
        axes.imshow(fade(row.photo, keep, row.box, outlined=bool(((keep == 0) | (keep == 1)).all()), side=320))
        text = f"{float(keep.sum()):.0f} of {keep.numel()} cells"
    _write(axes, f"{explanation.method}: {text}", size)


def _draw_classes(axes: Axes, explanation: Explanation, size: float = 9.0) -> None:
    """Draw bars with their names and numbers inside: beside the bars, names of any length would push the other columns away."""
    size = min(size, MAX_BAR_LETTERS)
    names, values = zip(*explanation.top_classes(0, 5), strict=True)
    # Bars are placed by position, not by name: two classes may share a (shortened) name.
    positions = range(len(names))[::-1]
    axes.barh(positions, values, color="0.8")
    for position, name, value in zip(positions, names, values, strict=True):
        name = name.encode(errors="replace").decode()  # Names of folders need not be UTF-8, which is all that fonts know.
        text = f"{shorten_middle(name, _num_letters(size) - 7)}  {format_value(value, explanation.output)}"
        axes.text(0.03, position, text, transform=axes.get_yaxis_transform(), va="center", fontsize=size, parse_math=False)
    axes.set(xticks=[], yticks=[])
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.spines["left"].set(position=("data", 0), color="0.6", zorder=0)  # Bars of negative values begin here, too.
    axes.set_title(value_name(explanation.output), fontsize=size)
    if has_probabilities(explanation.output):
        axes.set(xlim=(0, 1))


def _write(axes: Axes, text: str, size: float, color: str = "black") -> None:
    """Write a title above a cell."""
    axes.set_title("\n".join(_break_title(text, size)), fontsize=size, color=color, parse_math=False)


def _break_title(text: str, size: float) -> list[str]:
    """Break a title into lines that are not wider than a cell."""
    text = text.encode(errors="replace").decode()  # File names need not be UTF-8, which is all that fonts know.
    lines = [line for part in text.splitlines() for line in textwrap.wrap(part, _num_letters(size))]
    if len(lines) <= NUM_TITLE_LINES:
        return lines
    kept = lines[: NUM_TITLE_LINES - 1]
    # Breaking dropped spaces between words, but put none into long names: take the rest from the text.
    letters = [position for position, letter in enumerate(text) if not letter.isspace()]
    start = letters[sum(not letter.isspace() for line in kept for letter in line)]
    return [*kept, shorten_middle(" ".join(text[start:].split()), _num_letters(size))]


def _num_letters(size: float) -> int:
    """Return how many letters of a size, which are about 0.62 of it wide (the digits of file names are), fit above a cell."""
    return int(CELL_WIDTH * 72 / (0.62 * size))

"""Contact sheets: photos as rows, methods as columns, in one picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from vitrail.core.files import atomic_write
from vitrail.core.outputs import has_probabilities, value_name
from vitrail.explanation import Explanation
from vitrail.viz.ground_truth import fade_outside
from vitrail.viz.overlay import fade, overlay

MAX_ROWS = 24
"""Largest number of rows on a sheet; every photo has its own overlay file."""

CELLS_PER_LINE = 7
"""On the sheet of a single photo."""


@dataclass(frozen=True)
class SheetRow:
    """One photo with its explanations.

    Attributes:
        photo: Upright, at its own size.
        box: The part of the photo that the model sees: left, top, right, bottom in pixels.
        explanations: One per column, each of this photo alone.
        title: Text above the photo.
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


def contact_sheet(rows: Sequence[SheetRow], path: str | Path) -> None:
    """Draw the first `MAX_ROWS` photos with their explanations and their most probable classes.

    A single row is broken into lines.
    """
    rows = rows[:MAX_ROWS]
    num_cells = max(len(row.explanations) + (row.ground_truth is not None) for row in rows) + 2
    num_lines = -(-num_cells // CELLS_PER_LINE) if len(rows) == 1 else len(rows)
    num_columns = -(-num_cells // num_lines) if len(rows) == 1 else num_cells
    heights = [_row_height(row.photo) for row in rows] if len(rows) > 1 else [_row_height(rows[0].photo)] * num_lines
    figure = Figure(figsize=(2.6 * num_columns, sum(heights)), layout="constrained")
    grid = figure.subplots(num_lines, num_columns, squeeze=False, height_ratios=heights)
    for axes in grid.flat:
        axes.axis("off")
    for line, row in zip([grid.flatten()] if len(rows) == 1 else grid, rows, strict=True):
        _draw_row(list(line), row, num_cells)
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=110)


def _row_height(photo: Image.Image) -> float:
    """Return the height of a row in inches, limited so that bars stay readable and tall photos do not fill the sheet."""
    return 0.4 + 2.6 * min(max(photo.height / photo.width, 0.6), 1.5)


def _draw_row(cells: Sequence[Axes], row: SheetRow, num_cells: int) -> None:
    cells[0].imshow(row.reduced().photo)
    cells[0].set_title(_shorten(row.title), fontsize=9)
    if row.ground_truth is not None:
        cells[1].imshow(fade_outside(row.photo, row.ground_truth))
        cells[1].set_title("ground truth", fontsize=9, color="0.4")
    first = 1 + (row.ground_truth is not None)
    for cell, explanation in zip(cells[first:], row.explanations, strict=False):
        _draw_explanation(cell, row, explanation)
    if row.explanations[0].output != "embedding":
        cells[num_cells - 1].axis("on")
        _draw_classes(cells[num_cells - 1], row.explanations[0])


def _draw_explanation(axes: Axes, row: SheetRow, explanation: Explanation) -> None:
    keep = row.kept.get(explanation.method)
    if keep is None:
        axes.imshow(overlay(row.photo, explanation.relevance[0], row.box, signed=explanation.signed, side=320))
        text = explanation.target_name()
    else:
        axes.imshow(fade(row.photo, keep, row.box, side=320))
        text = f"{round(float(keep.sum()), 1):g} of {keep.numel()} cells"
    axes.set_title(_shorten(f"{explanation.method}: {text}", 30), fontsize=9)


def _draw_classes(axes: Axes, explanation: Explanation) -> None:
    names, values = zip(*explanation.top_classes(0, 5), strict=True)
    # Bars are placed by position, not by name: two classes may share a (shortened) name.
    positions = range(len(names))[::-1]
    axes.barh(positions, values, color="0.55")
    axes.set_yticks(positions, [_shorten(name) for name in names])
    axes.set(title=value_name(explanation.output))
    if has_probabilities(explanation.output):
        axes.set(xlim=(0, 1))
    axes.title.set_fontsize(9)
    axes.tick_params(labelsize=8)


def _shorten(text: str, length: int = 24) -> str:
    text = text.encode(errors="replace").decode()  # File names need not be UTF-8, which is all that fonts know.
    short = text if len(text) <= length else text[: length - 3] + "..."
    return short.replace("$", r"\$")  # Matplotlib would read a formula.

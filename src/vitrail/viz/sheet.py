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
from vitrail.explanation import Explanation
from vitrail.viz.ground_truth import faded_beside
from vitrail.viz.overlay import fade, overlay

MAX_ROWS = 24
"""A sheet of more rows is cut here; every photo has its own overlay file."""

CELLS_PER_LINE = 7
"""Of a single photo."""


@dataclass(frozen=True)
class SheetRow:
    """One photo with its explanations.

    Attributes:
        photo: Upright, at its own size.
        box: What the model saw, in the photo's pixels.
        explanations: One a column, each of this photo alone.
        title: Above the photo.
        answer: What is known to decide, in the photo's pixels; it is shown beside the photo.
        kept: By method how far each cell is kept, from 0 to 1: of these methods the mask is shown, of all others the map.
    """

    photo: Image.Image
    box: tuple[float, float, float, float]
    explanations: Sequence[Explanation]
    title: str = ""
    answer: Bool[np.ndarray, "height width"] | None = None
    kept: Mapping[str, Float[Tensor, "rows cols"]] = field(default_factory=dict)

    def reduced(self, side: int = 640) -> "SheetRow":
        """The same row with a smaller copy of the photo: enough for a sheet, and little to keep."""
        factor = min(side / max(self.photo.size), 1.0)
        size = (max(round(self.photo.width * factor), 1), max(round(self.photo.height * factor), 1))
        left, top, right, bottom = self.box
        across, down = size[0] / self.photo.width, size[1] / self.photo.height
        answer = (
            None if self.answer is None else np.asarray(Image.fromarray(self.answer).resize(size, Image.Resampling.NEAREST))
        )
        box = left * across, top * down, right * across, bottom * down
        return replace(self, photo=self.photo.resize(size), box=box, answer=answer)


def contact_sheet(rows: Sequence[SheetRow], path: str | Path) -> None:
    """Draw photos beside their explanations and their most probable classes; the first `MAX_ROWS` of them.

    The row of a single photo is broken into lines.
    """
    rows = rows[:MAX_ROWS]
    num_cells = max(len(row.explanations) + (row.answer is not None) for row in rows) + 2
    num_lines = -(-num_cells // CELLS_PER_LINE) if len(rows) == 1 else len(rows)
    num_columns = -(-num_cells // num_lines) if len(rows) == 1 else num_cells
    heights = [_height(row.photo) for row in rows] if len(rows) > 1 else [_height(rows[0].photo)] * num_lines
    figure = Figure(figsize=(2.6 * num_columns, sum(heights)), layout="constrained")
    grid = figure.subplots(num_lines, num_columns, squeeze=False, height_ratios=heights)
    for axes in grid.flat:
        axes.axis("off")
    for line, row in zip([grid.flatten()] if len(rows) == 1 else grid, rows, strict=True):
        _draw_row(list(line), row, num_cells)
    with atomic_write(path) as partial:
        figure.savefig(partial, dpi=110)


def _height(photo: Image.Image) -> float:
    """Inches: bars stay readable beside a wide photo, and a tall one is not given the whole sheet."""
    return 0.4 + 2.6 * min(max(photo.height / photo.width, 0.6), 1.5)


def _draw_row(cells: Sequence[Axes], row: SheetRow, num_cells: int) -> None:
    cells[0].imshow(row.reduced().photo)
    cells[0].set_title(_shorten(row.title), fontsize=9)
    if row.answer is not None:
        cells[1].imshow(faded_beside(row.photo, row.answer))
        cells[1].set_title("answer", fontsize=9, color="0.4")
    first = 1 + (row.answer is not None)
    for cell, explanation in zip(cells[first:], row.explanations, strict=False):
        _draw_explanation(cell, row, explanation)
    cells[num_cells - 1].axis("on")
    _draw_classes(cells[num_cells - 1], row.explanations[0])


def _draw_explanation(axes: Axes, row: SheetRow, explanation: Explanation) -> None:
    keep = row.kept.get(explanation.method)
    if keep is None:
        axes.imshow(overlay(row.photo, explanation.relevance[0], row.box, signed=explanation.signed, side=320))
        said = explanation.class_name(int(explanation.targets[0]))
    else:
        axes.imshow(fade(row.photo, keep, row.box, side=320))
        said = f"{round(float(keep.sum()), 1):g} of {keep.numel()} cells"
    axes.set_title(_shorten(f"{explanation.method}: {said}", 30), fontsize=9)


def _draw_classes(axes: Axes, explanation: Explanation) -> None:
    names, probabilities = zip(*explanation.top_classes(0, 5), strict=True)
    # By position, not by name: two classes may share a (shortened) name.
    places = range(len(names))[::-1]
    axes.barh(places, probabilities, color="0.55")
    axes.set_yticks(places, [_shorten(name) for name in names])
    axes.set(xlim=(0, 1), title="probability")
    axes.title.set_fontsize(9)
    axes.tick_params(labelsize=8)


def _shorten(text: str, length: int = 24) -> str:
    text = text.encode(errors="replace").decode()  # Names of files need not be UTF-8, and fonts know nothing else.
    short = text if len(text) <= length else text[: length - 3] + "..."
    return short.replace("$", r"\$")  # A dollar sign is no mathematics.

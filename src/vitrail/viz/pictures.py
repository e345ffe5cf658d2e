"""Pictures of explanations: what the methods of `vitrail.core.drawable.Drawable` do."""

import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageShow

from vitrail.core.errors import InvalidInputError, OutputError
from vitrail.core.files import atomic_write
from vitrail.core.outputs import format_value
from vitrail.explanation import Explanation
from vitrail.viz.annotate import annotate, arrange
from vitrail.viz.html import picture_data_uri, render
from vitrail.viz.panel import Panel, draw_panel
from vitrail.viz.plotting import plot_panel
from vitrail.viz.style import Style

MAX_PANELS = 12
"""Largest number of images in one picture."""

PANELS_PER_ROW = 4
INCHES = 4.6
"""Width of an image in PDF and SVG files."""


def draw(explanation: Explanation, image: int | None = None, **style: Any) -> Image.Image:
    """Draw one image or all, see `vitrail.core.drawable.Drawable.picture`."""
    panels, note = _draw_panels(explanation, image, style)
    pictures = [annotate(panel) for panel in panels]
    return pictures[0] if len(pictures) == 1 and not note else arrange(pictures, PANELS_PER_ROW, note)


def show(explanation: Explanation, image: int | None = None, **style: Any) -> None:
    """Show the picture, see `vitrail.core.drawable.Drawable.show`."""
    picture = draw(explanation, image, **style)
    if _in_notebook():
        sys.modules["IPython"].display.display(picture)
    elif not ImageShow.show(picture, "vitrail"):
        raise OutputError("expected a viewer of pictures on this system, got none; write the picture with save_png")


def plot(explanation: Explanation, ax: Axes | None = None, image: int = 0, **style: Any) -> Axes:
    """Draw one image into axes, see `vitrail.core.drawable.Drawable.plot`."""
    panels, _ = _draw_panels(explanation, image, style)
    if ax is None:
        from matplotlib import pyplot  # noqa: PLC0415 (chooses a window system)

        _, ax = pyplot.subplots(figsize=_choose_size(panels), layout="constrained")
    plot_panel(panels[0], ax)
    return ax


def save(explanation: Explanation, path: str | Path, image: int | None = None, **style: Any) -> None:
    """Write the picture, see `vitrail.core.drawable.Drawable.save_picture`."""
    suffix = Path(path).suffix.lower()
    if suffix == ".png":
        picture = draw(explanation, image, **style)
        with atomic_write(path) as partial:
            picture.save(partial, "png")
        return
    panels, note = _draw_panels(explanation, image, style)
    num_columns = min(len(panels), PANELS_PER_ROW)
    num_rows = -(-len(panels) // num_columns)
    width, height = _choose_size(panels)
    figure = Figure(figsize=(width * num_columns, height * num_rows), layout="constrained")
    axes = figure.subplots(num_rows, num_columns, squeeze=False)
    for cell, panel in zip(axes.flat, panels, strict=False):
        plot_panel(panel, cell)
    for cell in axes.flat[len(panels) :]:
        cell.axis("off")
    figure.supxlabel(note, fontsize=8)
    with atomic_write(path) as partial:
        # Without a date, the same picture is the same file.
        dateless = {"CreationDate": None} if suffix == ".pdf" else {"Date": None}
        figure.savefig(partial, format=suffix[1:], dpi=150, metadata=dateless)


def encode_png(explanation: Explanation) -> bytes:
    """Encode the picture of all images as PNG, for notebooks."""
    buffer = BytesIO()
    draw(explanation).save(buffer, "png")
    return buffer.getvalue()


def render_html(explanation: Explanation) -> str:
    """Render the picture of all images with the most probable classes of each, for notebooks."""
    if not len(explanation):
        return render("explanation.html", "vitrail.viz", title=repr(explanation), picture="", images=[])
    images = [
        (
            explanation.sources[i] if explanation.sources else "",
            [(name, format_value(value, explanation.output)) for name, value in explanation.top_classes(i, 3)],
        )
        for i in range(min(len(explanation), MAX_PANELS))
    ]
    picture = picture_data_uri(draw(explanation))
    return render("explanation.html", "vitrail.viz", title=repr(explanation), picture=picture, images=images)


def _draw_panels(explanation: Explanation, image: int | None, style: dict[str, Any]) -> tuple[list[Panel], str]:
    """Return the panels of one image or of all, and a note if there are more images than panels."""
    look = Style.from_options(style)
    chosen = explanation if image is None else explanation[image]
    if not len(chosen):
        raise InvalidInputError("expected at least one image to draw, got an explanation of none")
    panels = [
        draw_panel(one, look, Image.fromarray(one.photos[0]) if one.photos else None)
        for one in chosen[: MAX_PANELS if len(chosen) > 1 else 1]
    ]
    return panels, f"The first {len(panels)} of {len(chosen)} images." if len(chosen) > len(panels) else ""


def _choose_size(panels: Sequence[Panel]) -> tuple[float, float]:
    """Return width and height of axes in inches: the image fills their width, as the color bar does."""
    shape = max(panel.picture.height / panel.picture.width for panel in panels)
    wide = max(panel.picture.width / panel.picture.height for panel in panels) > 1.6
    width = INCHES * (2 if wide else 1)
    return width, 0.8 * width * shape + 1.5


def _in_notebook() -> bool:
    """Return whether the program runs in a notebook, which shows pictures by itself."""
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    return bool(shell) and hasattr(shell, "kernel")

"""Sheets of cross-attention: what the queries of several classes look at in a photo."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from PIL import Image
from torch import Tensor

from vitrail.core.files import atomic_write
from vitrail.viz.overlay import overlay

MAX_ACROSS, MAX_CLASSES, MAX_PHOTOS = 8, 24, 24
"""Limits of a sheet: columns, rows of classes, rows of photos."""

CELL_WIDTH, GAP, LINE_HEIGHT, TITLE_GAP, MARGIN = 1.4, 0.08, 0.15, 0.04, 0.12
"""Inches."""

FONT_SIZE = 8
"""Points."""

GRAY = "0.4"

SIDE = 240
"""Pixels of the shorter side of a picture."""


@dataclass(frozen=True)
class ClassView:
    """Cross-attention of the query of one class.

    Attributes:
        name: Name of the class.
        value: Its probability or, for outputs without probabilities, its value, as text.
        maps: Cross-attention of the query, per head.
        note: A remark on the class, such as "true class".
    """

    name: str
    value: str
    maps: Float[Tensor, "h rows cols"]
    note: str = ""

    @property
    def title(self) -> str:
        """The name, the value and the note."""
        return f"{_wrap(self.name)}\n{self.value}" + (f", {self.note}" if self.note else "")


@dataclass(frozen=True)
class PhotoView:
    """A photo with the cross-attention of several classes.

    Attributes:
        photo: Upright, at its own size.
        box: The part of the photo that the model sees: left, top, right, bottom in pixels.
        classes: Classes in the order in which they are drawn.
        title: Title of the photo.
    """

    photo: Image.Image
    box: tuple[float, float, float, float]
    classes: Sequence[ClassView]
    title: str = ""

    @property
    def height(self) -> float:
        """Height of its pictures in inches; limited for very wide and very tall photos."""
        return CELL_WIDTH * min(max(self.photo.height / self.photo.width, 0.35), 2.0)

    def draw_overlay(self, weights: Float[Tensor, "rows cols"], scale: float | None = None) -> Image.Image:
        """Lay the heatmap of attention weights over the photo."""
        return overlay(self.photo, weights, self.box, scale=scale, signed=False, side=SIDE)


def query_sheet(view: PhotoView, path: str | Path, caption: str = "") -> None:
    """Draw a photo with one row per class: the mean over heads, then every head.

    The heads of a row share one color scale, so that they can be compared; the mean has its own. At most `MAX_CLASSES` classes and
    `MAX_ACROSS` heads are drawn.

    Args:
        view: A photo and at least one class.
        caption: Text below the rows, before the notes on colors.
    """
    classes, all_heads = view.classes[:MAX_CLASSES], len(view.classes[0].maps)
    num_heads = min(all_heads, MAX_ACROSS)
    scales = "The heads of a row share one color scale, up to their largest weight; their mean has its own."
    cut = _describe_cut(num_heads, all_heads, "heads"), _describe_cut(len(classes), len(view.classes), "classes")
    first = MARGIN + 1.5 * LINE_HEIGHT + _title_height(classes[0].title)
    page = _Page(2 + num_heads, first + len(classes) * (view.height + GAP), [caption, scales, *cut])
    title = _lines(view.title, 0.85 * page.width, 1)[0]  # Bold letters are wider.
    page.write(title, MARGIN, MARGIN, ha="left", va="top", weight="bold")
    page.show(view.photo, 0, first, view.height)
    for column, title in enumerate(["mean of heads", *(f"head {head + 1}" for head in range(num_heads))], 1):
        page.write(title, _middle(column), first - TITLE_GAP, color=GRAY)
    for row, shown in enumerate(classes):
        upper = first + row * (view.height + GAP)
        # The first cell of the first row holds the photo: the first class is named above it, the others in their cell.
        if row:
            page.write(shown.title, _middle(0), upper + view.height / 2, va="center")
        else:
            page.write(shown.title, _middle(0), upper - TITLE_GAP)
        page.show(view.draw_overlay(shown.maps.mean(0)), 1, upper, view.height)
        scale = float(shown.maps.max())
        for head in range(num_heads):
            page.show(view.draw_overlay(shown.maps[head], scale), 2 + head, upper, view.height)
    page.save(path)


def query_overview(views: Sequence[PhotoView], path: str | Path, caption: str = "") -> None:
    """Draw one row per photo with the mean attention of its classes, each on its own color scale.

    At most `MAX_PHOTOS` photos and `MAX_ACROSS` classes are drawn.

    Args:
        views: At least one photo.
        caption: Text below the rows, before the notes on colors.
    """
    views = views[:MAX_PHOTOS]
    all_classes = max(len(view.classes) for view in views)
    num_classes = min(all_classes, MAX_ACROSS)
    scales = "Means over heads, each on its own color scale, up to its largest weight."
    headings = [max(map(_title_height, [_wrap(view.title), *(shown.title for shown in view.classes)])) for view in views]
    last = MARGIN + sum(headings) + sum(view.height + GAP for view in views)
    page = _Page(1 + num_classes, last, [caption, scales, _describe_cut(num_classes, all_classes, "classes")])
    upper = MARGIN
    for view, heading in zip(views, headings, strict=True):
        upper += heading
        page.write(_wrap(view.title), _middle(0), upper - TITLE_GAP)
        page.show(view.photo, 0, upper, view.height)
        for column, shown in enumerate(view.classes[:num_classes], 1):
            page.write(shown.title, _middle(column), upper - TITLE_GAP)
            page.show(view.draw_overlay(shown.maps.mean(0)), column, upper, view.height)
        upper += view.height + GAP
    page.save(path)


class _Page:
    """A figure whose content is placed in inches from its upper left corner, with notes below.

    Matplotlib's constrained layout would leave gaps between the pictures, and is slow for dozens of them.
    """

    def __init__(self, num_columns: int, lower: float, notes: Sequence[str]) -> None:
        self.width = _left(num_columns)
        lines = _lines(" ".join(filter(None, notes)), self.width - 2 * MARGIN, 6)
        self.height = lower + len(lines) * LINE_HEIGHT + MARGIN
        self.figure = Figure(figsize=(self.width, self.height))
        self.write("\n".join(lines), MARGIN, lower, ha="left", va="top", color=GRAY)

    def show(self, picture: Image.Image, column: int, upper: float, height: float) -> None:
        position = _left(column) / self.width, 1 - (upper + height) / self.height, CELL_WIDTH / self.width, height / self.height
        axes = self.figure.add_axes(position)
        axes.axis("off")
        axes.imshow(picture)

    def write(self, text: str, x: float, y: float, **style: Any) -> None:
        """Write text centered above a point, or as its style says."""
        style = {"ha": "center", "va": "bottom", "fontsize": FONT_SIZE, "linespacing": 1.1, "parse_math": False, **style}
        self.figure.text(x / self.width, 1 - y / self.height, text, **style)

    def save(self, path: str | Path) -> None:
        with atomic_write(path) as partial:
            self.figure.savefig(partial, dpi=150)


def _left(column: int) -> float:
    """Return the left edge of a column in inches."""
    return MARGIN + column * (CELL_WIDTH + GAP)


def _middle(column: int) -> float:
    return _left(column) + CELL_WIDTH / 2


def _lines(text: str, width: float = CELL_WIDTH, count: int = 2) -> list[str]:
    """Break a text into at most `count` lines of `width` inches; dots replace what does not fit."""
    # File names need not be UTF-8 and may hold line breaks: fonts know neither.
    text = " ".join(text.encode(errors="replace").decode().split())
    inches = text_to_path.get_text_width_height_descent(text, FontProperties(size=FONT_SIZE), ismath=False)[0] / 72
    # From the mean width of the letters, with a reserve for lines of wide ones.
    letters = int(0.92 * width * len(text) / inches) if inches else 1
    # Class names may have underscores in place of spaces.
    lines = textwrap.wrap(text.replace("_", "_ "), max(letters, 4), max_lines=count, placeholder="...")
    return [line.replace("_ ", "_") for line in lines] or [""]


def _wrap(text: str) -> str:
    """Break a text into lines of a picture's width."""
    return "\n".join(_lines(text))


def _title_height(title: str) -> float:
    """Return the height of a title above a picture in inches."""
    return LINE_HEIGHT * (title.count("\n") + 1) + TITLE_GAP


def _describe_cut(shown: int, count: int, what: str) -> str:
    """Return a note if not everything is drawn."""
    return f"The first {shown} of {count} {what}." if shown < count else ""

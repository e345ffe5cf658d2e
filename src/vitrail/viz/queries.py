"""What the queries of some classes look at in a photo, beside each other."""

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
"""A sheet of more columns or rows is cut here."""

CELL, GAP, LINE, RISE, MARGIN = 1.4, 0.08, 0.15, 0.04, 0.12
"""Inches: width of a picture, between pictures, height of a line of text, from a picture to its title, around everything."""

SIZE = 8
"""Points, of letters."""

GRAY = "0.4"

SIDE = 240
"""Pixels of a picture's shorter side."""


@dataclass(frozen=True)
class ClassView:
    """What the query of one class looks at in a photo.

    Attributes:
        name: Of the class.
        probability: Of the class.
        maps: Its cross-attention, per head.
        note: What sets this class apart, such as "true class".
    """

    name: str
    probability: float
    maps: Float[Tensor, "h rows cols"]
    note: str = ""

    @property
    def title(self) -> str:
        """The class, and how probable it is."""
        # Of a model that is sure of a class, all others have 0.0 %, which tells nothing of their order.
        said = f"{self.probability:.1%}" if self.probability >= 5e-4 else f"{self.probability:.0e}"
        return f"{_fitted(self.name)}\n{said}, {self.note}" if self.note else f"{_fitted(self.name)}\n{said}"


@dataclass(frozen=True)
class PhotoView:
    """A photo, and what some classes look at in it.

    Attributes:
        photo: Upright, at its own size.
        box: What the model saw, in the photo's pixels.
        classes: In the order in which they are drawn.
        title: Of the photo.
    """

    photo: Image.Image
    box: tuple[float, float, float, float]
    classes: Sequence[ClassView]
    title: str = ""

    @property
    def height(self) -> float:
        """Inches of its pictures; a very wide or tall one leaves some room free."""
        return CELL * min(max(self.photo.height / self.photo.width, 0.35), 2.0)

    def over(self, weights: Float[Tensor, "rows cols"], scale: float | None = None) -> Image.Image:
        """A map over the photo."""
        return overlay(self.photo, weights, self.box, scale=scale, signed=False, side=SIDE)


def query_sheet(view: PhotoView, path: str | Path, caption: str = "") -> None:
    """Draw a photo with a row per class: its mean map, then those of its heads.

    The heads of a row share one scale of colors, so that they can be compared; the mean has its own. What is more than
    `MAX_CLASSES`, or than `MAX_ACROSS` heads, is cut.

    Args:
        view: A photo and at least one class.
        path: The picture to write.
        caption: Below the rows, before the notes on colors.
    """
    classes, all_heads = view.classes[:MAX_CLASSES], len(view.classes[0].maps)
    num_heads = min(all_heads, MAX_ACROSS)
    scales = "The heads of a row share one scale of colors, up to their largest weight; their mean has its own."
    cut = _cut(num_heads, all_heads, "heads"), _cut(len(classes), len(view.classes), "classes")
    first = MARGIN + 1.5 * LINE + _height(classes[0].title)
    page = _Page(2 + num_heads, first + len(classes) * (view.height + GAP), [caption, scales, *cut])
    title = _lines(view.title, 0.85 * page.width, 1)[0]  # Bold letters are wider.
    page.write(title, MARGIN, MARGIN, ha="left", va="top", weight="bold")
    page.show(view.photo, 0, first, view.height)
    for column, title in enumerate(["mean of heads", *(f"head {head + 1}" for head in range(num_heads))], 1):
        page.write(title, _middle(column), first - RISE, color=GRAY)
    for row, shown in enumerate(classes):
        upper = first + row * (view.height + GAP)
        # The photo fills the first cell: the first class is named above it, the others in theirs.
        if row:
            page.write(shown.title, _middle(0), upper + view.height / 2, va="center")
        else:
            page.write(shown.title, _middle(0), upper - RISE)
        page.show(view.over(shown.maps.mean(0)), 1, upper, view.height)
        scale = float(shown.maps.max())
        for head in range(num_heads):
            page.show(view.over(shown.maps[head], scale), 2 + head, upper, view.height)
    page.save(path)


def query_overview(views: Sequence[PhotoView], path: str | Path, caption: str = "") -> None:
    """Draw photos, a row each, with the mean maps of their classes, each on a scale of its own.

    What is more than `MAX_PHOTOS`, or than `MAX_ACROSS` classes, is cut.

    Args:
        views: At least one photo.
        path: The picture to write.
        caption: Below the rows, before the notes on colors.
    """
    views = views[:MAX_PHOTOS]
    all_classes = max(len(view.classes) for view in views)
    num_classes = min(all_classes, MAX_ACROSS)
    scales = "Means over heads, each on a scale of its own, up to its largest weight."
    headings = [max(map(_height, [_fitted(view.title), *(one.title for one in view.classes)])) for view in views]
    last = MARGIN + sum(headings) + sum(view.height + GAP for view in views)
    page = _Page(1 + num_classes, last, [caption, scales, _cut(num_classes, all_classes, "classes")])
    upper = MARGIN
    for view, heading in zip(views, headings, strict=True):
        upper += heading
        page.write(_fitted(view.title), _middle(0), upper - RISE)
        page.show(view.photo, 0, upper, view.height)
        for column, shown in enumerate(view.classes[:num_classes], 1):
            page.write(shown.title, _middle(column), upper - RISE)
            page.show(view.over(shown.maps.mean(0)), column, upper, view.height)
        upper += view.height + GAP
    page.save(path)


class _Page:
    """A figure on which things are placed by inches from its upper left corner, with notes below.

    A layout that is solved for would leave room between pictures of one shape, and takes long for dozens of them.
    """

    def __init__(self, num_columns: int, lower: float, notes: Sequence[str]) -> None:
        self.width = _left(num_columns)
        lines = _lines(" ".join(filter(None, notes)), self.width - 2 * MARGIN, 6)
        self.height = lower + len(lines) * LINE + MARGIN
        self.figure = Figure(figsize=(self.width, self.height))
        self.write("\n".join(lines), MARGIN, lower, ha="left", va="top", color=GRAY)

    def show(self, picture: Image.Image, column: int, upper: float, height: float) -> None:
        place = _left(column) / self.width, 1 - (upper + height) / self.height, CELL / self.width, height / self.height
        axes = self.figure.add_axes(place)
        axes.axis("off")
        axes.imshow(picture)

    def write(self, text: str, x: float, y: float, **style: Any) -> None:
        """Text that ends in the middle above a point, or where its style says."""
        style = {"ha": "center", "va": "bottom", "fontsize": SIZE, "linespacing": 1.1, "parse_math": False, **style}
        self.figure.text(x / self.width, 1 - y / self.height, text, **style)

    def save(self, path: str | Path) -> None:
        with atomic_write(path) as partial:
            self.figure.savefig(partial, dpi=150)


def _left(column: int) -> float:
    """Inches where a column begins."""
    return MARGIN + column * (CELL + GAP)


def _middle(column: int) -> float:
    return _left(column) + CELL / 2


def _lines(text: str, width: float = CELL, count: int = 2) -> list[str]:
    """A text broken into a few lines of some inches; what does not fit becomes dots."""
    # Names of files need not be UTF-8, and may hold line breaks: fonts know neither.
    text = " ".join(text.encode(errors="replace").decode().split())
    inches = text_to_path.get_text_width_height_descent(text, FontProperties(size=SIZE), ismath=False)[0] / 72
    # By the mean width of its letters, with a reserve for a line of wider ones.
    letters = int(0.92 * width * len(text) / inches) if inches else 1
    # Names of classes have underscores where others have spaces.
    lines = textwrap.wrap(text.replace("_", "_ "), max(letters, 4), max_lines=count, placeholder="...")
    return [line.replace("_ ", "_") for line in lines] or [""]


def _fitted(text: str) -> str:
    """A text broken into lines of a picture's width."""
    return "\n".join(_lines(text))


def _height(title: str) -> float:
    """Inches that a title takes above a picture."""
    return LINE * (title.count("\n") + 1) + RISE


def _cut(shown: int, count: int, what: str) -> str:
    """Say that not all are shown."""
    return f"The first {shown} of {count} {what}." if shown < count else ""

"""Reports: one HTML file with its pictures inside, which opens offline."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from PIL import Image

from vitrail.core.files import write_text
from vitrail.viz.html import encode_data_uri, render

MAX_PNG_BYTES = 1 << 20
"""Larger pictures, such as sheets of photos, are stored as WebP: the page has to stay small enough to be mailed."""

MAX_WEBP_SIDE = 16383
"""Pixels: the limit of the WebP format."""


@dataclass(frozen=True)
class Picture:
    """A PNG file with its caption, which is also its alternative text.

    Attributes:
        path: The file.
        caption: The text below it.
        wide: Whether it takes the full width of the page; others share rows.
        plot: Whether it is a plot, which turns dark on a dark page; photos keep their colors.
    """

    path: Path
    caption: str
    wide: bool = False
    plot: bool = False

    @property
    def width(self) -> int:
        """Its width in pixels."""
        with Image.open(self.path) as picture:
            return picture.width

    @property
    def data_uri(self) -> str:
        """The content of the file, as WebP if it is large."""
        content = self.path.read_bytes()
        if len(content) <= MAX_PNG_BYTES:
            return encode_data_uri(content, "png")
        buffer = BytesIO()
        with Image.open(self.path) as picture:
            if max(picture.size) > MAX_WEBP_SIDE:
                return encode_data_uri(content, "png")
            picture.convert("RGB").save(buffer, "webp", quality=90)
        return encode_data_uri(buffer.getvalue(), "webp")


@dataclass(frozen=True)
class Table:
    """Rows under a head; numbers are right-aligned."""

    head: Sequence[str]
    rows: Sequence[Sequence[str | float]]


@dataclass(frozen=True)
class Section:
    """A heading, a text, pictures and a table; all but the heading are optional."""

    title: str
    text: str = ""
    pictures: Sequence[Picture] = field(default_factory=list)
    table: Table | None = None


def write_report(path: str | Path, title: str, lead: str, sections: Sequence[Section], command: str | None = None) -> None:
    """Write the page.

    Args:
        path: The HTML file.
        title: Its headline.
        lead: The paragraph below the headline.
        sections: The content.
        command: The command that makes the page again, which it ends with; None if there is none.
    """
    write_text(path, render("report.html", "vitrail.viz", title=title, lead=lead, sections=sections, command=command))

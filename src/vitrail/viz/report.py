"""A page that shows it all: one HTML file, pictures inside, opens offline."""

import base64
import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from vitrail.core.files import write_text

LARGE = 1 << 20
"""Bytes of a picture that a page takes as it is."""
WEBP_SIDE = 16383
"""Pixels: what the format holds."""

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: 0; } h2 { font-size: 1.2rem; margin: 2rem 0 .4rem; }
.row { display: grid; grid-template-columns: repeat(auto-fill, minmax(14rem, 1fr)); gap: 1rem; } figure { margin: 0; }
img { max-width: 100%; height: auto; } .row img { width: 100%; } figcaption { font-size: .9rem; color: #444; } .scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .6rem 0; }
th, td { text-align: left; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid #ddd; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
"""


@dataclass(frozen=True)
class Picture:
    """A picture with what it says in words, for those who cannot see it."""

    path: Path
    caption: str
    wide: bool = False


@dataclass(frozen=True)
class Table:
    """Rows under a head; numbers are aligned to the right."""

    head: Sequence[str]
    rows: Sequence[Sequence[str | float]]


@dataclass(frozen=True)
class Section:
    """A heading, words, pictures, and a table."""

    title: str
    text: str = ""
    pictures: Sequence[Picture] = field(default_factory=list)
    table: Table | None = None


def write_report(path: str | Path, title: str, lead: str, sections: Sequence[Section]) -> None:
    """Write the page.

    Args:
        path: The HTML file.
        title: Its headline.
        lead: The sentence under it.
        sections: What follows.
    """
    body = "\n".join(_section(section) for section in sections)
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n<body><h1>{html.escape(title)}</h1><p>{html.escape(lead)}</p>\n"
        f"{body}\n</body></html>\n"
    )
    write_text(path, page.encode(errors="replace").decode())  # Names of files need not be UTF-8.


def _section(section: Section) -> str:
    parts = [f"<h2>{html.escape(section.title)}</h2>"]
    if section.text:
        parts.append(f"<p>{html.escape(section.text)}</p>")
    narrow = "".join(_picture(picture) for picture in section.pictures if not picture.wide)
    if narrow:
        parts.append(f'<div class="row">{narrow}</div>')
    parts += [_picture(picture) for picture in section.pictures if picture.wide]
    if section.table:
        parts.append(_table(section.table))
    return "\n".join(parts)


def _picture(picture: Picture) -> str:
    content, kind = _content(picture.path)
    data, caption = base64.b64encode(content).decode(), html.escape(picture.caption)
    return f'<figure><img src="data:image/{kind};base64,{data}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'


def _content(path: Path) -> tuple[bytes, str]:
    """A picture and its format: large ones, sheets of photos, would make a page that can hardly be mailed."""
    content = path.read_bytes()
    if len(content) <= LARGE:
        return content, "png"
    packed = io.BytesIO()
    with Image.open(path) as picture:
        if max(picture.size) > WEBP_SIDE:
            return content, "png"
        picture.convert("RGB").save(packed, "webp", quality=90)
    return packed.getvalue(), "webp"


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in table.head)
    rows = "".join("<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in table.rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return f"<td>{html.escape(value)}</td>"
    return f'<td class="number">{"undefined" if math.isnan(value) else f"{value:.4g}"}</td>'

"""Small pieces of HTML; every text from outside is escaped here."""

import base64
import html
from collections.abc import Sequence
from io import BytesIO

from PIL import Image
from torch import Tensor

MAX_CELLS = 1024
"""A map of more cells shows its numbers in the files only: a page of them would be slow, and nobody would read it."""


def escaped(text: object) -> str:
    """Text as it is to be read, whatever it holds."""
    return html.escape(str(text).encode(errors="replace").decode(), quote=True)


def data_uri(picture: Image.Image, kind: str = "png") -> str:
    """A picture inside the page: no file, no request."""
    buffer = BytesIO()
    picture.save(buffer, "JPEG" if kind == "jpeg" else "PNG", **({"quality": 88} if kind == "jpeg" else {}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def number(value: float) -> str:
    """Four figures, with the sign of what can have one."""
    return f"{value:+.4g}" if value < 0 else f"{value:.4g}"


def table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str | float]]) -> str:
    """Rows under a head, with a caption; numbers to the right, and the first cell of a row its head."""
    top = "".join(f'<th scope="col">{escaped(name)}</th>' for name in head)
    body = "".join(
        f'<tr><th scope="row">{_shown(row[0])}</th>' + "".join(f"<td>{_shown(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    # Wide tables scroll by themselves, so that the page never does; reachable by keyboard.
    return (
        f'<div class="vt-scroll" tabindex="0" role="region" aria-label="{escaped(caption)}"><table><caption>{escaped(caption)}'
        f"</caption><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def folded(title: str, inside: str) -> str:
    """What is opened on demand."""
    return f"<details><summary>{escaped(title)}</summary>{inside}</details>"


def grid_table(caption: str, relevance: Tensor) -> str:
    """All numbers of a map, as it lies over the photo."""
    rows, cols = relevance.shape
    if rows * cols > MAX_CELLS:
        return f"<p>{rows} x {cols} cells: their numbers are in the downloaded arrays.</p>"
    lines: list[list[str | float]] = [[f"row {row}", *values] for row, values in enumerate(relevance.tolist())]
    return table(caption, ["", *(f"column {col}" for col in range(cols))], lines)


def hover_cells(relevance: Tensor) -> str:
    """Invisible cells over a map, each with its number for who points at it."""
    rows, cols = relevance.shape
    if rows * cols > MAX_CELLS:
        return ""
    cells = "".join(
        f'<rect x="{col}" y="{row}" width="1" height="1"><title>row {row}, column {col}: {number(value)}</title></rect>'
        for row, values in enumerate(relevance.tolist())
        for col, value in enumerate(values)
    )
    # The tables say the same in words.
    return f'<svg class="vt-cells" viewBox="0 0 {cols} {rows}" preserveAspectRatio="none" aria-hidden="true">{cells}</svg>'


def said(words: str) -> str:
    """What has happened; it stands in the status line, which is read out."""
    return f'<p class="vt-status">{escaped(words)}</p>'


def failure(message: str) -> str:
    """What went wrong, read out at once."""
    return f'<p class="vt-error" role="alert">{escaped(message)}</p>'


def _shown(cell: str | float) -> str:
    return escaped(cell) if isinstance(cell, str) else number(cell)

"""HTML by Jinja2 templates: every value is escaped, and pictures become data URIs."""

import base64
import math
import re
from collections.abc import Sequence
from functools import cache
from io import BytesIO
from typing import Literal

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from PIL import Image

JPEG_QUALITY = 88

NUMBER = re.compile(r"[-+\N{MINUS SIGN}]?\d[\d.,]*(e[-+\N{MINUS SIGN}]?\d+)?( ?%)?( [±(].*)?")
NO_NUMBERS = ("", "-", "higher", "lower")
"""What columns of numbers hold in place of a number."""


@cache
def load_templates(*packages: str) -> Environment:
    """Load the folders `templates` of some packages, with automatic escaping.

    Args:
        packages: Dotted names; the first package that has a template provides it.
    """
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package) for package in packages]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = format_number
    environment.filters["numeric_columns"] = find_numeric_columns
    return environment


def render(template: str, *packages: str, **values: object) -> str:
    """Render a template.

    Args:
        template: File name of the template.
        packages: Packages that have it and the templates that it includes, see `load_templates`.
        values: Variables of the template.

    Returns:
        Text that UTF-8 can encode: half a surrogate pair, as in file names that are not UTF-8, becomes a question mark.
    """
    text = load_templates(*packages).get_template(template).render(values)
    return text.encode(errors="replace").decode()


def format_number(value: float) -> str:
    """Format a number with four significant digits; NaN is "undefined"."""
    return "undefined" if math.isnan(value) else f"{value:.4g}"


def find_numeric_columns(rows: Sequence[Sequence[str | float]]) -> list[int]:
    """Return the columns of a table that hold nothing but numbers, also as text such as "0.31 ±0.02", "12 %" or "+0.2 (3 %)"."""
    columns = zip(*rows, strict=False)
    return [
        i
        for i, cells in enumerate(columns)
        if any(map(_is_number, cells)) and all(cell in NO_NUMBERS or _is_number(cell) for cell in cells)
    ]


def _is_number(cell: str | float) -> bool:
    return not isinstance(cell, str) or bool(NUMBER.fullmatch(cell))


def encode_data_uri(content: bytes, kind: str) -> str:
    """Encode the content of an image file as a data URI, which needs no file and no request.

    Args:
        content: Bytes of the file.
        kind: Subtype of its media type: "png", "jpeg" or "webp".
    """
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def picture_data_uri(picture: Image.Image, kind: Literal["png", "jpeg"] = "png") -> str:
    """Encode a picture as a data URI."""
    buffer = BytesIO()
    picture.save(buffer, kind, **({"quality": JPEG_QUALITY} if kind == "jpeg" else {}))
    return encode_data_uri(buffer.getvalue(), kind)

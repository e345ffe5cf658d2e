"""Which image files are offered: the one list of formats that are opened, and of endings that are looked for in folders."""

from importlib.util import find_spec
from pathlib import Path

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", *(("AVIF",) if find_spec("PIL.AvifImagePlugin") else ()))
"""Pillow's names. Nothing else is tried, whatever a file is called: some formats start a program (EPS), others decode before the size
is known (ICO). MPO is read as JPEG."""

SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp",
    ".jpe", ".jfif", ".mpo", ".apng", ".gif", ".dib", ".pbm", ".pnm", ".avif",
)  # fmt: skip
"""Endings of image files, in small letters."""


def is_image_name(path: Path) -> bool:
    """Whether a file is called like an image; its content decides when it is opened."""
    return path.suffix.lower() in SUFFIXES

"""Memory of large photos goes back to the system."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from PIL import Image

BLOCK_SIZE = 64 * 1024 * 1024
"""Bytes that Pillow asks for at a time. The C library keeps smaller pieces for the thread that freed them, up to gigabytes in all."""


@contextmanager
def returned_memory() -> Iterator[None]:
    """Have Pillow hold large images in large pieces, for the time of the block."""
    core: Any = Image.core  # type: ignore[attr-defined]
    before = core.get_block_size()
    core.set_block_size(BLOCK_SIZE)
    try:
        yield
    finally:
        core.set_block_size(before)

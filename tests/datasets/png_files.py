"""Minimal PNG files with any header and any compressed data."""

import struct
import zlib


def png_file(width: int, height: int, depth: int, data: list[bytes], color: int = 0, interlace: int = 0) -> bytes:
    """A PNG with valid chunks; `data` are the contents of its IDAT chunks, and color type 0 is gray-scale."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlace)
    chunks = [(b"IHDR", header), *((b"IDAT", part) for part in data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


def png_without_pixels(width: int, height: int) -> bytes:
    """A 1-bit gray-scale PNG of any size that ends before its first row."""
    return png_file(width, height, 1, [zlib.compress(b"\0")])

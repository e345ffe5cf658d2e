"""Decoding that fails for truncated images, whose missing pixels most decoders silently fill with gray or black."""

import random
import re
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import NamedTuple

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

MAX_SCANS = 100
"""Largest number of scans in a JPEG: a scan of a few bytes costs a pass over the whole image."""

_EOI, _SOS, _STANDALONE = 0xD9, 0xDA, (0x01, *range(0xD0, 0xD9))
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
_END_OF_SCAN = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]", re.DOTALL)

_ONES = b"\xff\x00" * 8
"""As many bits as a decoder reads ahead. No JPEG code consists of ones only, so these bits replace a few missing symbols at most."""

_NOISE = b"".join(bytes([*random.Random(n).choices(range(0xFF), k=48), 0xFF, 0xD0 + n]) for n in range(8))
"""Bytes that change any image whose decoder reads them as data, with or without restart markers."""

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Channels of the color types of PNG."""

_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row, first column, row step and column step of the passes over an interlaced PNG."""

_BAND = 1 << 22
_PLANAR_CONFIGURATION, _SAMPLES_PER_PIXEL = 284, 277


def load_complete(image: Image.Image, read_content: Callable[[], bytes]) -> Image.Image:
    """Decode an opened image and check that no pixels are missing.

    Args:
        image: Opened, but not decoded.
        read_content: Returns the bytes of the file.

    Returns:
        The image; for a JPEG, another object with the same pixels.

    Raises:
        OSError: Pixels are missing; decoders raise other errors, too.
    """
    if image.format in ("JPEG", "MPO"):
        return _load_jpeg(read_content())
    if image.format == "TIFF":
        _check_strips(image)
    image.load()
    if image.format == "PNG" and _may_lack_rows(image) and not _has_all_rows(read_content()):
        raise OSError("its data end before its last row")
    return image


class _Scan(NamedTuple):
    """A scan of a JPEG.

    Attributes:
        components: Color components it contains.
        band: Coefficients it contains.
        low_bit: Lowest bit of these coefficients it contains.
        end: Offset in the file at which its data end.
    """

    components: bytes
    band: range
    low_bit: int
    end: int


class _Structure(NamedTuple):
    """Frame type, color components and scans of a JPEG."""

    frame: int
    components: bytes
    scans: list[_Scan]


def _load_jpeg(content: bytes) -> Image.Image:
    """Decode a JPEG.

    If data are missing, libjpeg reaches the end marker and fills in zeros. So the marker is removed: a complete scan does not need it,
    and an incomplete one runs out of data, which Pillow reports.
    """
    structure = _parse_jpeg(content)
    if structure is None or not structure.scans:
        return _decode_jpeg(content)  # There is no end marker, which Pillow reports.
    if len(structure.scans) > MAX_SCANS:
        raise OSError(f"expected a JPEG of at most {MAX_SCANS} scans, got {len(structure.scans)}")
    end = structure.scans[-1].end
    if structure.frame in (_BASELINE, _EXTENDED) and len(structure.scans) == 1:
        if set(structure.components) - set(structure.scans[0].components):
            raise OSError("scans of some colors are missing")
        return _decode_jpeg(content[:end] + _ONES)
    image = _decode_jpeg(content)
    if structure.frame in (_BASELINE, _EXTENDED, _PROGRESSIVE):
        _check_scans(structure)
        # Several scans are read up to the end marker. A decoder ignores bytes between a complete scan and the marker, and reads them
        # as data of an incomplete one.
        if not _have_same_pixels(image, _decode_jpeg(content[:end] + _NOISE + b"\xff\xd9")):
            raise OSError("its last scan ends early")
    return image


def _decode_jpeg(content: bytes) -> Image.Image:
    # Image.open would look for the other images of an MPO.
    with JpegImageFile(BytesIO(content)) as image:
        image.load()
        return image


def _parse_jpeg(content: bytes) -> _Structure | None:
    """Return frame and scans of the first image in a file; None without an end marker."""
    frame, components, scans, position = 0, b"", list[_Scan](), 2
    while match := _MARKER.search(content, position):
        marker, position = match[1][0], match.end()
        if marker == _EOI:
            return _Structure(frame, components, scans)
        if marker in _STANDALONE:
            continue
        length = int.from_bytes(content[position : position + 2], "big")
        body, position = content[position + 2 : position + length], position + max(length, 2)
        if marker in _FRAMES:
            frame, components = marker, body[6::3][: body[5]]
        elif marker == _SOS:
            num_components = body[0]
            first, last, bits = body[1 + 2 * num_components : 4 + 2 * num_components]
            next_marker = _END_OF_SCAN.search(content, position)
            position = next_marker.start() if next_marker else len(content)
            scans.append(_Scan(body[1 : 1 + 2 * num_components : 2], range(first, last + 1), bits & 0xF, position))
            if len(scans) > MAX_SCANS:
                return _Structure(frame, components, scans)
    return None


def _check_scans(structure: _Structure) -> None:
    """Refuse a JPEG that was cut between two of its scans."""
    for component in structure.components:
        low_bits: dict[int, int] = {}
        for scan in structure.scans:
            if component in scan.components:
                low_bits |= dict.fromkeys(scan.band if structure.frame == _PROGRESSIVE else range(1), scan.low_bit)
        # High frequencies may be omitted on purpose; a coefficient that is present needs all its bits.
        if 0 not in low_bits or any(low_bits.values()):
            raise OSError("some of its scans are missing")


def _have_same_pixels(first: Image.Image, second: Image.Image) -> bool:
    num_rows = max(_BAND // first.width, 1)
    boxes = ((0, top, first.width, min(top + num_rows, first.height)) for top in range(0, first.height, num_rows))
    return all(first.crop(box).tobytes() == second.crop(box).tobytes() for box in boxes)


def _check_strips(image: Image.Image) -> None:
    """Refuse a TIFF whose strips or tiles do not cover it."""
    tags = getattr(image, "tag_v2", {})
    num_planes = tags.get(_SAMPLES_PER_PIXEL, 1) if tags.get(_PLANAR_CONFIGURATION, 1) == 2 else 1
    tiles = list(getattr(image, "tile", []))
    if any(tile[0] == "libtiff" for tile in tiles):
        return  # libtiff checks them itself.
    num_covered = sum((x1 - x0) * (y1 - y0) for _, (x0, y0, x1, y1), *_ in tiles)
    if num_covered < image.width * image.height * num_planes:
        raise OSError("some of its strips are missing")


def _may_lack_rows(image: Image.Image) -> bool:
    """Return whether the last row of a decoded PNG is zero, like a missing one; always True for interlaced PNGs."""
    last_row = image.crop((0, image.height - 1, image.width, image.height))
    return bool(image.info.get("interlace")) or last_row.getbbox(alpha_only=False) is None


def _has_all_rows(content: bytes) -> bool:
    """Return whether a PNG holds as many bytes of data as its header announces."""
    width, height, depth, color, _, _, interlace = struct.unpack(">IIBBBBB", content[16:29])
    num_missing = 0
    for row, column, row_step, column_step in _ADAM7 if interlace else ((0, 0, 1, 1),):
        num_rows, num_columns = -(-(height - row) // row_step), -(-(width - column) // column_step)
        if num_rows > 0 and num_columns > 0:
            num_missing += num_rows * (1 + -(-num_columns * depth * _CHANNELS[color] // 8))
    stream, position = zlib.decompressobj(), 8
    while num_missing > 0 and not stream.eof and position + 8 <= len(content):
        length, chunk_type = struct.unpack(">I4s", content[position : position + 8])
        data = content[position + 8 : position + 8 + length] if chunk_type == b"IDAT" else b""
        while data and num_missing > 0 and not stream.eof:
            num_missing -= len(stream.decompress(data, _BAND))
            data = stream.unconsumed_tail
        position += length + 12
    return num_missing <= 0

"""Whether an image file holds all its pixels: decoders leave what is missing gray or black without a word."""

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
"""Of a JPEG: each is a pass over the whole image, and takes but a few bytes."""

_EOI, _SOS, _STANDALONE = 0xD9, 0xDA, (0x01, *range(0xD0, 0xD9))
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BASELINE, _EXTENDED, _PROGRESSIVE = 0xC0, 0xC1, 0xC2
_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
_END_OF_SCAN = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]", re.DOTALL)

_ONES = b"\xff\x00" * 8
"""As many bits as a decoder reads ahead. No code of a JPEG is all ones, so they can stand for a few symbols at most."""

_NOISE = b"".join(bytes([*random.Random(n).choices(range(0xFF), k=48), 0xFF, 0xD0 + n]) for n in range(8))
"""Changes whatever image takes it for data, also between the restart markers of one that has them."""

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row and column of a pass over an interlaced PNG, and from one to the next."""

_BAND = 1 << 22
_PLANAR_CONFIGURATION, _SAMPLES_PER_PIXEL = 284, 277


def load_complete(image: Image.Image, content: Callable[[], bytes]) -> Image.Image:
    """Decode an opened image, of which nothing may be missing.

    Args:
        image: Opened, not decoded.
        content: Reads the file.

    Returns:
        The image, or for a JPEG another one of the same pixels.

    Raises:
        OSError: Something is missing; decoders raise other errors, too.
    """
    if image.format in ("JPEG", "MPO"):
        return _load_jpeg(content())
    if image.format == "TIFF":
        _expect_strips(image)
    image.load()
    if image.format == "PNG" and _may_lack_rows(image) and not _has_all_rows(content()):
        raise OSError("its data end before its last row")
    return image


class _Scan(NamedTuple):
    components: bytes
    band: range
    """Coefficients that it sends."""
    low: int
    """Their lowest bit that it sends."""
    end: int
    """Where its data end in the file."""


class _Structure(NamedTuple):
    frame: int
    components: bytes
    scans: list[_Scan]


def _load_jpeg(content: bytes) -> Image.Image:
    """Decode a JPEG.

    Where data are missing, libjpeg meets the end marker and goes on with zeros. So the marker is taken away: a scan that is
    whole does not need it, and one that is not runs out of data, which Pillow tells.
    """
    found = _structure(content)
    if found is None or not found.scans:
        return _decoded(content)  # There is no end marker: Pillow misses it.
    if len(found.scans) > MAX_SCANS:
        raise OSError(f"expected a JPEG of at most {MAX_SCANS} scans, got {len(found.scans)}")
    last = found.scans[-1].end
    if found.frame in (_BASELINE, _EXTENDED) and len(found.scans) == 1:
        if set(found.components) - set(found.scans[0].components):
            raise OSError("scans of some colors are missing")
        return _decoded(content[:last] + _ONES)
    image = _decoded(content)
    if found.frame in (_BASELINE, _EXTENDED, _PROGRESSIVE):
        _expect_scans(found)
        # Several scans are read up to the end marker. What stands between a whole scan and the marker is passed over; where data
        # are missing, it is taken for them.
        if not _alike(image, _decoded(content[:last] + _NOISE + b"\xff\xd9")):
            raise OSError("its last scan ends early")
    return image


def _decoded(content: bytes) -> Image.Image:
    # Not by Image.open, which looks for the other images of an MPO.
    with JpegImageFile(BytesIO(content)) as image:
        image.load()
        return image


def _structure(content: bytes) -> _Structure | None:
    """Frame and scans of the first image in a file; None where it does not come to an end."""
    frame, components, scans, place = 0, b"", list[_Scan](), 2
    while found := _MARKER.search(content, place):
        marker, place = found[1][0], found.end()
        if marker == _EOI:
            return _Structure(frame, components, scans)
        if marker in _STANDALONE:
            continue
        length = int.from_bytes(content[place : place + 2], "big")
        body, place = content[place + 2 : place + length], place + max(length, 2)
        if marker in _FRAMES:
            frame, components = marker, body[6::3][: body[5]]
        elif marker == _SOS:
            count = body[0]
            start, stop, bits = body[1 + 2 * count : 4 + 2 * count]
            end = _END_OF_SCAN.search(content, place)
            place = end.start() if end else len(content)
            scans.append(_Scan(body[1 : 1 + 2 * count : 2], range(start, stop + 1), bits & 0xF, place))
            if len(scans) > MAX_SCANS:
                return _Structure(frame, components, scans)
    return None


def _expect_scans(found: _Structure) -> None:
    """Refuse an image that was cut off between two of its scans."""
    for component in found.components:
        lowest: dict[int, int] = {}
        for scan in found.scans:
            if component in scan.components:
                lowest |= dict.fromkeys(scan.band if found.frame == _PROGRESSIVE else range(1), scan.low)
        # High frequencies may be left out on purpose; what was begun has to be sent down to its last bit.
        if 0 not in lowest or any(lowest.values()):
            raise OSError("some of its scans are missing")


def _alike(one: Image.Image, other: Image.Image) -> bool:
    rows = max(_BAND // one.width, 1)
    boxes = ((0, top, one.width, min(top + rows, one.height)) for top in range(0, one.height, rows))
    return all(one.crop(box).tobytes() == other.crop(box).tobytes() for box in boxes)


def _expect_strips(image: Image.Image) -> None:
    """Refuse a TIFF whose strips or tiles do not cover it."""
    tags = getattr(image, "tag_v2", {})
    planes = tags.get(_SAMPLES_PER_PIXEL, 1) if tags.get(_PLANAR_CONFIGURATION, 1) == 2 else 1
    tiles = list(getattr(image, "tile", []))
    if any(tile[0] == "libtiff" for tile in tiles):
        return  # It looks at them itself.
    covered = sum((x1 - x0) * (y1 - y0) for _, (x0, y0, x1, y1), *_ in tiles)
    if covered < image.width * image.height * planes:
        raise OSError("some of its strips are missing")


def _may_lack_rows(image: Image.Image) -> bool:
    """Whether the last row of a decoded PNG is zero, as rows are that never came; interlaced rows come in another order."""
    last = image.crop((0, image.height - 1, image.width, image.height))
    return bool(image.info.get("interlace")) or last.getbbox(alpha_only=False) is None


def _has_all_rows(content: bytes) -> bool:
    """Whether the data of a PNG hold as many bytes as its header promises."""
    width, height, depth, color, _, _, interlace = struct.unpack(">IIBBBBB", content[16:29])
    missing = 0
    for row, col, rows_apart, cols_apart in _ADAM7 if interlace else ((0, 0, 1, 1),):
        rows, cols = -(-(height - row) // rows_apart), -(-(width - col) // cols_apart)
        if rows > 0 and cols > 0:
            missing += rows * (1 + -(-cols * depth * _CHANNELS[color] // 8))
    stream, place = zlib.decompressobj(), 8
    while missing > 0 and not stream.eof and place + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[place : place + 8])
        data = content[place + 8 : place + 8 + length] if kind == b"IDAT" else b""
        while data and missing > 0 and not stream.eof:
            missing -= len(stream.decompress(data, _BAND))
            data = stream.unconsumed_tail
        place += length + 12
    return missing <= 0

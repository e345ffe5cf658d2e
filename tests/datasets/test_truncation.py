"""Truncated images are refused, including those that decoders accept silently."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from png_files import png_file

from vitrail.core.errors import ImageError
from vitrail.datasets.image_io import decode_image, open_image
from vitrail.datasets.truncation import MAX_SCANS


def smooth(height: int = 90, width: int = 120) -> np.ndarray:
    rows, cols = np.mgrid[:height, :width]
    waves = [127 + 60 * np.sin(rows / (5 + i)) + 60 * np.cos(cols / (7 - i)) for i in range(3)]
    return np.stack(waves, -1).round().astype(np.uint8)


def encoded(kind: str, image: Image.Image | None = None, **options) -> bytes:
    stream = io.BytesIO()
    (image or Image.fromarray(smooth())).save(stream, kind, **options)
    return stream.getvalue()


def pixels(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def assert_refused(content: bytes, message: str) -> None:
    # Pillow itself must accept the content, or the test would be pointless.
    pixels(content)
    with pytest.raises(ImageError, match=f"^damaged or truncated image photo: {message}; download or export it again$"):
        decode_image(content, "photo")


KINDS = [
    {},
    {"subsampling": 0, "quality": 95},
    {"optimize": True},
    {"restart_marker_rows": 1},
    {"restart_marker_blocks": 3},
    {"progressive": True},
    {"progressive": True, "restart_marker_blocks": 3},
]


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_complete_jpeg_keeps_its_pixels(options, mode):
    for size in [(120, 90), (17, 9), (8, 8), (1, 1)]:
        for behind in [b"", b"\0\xff\xd8 a trailer \xff\xd9"]:
            content = encoded("JPEG", Image.fromarray(smooth()).resize(size).convert(mode), **options) + behind
            assert np.array_equal(np.asarray(decode_image(content, "photo")), pixels(content))


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_truncated_jpeg_with_an_end_marker_is_refused(options, mode):
    content = encoded("JPEG", Image.fromarray(smooth()).convert(mode), **options)
    first = content.index(b"\xff\xda") + 14
    for share in (0.05, 0.3, 0.6, 0.9, 0.97):
        cut = content[: first + int((len(content) - first) * share)] + b"\xff\xd9"
        assert_refused(cut, "(image file is truncated .*|some of its scans are missing|its last scan ends early)")


def test_a_jpeg_cut_between_two_scans_is_refused():
    content = encoded("JPEG", progressive=True)
    scans = [i for i in range(len(content)) if content[i : i + 2] == b"\xff\xda"]
    assert len(scans) == 10
    for scan in scans[2:]:
        # A table in front of a scan belongs to that scan.
        assert_refused(content[:scan] + b"\xff\xd9", "(some of its scans are missing|its last scan ends early)")


def test_a_jpeg_of_too_many_scans_is_refused():
    content = encoded("JPEG", Image.fromarray(smooth()).convert("L"), progressive=True)
    last = content.rindex(b"\xff\xda")
    bomb = content[:last] + content[last:-2] * MAX_SCANS + b"\xff\xd9"
    with pytest.raises(ImageError, match=f"expected a JPEG of at most {MAX_SCANS} scans, got {MAX_SCANS + 1}"):
        decode_image(bomb, "photo")


def test_an_mpo_is_read_as_jpeg():
    frames = [Image.fromarray(smooth()), Image.fromarray(smooth()[::-1])]
    content = encoded("MPO", frames[0], save_all=True, append_images=frames[1:])
    with Image.open(io.BytesIO(content)) as image:
        assert (image.format, image.n_frames) == ("MPO", 2)
    assert np.array_equal(np.asarray(decode_image(content, "photo")), pixels(content))
    middle = content.index(b"\xff\xda") + 500
    assert_refused(content[:middle] + b"\xff\xd9" + content[middle:], r"image file is truncated .*")


def test_exif_rotation_of_a_jpeg_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(smooth()).save(tmp_path / "photo.jpg", exif=exif)
    assert open_image(tmp_path / "photo.jpg").size == (90, 120)


def png(rows: int, image: np.ndarray, interlace: int = 0, split: int = 50) -> bytes:
    """A PNG with valid chunks and end, but only `rows` rows."""

    height, width = image.shape[:2]
    depth, color = (8, 2) if image.dtype == np.uint8 else (16, 0)
    parts = [image] if not interlace else [image[r::dr, c::dc] for r, c, dr, dc in PASSES]
    lines = [b"\0" + line.astype(image.dtype.newbyteorder(">")).tobytes() for part in parts if part.size for line in part]
    packed = zlib.compress(b"".join(lines[:rows]))
    data = [packed[i : i + split] for i in range(0, len(packed), split)]
    return png_file(width, height, depth, data, color, interlace)


PASSES = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]


def windowed(image):
    """Samples of 16 bits, from the smallest as black to the largest as white; of a single gray level, the highest eight bits."""
    low, high = (int(image.min()), int(image.max())) if image.min() < image.max() else (0, 65_535)
    return np.floor((image - float(low)) / (high - low + 1) * 256)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("interlace", [0, 1])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_png_without_its_last_rows_is_refused(dark, interlace, depth):
    for height, width in ((90, 120), (5, 3), (1, 1)):
        image = smooth()[:height, :width].astype(depth) + 1
        image = (image if depth == np.uint8 else image[..., 0] * 200) * (not dark)
        expected = image[..., 0] if depth == np.uint8 else windowed(image)
        assert np.array_equal(np.asarray(decode_image(png(10_000, image, interlace), "photo"))[..., 0], expected)
        total = sum(-(-(height - r) // dr) for r, c, dr, _ in PASSES if height > r and width > c) if interlace else height
        for rows in {total - 1, total // 2, total // 20} - {0}:
            with pytest.raises(ImageError, match=r"(image file is truncated|its data end before its last row)"):
                decode_image(png(rows, image, interlace), "photo")


@pytest.mark.parametrize("interlace", [0, 1])
def test_a_png_whose_compressed_data_end_early_is_refused(interlace):
    assert_refused(png(9, smooth() * 0, interlace), "its data end before its last row")
    assert_refused(png(6, smooth(), interlace, split=10_000), "its data end before its last row")


def test_a_tiff_without_its_last_strips_is_refused():
    content = bytearray(encoded("TIFF", Image.fromarray(smooth()[:20])))
    directory = struct.unpack("<I", content[4:8])[0]
    for place in range(directory + 2, directory + 2 + 12 * struct.unpack("<H", content[directory : directory + 2])[0], 12):
        if struct.unpack("<H", content[place : place + 2])[0] == 257:
            content[place + 2 : place + 12] = struct.pack("<HII", 4, 1, 90)
    assert_refused(bytes(content), "some of its strips are missing")


COMPRESSIONS = [None, "tiff_deflate", "tiff_lzw", "packbits", "jpeg"]


@pytest.mark.parametrize(
    ("compression", "mode"),
    # JPEG compression does not support 1-bit images.
    [(compression, mode) for mode in ("RGB", "L", "1") for compression in COMPRESSIONS if (compression, mode) != ("jpeg", "1")],
)
def test_a_complete_tiff_keeps_its_pixels(compression, mode):
    content = encoded("TIFF", Image.fromarray(smooth()).convert(mode), compression=compression, strip_size=1000)
    assert np.array_equal(np.asarray(decode_image(content, "photo")), pixels(content))

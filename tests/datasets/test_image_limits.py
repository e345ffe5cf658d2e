"""Files that are refused before they are decoded: too large, not a supported format, not a regular file."""

import io
import os
import re
import socket
import struct

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageFile
from png_files import png_without_pixels

from vitrail.core.errors import ImageError, InvalidInputError
from vitrail.datasets.dataset import LabeledFiles, Unreadable
from vitrail.datasets.file_search import SUFFIXES
from vitrail.datasets.image_io import FORMATS, decode_image, open_image, read_image
from vitrail.datasets.image_limits import MAX_ASPECT, MAX_SIDE, VARIABLE
from vitrail.datasets.mask_files import read_mask


@pytest.fixture
def undecoded(monkeypatch):
    """Fail if anything is decoded."""
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (
            (11_000, 11_000),
            "at most 120,000,000 pixels, got .*11000x11000 pixels.*; scale it down first, or set VITRAIL_MAX_MEGAPIXELS",
        ),
        ((1, 178_000_000), "at most 120,000,000 pixels, got .*1x178000000"),
        ((MAX_SIDE + 1, 100), "at most 65,535 pixels a side, got .*65536x100"),
        ((1, 49_999), "at most 10,000 times the shorter one, got .*1x49999"),
        ((2 * MAX_ASPECT + 1, 2), "at most 10,000 times the shorter one, got .*20001x2"),
    ],
)
@pytest.mark.parametrize("way", ["file", "memory", "mask", "data set"])
def test_images_that_are_too_large_are_not_decoded(tmp_path, undecoded, size, message, way):
    path = tmp_path / "photo.png"
    path.write_bytes(png_without_pixels(*size))
    if way == "data set":
        sample = LabeledFiles([path], [0], ["a"], lambda image: pytest.fail("decoded"))[0]
        assert isinstance(sample, Unreadable)
        assert re.search(message, sample.reason)
        return
    with pytest.raises(ImageError, match=message):
        {"file": open_image, "mask": read_mask, "memory": lambda _: decode_image(path.read_bytes(), "photo")}[way](path)


def test_images_at_the_limits_are_opened(tmp_path):
    for size in ((2 * MAX_ASPECT, 2), (1, MAX_ASPECT)):
        Image.new("L", size).save(tmp_path / "photo.png")
        assert open_image(tmp_path / "photo.png").size == size


def test_the_environment_variable_sets_the_limit(tmp_path, monkeypatch):
    Image.new("L", (100, 100)).save(tmp_path / "photo.png")
    monkeypatch.setenv(VARIABLE, "0.01")
    assert open_image(tmp_path / "photo.png").size == (100, 100)
    monkeypatch.setenv(VARIABLE, "0.009999")
    with pytest.raises(ImageError, match="at most 9,999 pixels"):
        open_image(tmp_path / "photo.png")
    # An explicit limit takes precedence.
    assert decode_image((tmp_path / "photo.png").read_bytes(), "photo", 10_000).size == (100, 100)


@pytest.mark.parametrize("text", ["many", "0", "-3", "nan", "inf", "1000", "1e-9"])
def test_a_bad_value_of_the_environment_variable_is_refused(tmp_path, monkeypatch, text):
    Image.new("L", (2, 2)).save(tmp_path / "photo.png")
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(
        InvalidInputError, match=f"expected {VARIABLE} to be a number between 0.000001 and 178.96, got '{text}'"
    ):
        open_image(tmp_path / "photo.png")


def test_large_tiles_are_refused(tmp_path, undecoded):
    entries = [
        (256, 10), (257, 10), (258, 8), (259, 8), (262, 1), (277, 1), (322, 40_000), (323, 40_000), (324, 8), (325, 4)
    ]  # fmt: skip
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    (tmp_path / "photo.tif").write_bytes(b"II*\0" + struct.pack("<I", 12) + bytes(4) + directory + bytes(4))
    with pytest.raises(ImageError, match=r"got .*tiles of 40000x40000 pixels"):
        open_image(tmp_path / "photo.tif")


def test_images_written_as_text_have_a_lower_limit(tmp_path, undecoded):
    (tmp_path / "photo.ppm").write_bytes(b"P3 2001 2000 255\n1 2 3")
    with pytest.raises(ImageError, match="at most 4,000,000 pixels in an image that is written as text"):
        open_image(tmp_path / "photo.ppm")


def test_a_huge_file_is_not_read(tmp_path):
    with (tmp_path / "photo.webp").open("wb") as file:
        file.write(b"RIFF....WEBP")
        file.truncate(1_000_000_001)
    with pytest.raises(ImageError, match="at most 1,000 MB, got 1,000 MB"):
        open_image(tmp_path / "photo.webp")


def test_a_memory_error_is_raised_as_an_image_error(tmp_path, monkeypatch):
    def fail(image):
        raise MemoryError

    Image.new("L", (20, 30)).save(tmp_path / "photo.png")
    with pytest.raises(ImageError, match=r"^not enough memory for .*photo.png \(20x30 pixels\)"):
        read_image(tmp_path / "photo.png", fail)


def foreign(kind: str) -> bytes:
    if kind == "EPS":
        return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    stream = io.BytesIO()
    Image.new("RGB", (16, 16)).save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["EPS", "ICO", "TGA", "PCX", "SGI"])
@pytest.mark.parametrize("read", [open_image, read_mask, lambda path: decode_image(path.read_bytes(), str(path))])
def test_other_formats_are_not_decoded(tmp_path, monkeypatch, undecoded, kind, read):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("started Ghostscript"))
    path = tmp_path / "photo.jpg"
    path.write_bytes(foreign(kind))
    with pytest.raises(ImageError, match=rf"^expected an image file \({', '.join(FORMATS)}\), got something else: "):
        read(path)


def test_every_suffix_belongs_to_a_supported_format():
    Image.init()
    known = {**Image.registered_extensions(), ".dib": "BMP"}
    assert {"JPEG" if known[suffix] == "MPO" else known[suffix] for suffix in SUFFIXES if suffix in known} <= {*FORMATS}
    assert all(suffix in known or suffix in (".avif", ".dcm") for suffix in SUFFIXES)  # DICOM is read by pydicom.


@pytest.mark.parametrize("read", [open_image, read_mask])
def test_only_regular_files_are_opened(tmp_path, read):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as plug:
        plug.bind(str(tmp_path / "plug.png")) if len(str(tmp_path)) < 90 else pytest.skip("the path is too long for a socket")
    for name, kind in (("pipe.png", "the named pipe"), ("link.png", "the named pipe"), ("plug.png", "the socket")):
        with pytest.raises(ImageError, match=f"^expected an image file, got {kind} {tmp_path / name}$"):
            read(tmp_path / name)
    with pytest.raises(ImageError, match=r"^expected an image file, got the device /dev/zero$"):
        read("/dev/zero")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "I;16", "F", "P"])
def test_conversion_in_bands_does_not_change_pixels(tmp_path, monkeypatch, mode):
    rng = np.random.default_rng(0)
    if mode == "F":
        image = Image.fromarray(rng.random((40, 30), np.float32))
    elif mode == "I;16":
        image = Image.fromarray(rng.integers(0, 65536, (40, 30), np.uint16))
    else:
        image = Image.fromarray(rng.integers(0, 256, (40, 30, 4), np.uint8)).convert(mode if mode != "P" else "L").convert(mode)
    path = tmp_path / "photo.tif"
    image.save(path)
    whole = open_image(path)
    monkeypatch.setattr("vitrail.datasets.rgb._BAND", 100)
    assert np.array_equal(np.asarray(open_image(path)), np.asarray(whole))
    assert len(np.unique(np.asarray(whole))) > 50

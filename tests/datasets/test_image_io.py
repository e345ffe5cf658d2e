"""Opening image files: every mode, depth and format as upright RGB, and an error for every unusable file."""

import io
import re
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from png_files import png_without_pixels

from vitrail.core.errors import ImageError
from vitrail.datasets.image_io import FORMATS, open_image
from vitrail.datasets.image_limits import MAX_PIXELS, VARIABLE

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def noise(height: int = 64, width: int = 80, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(noise()).save(stream, kind)
    return stream.getvalue()


def opened(path: Path) -> np.ndarray:
    image = open_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def assert_refused(path: Path, message: str) -> None:
    with pytest.raises(ImageError, match=f"^{re.escape(message)}$"):
        open_image(path)


def test_a_plain_photo_keeps_its_pixels(tmp_path):
    Image.fromarray(noise()).save(tmp_path / "photo.png")
    assert np.array_equal(opened(tmp_path / "photo.png"), noise())
    assert np.array_equal(np.asarray(open_image(str(tmp_path / "photo.png"))), noise())


def test_the_format_is_detected_by_content(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(encoded("PNG"))
    assert np.array_equal(opened(tmp_path / "photo.jpg"), noise())


def test_a_missing_file(tmp_path):
    assert_refused(tmp_path / "photo.jpg", f"no such image file: {tmp_path / 'photo.jpg'}")


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("text")
    assert_refused(tmp_path / "file" / "photo.jpg", f"cannot read {tmp_path / 'file' / 'photo.jpg'}: Not a directory")


def test_a_file_name_that_is_too_long(tmp_path):
    with pytest.raises(ImageError, match="File name too long"):
        open_image(tmp_path / ("n" * 300 + ".jpg"))


def test_a_folder(tmp_path):
    assert_refused(tmp_path, f"expected an image file, got the folder {tmp_path}")


def test_an_empty_file(tmp_path):
    path = tmp_path / "photo.jpg"
    path.touch()
    assert_refused(path, f"expected an image file, got an empty one (0 bytes): {path}")


def test_a_text_file_named_like_a_photo(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_text("<html>404 not found</html>" * 50)
    assert_refused(path, f"expected an image file ({', '.join(FORMATS)}), got something else: {path}")


def test_a_photo_of_a_phone_is_named_as_such(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500))
    assert_refused(
        path, f"expected an image file ({', '.join(FORMATS)}), got HEIC, as phones store photos (export it as JPEG): {path}"
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_truncated_file(tmp_path, kind):
    path = tmp_path / "photo.jpg"
    content = encoded(kind)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(
        ImageError, match=f"^damaged or truncated image {re.escape(str(path))}: .+; download or export it again$"
    ):
        open_image(path)


def test_a_file_truncated_in_its_header(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(encoded("PNG")[:10])
    with pytest.raises(ImageError, match=re.escape(str(path))):
        open_image(path)


def test_damaged_pixels(tmp_path):
    content = bytearray(encoded("PNG"))
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    (tmp_path / "photo.png").write_bytes(content)
    with pytest.raises(ImageError, match=r"^damaged or truncated image"):
        open_image(tmp_path / "photo.png")


@pytest.mark.parametrize(
    ("name", "mode"),
    [("photo.png", "I;16"), ("photo.tif", "I;16"), ("big-endian.tif", "I;16B")],
    ids=["PNG", "TIFF", "TIFF big-endian"],
)
def test_16_bit_samples_are_scaled(tmp_path, name, mode):
    values = np.array([[0, 255, 256, 257], [511, 32767, 32768, 40000], [51200, 65279, 65280, 65535]], np.uint16)
    order = ">" if mode == "I;16B" else "<"
    image = Image.frombytes(mode, (4, 3), values.astype(f"{order}u2").tobytes())
    image.save(tmp_path / name)
    with Image.open(tmp_path / name) as stored:
        assert stored.mode == mode
    expected = np.repeat((values // 256).astype(np.uint8)[..., None], 3, 2)
    assert np.array_equal(opened(tmp_path / name), expected)


def test_float_samples_are_scaled_from_0_to_1(tmp_path):
    values = np.array([[0, 0.25, 0.5], [0.75, 0.9, 1]], np.float32)
    Image.fromarray(values).save(tmp_path / "photo.tif")
    with Image.open(tmp_path / "photo.tif") as stored:
        assert stored.mode == "F"
    expected = np.repeat((values * 255)[..., None], 3, 2)
    assert np.abs(opened(tmp_path / "photo.tif") - expected).max() <= 1


@pytest.mark.parametrize(("value", "index"), [(1.02, 0), (255.0, 1), (-0.1, 2), (np.nan, 0), (np.inf, 1), (-np.inf, 2)])
def test_a_float_sample_out_of_range_is_refused(tmp_path, value, index):
    values = np.full((1, 3), 0.5, np.float32)
    values[0, index] = value
    path = tmp_path / "photo.tif"
    Image.fromarray(values).save(path)
    with pytest.raises(
        ImageError, match=rf"^cannot use {re.escape(str(path))}: expected floating-point samples between 0 .* and 1"
    ):
        open_image(path)


@pytest.mark.parametrize("largest", [200, 60_000, 2**31 - 1])
def test_32_bit_integers_are_refused(tmp_path, largest):
    Image.fromarray(np.array([[0, largest]], np.int32)).save(tmp_path / "photo.tif")
    with pytest.raises(ImageError, match="expected samples of 8 or 16 bits, got 32-bit integers"):
        open_image(tmp_path / "photo.tif")


def test_a_dark_16_bit_image_is_windowed(tmp_path):
    # Pillow opens it with 32-bit samples.
    (tmp_path / "photo.pgm").write_bytes(b"P5 3 1 65535\n" + np.array([0, 200, 512], ">u2").tobytes())
    assert opened(tmp_path / "photo.pgm")[0, :, 0].tolist() == [0, 99, 255]


def tiff(bits: int, photometric: int, samples: bytes) -> bytes:
    """A gray-scale TIFF of two pixels."""
    entries = [(256, 2), (257, 1), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1), (278, 1), (279, len(samples))]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0" + struct.pack("<I", 12) + samples.ljust(4, b"\0") + directory + bytes(4)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (tiff(12, 1, b"\x00\x0f\xff"), [0, 255]),
        (tiff(16, 1, b"\x00\x00\xff\xff"), [0, 255]),
        (tiff(16, 0, b"\x00\x00\xff\xff"), [255, 0]),
        (tiff(8, 0, b"\x00\xff"), [255, 0]),
    ],
    ids=["12 bits", "16 bits", "16 bits, white is 0", "8 bits, white is 0"],
)
def test_tiff_tags_determine_depth_and_white_level(tmp_path, content, expected):
    (tmp_path / "photo.tif").write_bytes(content)
    assert opened(tmp_path / "photo.tif")[0, :, 0].tolist() == expected


def test_cmyk_jpeg(tmp_path):
    cyan, magenta, yellow, black = ink = (200, 30, 90, 40)
    Image.new("CMYK", (16, 16), ink).save(tmp_path / "photo.jpg", quality=100, subsampling=0)
    with Image.open(tmp_path / "photo.jpg") as stored:
        assert stored.mode == "CMYK"
    expected = np.array([(255 - part) * (255 - black) / 255 for part in (cyan, magenta, yellow)])
    assert np.abs(opened(tmp_path / "photo.jpg") - expected).max() <= 3


def make_palette_image() -> Image.Image:
    image = Image.new("P", (2, 2))
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putdata([0, 1, 2, 1])
    return image


def test_palette_image(tmp_path):
    make_palette_image().save(tmp_path / "photo.png")
    assert opened(tmp_path / "photo.png").tolist() == [[list(RED), list(GREEN)], [list(BLUE), list(GREEN)]]


@pytest.mark.parametrize("name", ["photo.png", "photo.gif"])
def test_a_transparent_palette_entry_is_white(tmp_path, name):
    make_palette_image().save(tmp_path / name, transparency=1)
    assert opened(tmp_path / name).tolist() == [[list(RED), list(WHITE)], [list(BLUE), list(WHITE)]]


def test_a_transparent_color_is_white(tmp_path):
    make_palette_image().convert("RGB").save(tmp_path / "photo.png", transparency=GREEN)
    assert opened(tmp_path / "photo.png").tolist() == [[list(RED), list(WHITE)], [list(BLUE), list(WHITE)]]


@pytest.mark.parametrize("alpha", [0, 1, 128, 254, 255])
@pytest.mark.parametrize(
    ("mode", "color", "suffix"),
    [
        ("RGBA", (200, 0, 90), ".png"),
        ("RGBA", (200, 0, 90), ".tif"),
        ("RGBA", (200, 0, 90), ".webp"),
        ("LA", (60,), ".png"),
        ("LA", (60,), ".tif"),
    ],
)
def test_transparent_pixels_are_blended_over_white(tmp_path, mode, color, alpha, suffix):
    path = tmp_path / f"photo{suffix}"
    Image.new(mode, (4, 4), (*color, alpha)).save(path, **({"lossless": True, "exact": True} if suffix == ".webp" else {}))
    rgb = color * 3 if mode == "LA" else color
    expected = np.array([value * alpha / 255 + 255 * (1 - alpha / 255) for value in rgb])
    assert np.abs(opened(path) - expected).max() <= 1


def test_1_bit_image(tmp_path):
    Image.fromarray(np.array([[True, False], [False, True]])).save(tmp_path / "photo.png")
    with Image.open(tmp_path / "photo.png") as stored:
        assert stored.mode == "1"
    assert opened(tmp_path / "photo.png")[..., 1].tolist() == [[255, 0], [0, 255]]


def test_gray_scale_image(tmp_path):
    gray = noise()[..., 0]
    Image.fromarray(gray).save(tmp_path / "photo.png")
    assert np.array_equal(opened(tmp_path / "photo.png"), np.stack([gray] * 3, 2))


ORIENTATIONS = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}
"""Table of the EXIF standard: the sides of the scene that the first row and the first column show."""


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_rotation_is_applied(tmp_path, orientation, suffix):
    stored = noise(2, 3)
    sides = ORIENTATIONS[orientation]
    turned = sides[0] in ("left", "right")
    height, width = (3, 2) if turned else (2, 3)
    upright = np.zeros((height, width, 3), np.uint8)
    for row in range(2):
        for col in range(3):
            from_side = dict(zip(sides, (row, col), strict=True))
            y = from_side["top"] if "top" in from_side else height - 1 - from_side["bottom"]
            x = from_side["left"] if "left" in from_side else width - 1 - from_side["right"]
            upright[y, x] = stored[row, col]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == ".webp" else {}
    Image.fromarray(stored).save(tmp_path / f"photo{suffix}", exif=exif, **options)
    assert np.array_equal(opened(tmp_path / f"photo{suffix}"), upright)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_an_animation_yields_its_first_frame(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 6), color) for color in (RED, BLUE, GREEN)]
    path = tmp_path / f"photo{suffix}"
    frames[0].save(
        path, save_all=True, append_images=frames[1:], duration=100, **({"lossless": True} if suffix == ".webp" else {})
    )
    with Image.open(path) as stored:
        assert stored.n_frames == 3
    assert np.array_equal(opened(path), np.broadcast_to(np.array(RED, np.uint8), (6, 8, 3)))


@pytest.mark.parametrize("limit_of_pillow", [Image.MAX_IMAGE_PIXELS, None])
def test_a_huge_image_is_refused_before_it_is_decoded(tmp_path, monkeypatch, limit_of_pillow):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit_of_pillow)
    path = tmp_path / "photo.png"
    path.write_bytes(png_without_pixels(30_000, 30_000))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("decoded"))
    start = time.perf_counter()
    with pytest.raises(
        ImageError,
        match=rf"^expected an image of at most [\d,]+ pixels, got {re.escape(str(path))} \(.+\); scale it down first, or set {VARIABLE}$",
    ):
        open_image(path)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(("width", "accepted"), [(MAX_PIXELS // 10_000, True), (MAX_PIXELS // 10_000 + 1, False)])
def test_the_limit_of_pixels_is_exact(tmp_path, monkeypatch, width, accepted):
    path = tmp_path / "photo.png"
    path.write_bytes(png_without_pixels(width, 10_000))

    def stop(_):
        raise OSError("decoding began")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", stop)
    with pytest.raises(
        ImageError, match="decoding began" if accepted else f"^expected an image of at most {MAX_PIXELS:,} pixels, got "
    ):
        open_image(path)


def test_a_panorama_is_accepted(tmp_path, recwarn):
    Image.new("RGB", (30_000, 100), RED).save(tmp_path / "photo.png")
    assert open_image(tmp_path / "photo.png").size == (30_000, 100)
    assert not recwarn.list


def test_a_large_photo_is_accepted_without_a_warning(tmp_path, recwarn):
    Image.new("1", (10_000, 9_500)).save(tmp_path / "photo.png")
    assert open_image(tmp_path / "photo.png").size == (10_000, 9_500)
    assert not recwarn.list


def test_the_file_is_closed(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(encoded("PNG"))
    image = open_image(path)
    path.write_bytes(b"gone")
    assert np.array_equal(np.asarray(image), noise())

"""Uploads: large, damaged or foreign files are refused."""

import struct
import zlib

import pytest
from PIL import EpsImagePlugin, Image, ImageFile
from samples import noisy_photo

from vitrail.adapters import bundled_models
from vitrail.app.limits import Limits
from vitrail.app.photos import list_examples, open_upload
from vitrail.core.errors import ImageError, InvalidInputError
from vitrail.datasets.windowing import read_note


def bomb(path, side, height=None):
    """Write a small PNG file whose header claims a huge size."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, height or side, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )
    return path


def test_photo_is_opened(tmp_path):
    noisy_photo(0).save(tmp_path / "photo.png")
    opened = open_upload(tmp_path / "photo.png", Limits(), tmp_path)
    assert opened.mode == "RGB"
    assert list(opened.getdata()) == list(noisy_photo(0).getdata())


@pytest.mark.parametrize("side", [7100, 16_000])
def test_huge_photo_is_refused_before_decoding(tmp_path, side, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ImageError, match="expected an image of at most 50,000,000 pixels, got bomb"):
        open_upload(bomb(tmp_path / "bomb.png", side), Limits())


@pytest.mark.parametrize(("width", "height"), [(1, 49_999_999), (49_999_999, 1), (16_385, 10), (60_000, 60_000)])
def test_long_side_is_refused_before_decoding(tmp_path, width, height, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ImageError, match=f"at most 16,384 pixels a side, got {width:,}x{height:,}|at most 50,000,000 pixels"):
        open_upload(bomb(tmp_path / "bomb.png", width, height), Limits())


def test_longest_side_is_accepted(tmp_path):
    Image.new("L", (4, 16_384)).save(tmp_path / "thin.png")
    assert open_upload(tmp_path / "thin.png", Limits()).size == (4, 16_384)


def icon_bomb(path, side):
    """Write an icon with a huge PNG inside, which Pillow would decode when it opens the icon."""
    content = bomb(path, side).read_bytes()
    path.write_bytes(struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, len(content), 22) + content)
    return path


def postscript(path, _):
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n")
    return path


@pytest.mark.parametrize("make", [icon_bomb, postscript])
def test_other_formats_are_never_decoded(tmp_path, make, monkeypatch):
    path = make(tmp_path / "photo.png", 13_000)
    assert path.stat().st_size < 1300
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(ImageError, match=r"expected an image file \(JPEG, PNG, WEBP, GIF, BMP, TIFF\), got something else"):
        open_upload(path, Limits(), tmp_path)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "MPO"])
def test_accepted_formats_are_opened(tmp_path, name):
    noisy_photo(0).save(tmp_path / "photo", name)
    assert open_upload(tmp_path / "photo", Limits(), tmp_path).size == noisy_photo(0).size


def test_number_of_pixels_is_limited(tmp_path):
    noisy_photo(0, (20, 24)).save(tmp_path / "photo.png")
    assert open_upload(tmp_path / "photo.png", Limits(num_pixels=480)).size == (20, 24)
    with pytest.raises(ImageError, match="at most 479 pixels"):
        open_upload(tmp_path / "photo.png", Limits(num_pixels=479))


def test_large_file_is_refused(tmp_path):
    (tmp_path / "large").write_bytes(b"\0" * 2001)
    with pytest.raises(ImageError, match=r"at most 0\.002 MB"):
        open_upload(tmp_path / "large", Limits(num_bytes=2000))


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n broken", b"<svg xmlns='x'/>"])
def test_errors_contain_no_path(tmp_path, content):
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(ImageError) as caught:
        open_upload(tmp_path / "bad.png", Limits(), tmp_path)
    assert "bad.png" in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("where", ["elsewhere/photo.png", "uploads/../elsewhere/photo.png", "uploads/link.png"])
def test_only_uploads_are_opened(tmp_path, where):
    (tmp_path / "uploads").mkdir()
    (tmp_path / "elsewhere").mkdir()
    noisy_photo(0).save(tmp_path / "elsewhere" / "photo.png")
    (tmp_path / "uploads" / "link.png").symlink_to(tmp_path / "elsewhere" / "photo.png")
    with pytest.raises(ImageError, match="expected an uploaded photo, got a path"):
        open_upload(tmp_path / where, Limits(), tmp_path / "uploads")


@pytest.mark.parametrize("nothing", [None, ""])
def test_missing_upload_is_reported(nothing):
    with pytest.raises(ImageError, match="there is no photo yet"):
        open_upload(nothing, Limits())


def test_removed_photo_is_reported(tmp_path):
    with pytest.raises(ImageError, match="upload it again"):
        open_upload(tmp_path / "gone.png", Limits(), tmp_path)


@pytest.mark.parametrize("wrong", [{"num_bytes": 0}, {"num_waiting": -1}, {"num_pixels": 10**9}])
def test_bad_limits_are_refused(wrong):
    with pytest.raises(InvalidInputError, match="expected num_"):
        Limits(**wrong)


def test_examples_keep_a_model_that_knows_them():
    bird = list_examples()["bird 1"]
    offered = ["vitrail:hit-cifar10", "vitrail:vit-birds", "vitrail:intr-birds"]
    assert bird.choose_model("vitrail:hit-cifar10", offered) == "vitrail:vit-birds"
    assert bird.choose_model("vitrail:intr-birds", offered) == "vitrail:intr-birds"
    assert bird.choose_model("mine", ["mine", "timm:resnet18"]) == "mine"
    assert all(name in {f"vitrail:{bundled}" for bundled in bundled_models()} for name in bird.models)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("movie.gif", "only the first picture of this file is used"),
        ("still.gif", ""),
        ("clear.png", "transparent parts are shown, and explained, as white"),
        ("opaque.png", ""),
        ("float.tif", "floating-point samples, drawn from 0 (black) to 1 (white)"),
    ],
)
def test_notes_say_how_photos_were_converted(tmp_path, name, words):
    first, second = (Image.new("L", (8, 8), color) for color in (0, 255))
    picture = {"clear.png": first.convert("LA"), "float.tif": Image.new("F", (8, 8), 0.5)}.get(name, first)
    picture.save(tmp_path / name, **({"save_all": True, "append_images": [second]} if name == "movie.gif" else {}))
    assert read_note(open_upload(tmp_path / name, Limits())) == words

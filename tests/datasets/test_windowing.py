"""Gray photos of 16 bits: windowed by their range, and said."""

import io
import itertools
import logging
import struct

import numpy as np
import pytest
from PIL import Image

from vitrail.adapters import Preprocessing
from vitrail.core.errors import ImageError, InvalidInputError
from vitrail.datasets.image_io import decode_image, open_image
from vitrail.datasets.photo_objects import open_photos
from vitrail.datasets.windowing import read_note, stretch


@pytest.fixture(autouse=True)
def _reset_notes(monkeypatch):
    monkeypatch.setattr("vitrail.datasets.windowing._num_notes", itertools.count())


def save(path, samples):
    Image.fromarray(samples).save(path)
    return path


@pytest.mark.parametrize("name", ["scan.png", "scan.tif"])
def test_range_becomes_black_to_white(tmp_path, name, caplog):
    samples = np.linspace(900, 4100, 64).astype(np.uint16).reshape(8, 8)
    with caplog.at_level(logging.WARNING, "vitrail"):
        image = open_image(save(tmp_path / name, samples))
    gray = np.asarray(image)[..., 0].astype(int)
    assert gray.min() == 0
    assert gray.max() == 255
    # Linear, up to the rounding of both.
    assert np.abs(gray - (samples.astype(float) - 900) / 3200 * 255).max() <= 1
    assert read_note(image) == "16-bit gray samples from 900 to 4,100, drawn from black to white"
    assert "from 900 to 4,100" in caplog.text


def test_full_range_is_unchanged_and_needs_no_note(tmp_path, caplog):
    samples = np.array([[0, 1000], [40_000, 65_535]], np.uint16)
    with caplog.at_level(logging.WARNING, "vitrail"):
        image = open_image(save(tmp_path / "full.png", samples))
    assert np.array_equal(np.asarray(image)[..., 0], samples // 256)
    assert read_note(image) == ""
    assert caplog.text == ""


def test_one_gray_level_stays_what_it_is(tmp_path):
    image = open_image(save(tmp_path / "flat.png", np.full((4, 4), 32_768, np.uint16)))
    assert np.unique(np.asarray(image)).tolist() == [128]


def test_samples_outside_of_the_window_do_not_wrap_around():
    assert stretch(np.array([[-5, 0, 65_535, 70_000]]), 0, 65_535).tolist() == [[0, 0, 255, 255]]


def test_only_the_first_photo_is_a_warning(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "vitrail"):
        for brightest in (1000, 2000):
            open_image(save(tmp_path / "scan.png", np.array([[0, brightest]], np.uint16)))
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "likewise for each such photo" in caplog.records[0].message


def test_signed_tiff(tmp_path):
    samples = np.array([-1024, 0, 1024, 3071], "<i2")
    entries = [(256, 4), (257, 1), (258, 16), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 8), (339, 2)]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    (tmp_path / "ct.tif").write_bytes(b"II*\0" + struct.pack("<I", 16) + samples.tobytes() + directory + bytes(4))
    image = open_image(tmp_path / "ct.tif")
    assert np.asarray(image)[0, :, 0].tolist() == [0, 64, 128, 255]
    assert "from -1,024 to 3,071" in read_note(image)


def test_large_photos_have_one_window_in_all_bands(tmp_path, monkeypatch):
    samples = np.arange(100, 1700, dtype=np.uint16).reshape(40, 40)
    whole = open_image(save(tmp_path / "scan.png", samples))
    monkeypatch.setattr("vitrail.datasets.rgb._BAND", 100)
    banded = open_image(tmp_path / "scan.png")
    assert np.array_equal(np.asarray(banded), np.asarray(whole))
    assert read_note(banded) == read_note(whole) != ""


def test_arrays_bytes_and_pictures_are_windowed_alike(tmp_path):
    samples = np.linspace(50, 900, 48 * 48).astype(np.uint16).reshape(48, 48)
    content = save(tmp_path / "scan.png", samples).read_bytes()
    forms = [samples, samples[..., None], content, io.BytesIO(content), Image.fromarray(samples), str(tmp_path / "scan.png")]
    pixels = [np.asarray(photo.photo) for photo in open_photos(forms, Preprocessing())]
    assert len(pixels) == len(forms)
    assert all(np.array_equal(each, pixels[0]) for each in pixels)
    assert pixels[0].max() == 255


def test_other_arrays_are_still_refused():
    for array in (np.zeros((8, 8, 3), np.uint16), np.zeros((8, 8), np.int32), np.zeros((8, 8), np.float64)):
        with pytest.raises(InvalidInputError, match="uint16 if it is gray"):
            list(open_photos(array, Preprocessing()))


def test_32_bit_integers_are_still_refused(tmp_path):
    content = io.BytesIO()
    Image.fromarray(np.array([[0, 70_000]], np.int32)).save(content, "TIFF")
    with pytest.raises(ImageError, match="32-bit integers"):
        decode_image(content.getvalue(), "scan")

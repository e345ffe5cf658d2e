"""DICOM files: what pydicom computes is what is drawn, and what cannot be trusted is refused in a sentence."""

import io
import sys

import numpy as np
import pytest
from dicom_files import dicom_file
from PIL import Image

from vitrail.adapters import Preprocessing
from vitrail.core.errors import ImageError
from vitrail.datasets.file_search import images_below
from vitrail.datasets.image_io import decode_image, open_image
from vitrail.datasets.photo_objects import open_photos
from vitrail.datasets.windowing import read_note

pydicom = pytest.importorskip("pydicom", reason="needs the extra medical")

SAMPLES = np.linspace(0, 4095, 24 * 20).astype(np.uint16).reshape(24, 20)


def gray(content: bytes) -> np.ndarray:
    pixels = np.asarray(decode_image(content, "scan.dcm"))
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


def pydicom_gray(content: bytes) -> np.ndarray:
    """The window by pydicom itself, scaled to 8 bits."""
    dataset = pydicom.dcmread(io.BytesIO(content))
    rescaled = pydicom.pixels.apply_modality_lut(dataset.pixel_array, dataset)
    shown = pydicom.pixels.apply_windowing(rescaled, dataset).astype(float)
    # It maps to the range of the samples, rescaled.
    low, high = (
        value * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0)) for value in (0, 4095)
    )
    return (shown - low) / (high - low) * 255


@pytest.mark.parametrize("function", [None, "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("rescale", [{}, {"RescaleSlope": 2, "RescaleIntercept": -1024}])
def test_window_of_the_file_is_that_of_pydicom(function, rescale):
    fields = {"WindowCenter": 600, "WindowWidth": 1500} | rescale | ({"VOILUTFunction": function} if function else {})
    content = dicom_file(SAMPLES, **fields)
    assert np.abs(gray(content) - pydicom_gray(content)).max() <= 0.51
    assert 0 < gray(content).mean() < 255


def test_first_of_several_windows_is_used():
    content = dicom_file(SAMPLES, WindowCenter=[600, 40], WindowWidth=[1500, 400])
    image = decode_image(content, "scan.dcm")
    assert read_note(image) == "DICOM, window of the file: center 600, width 1500"
    assert np.array_equal(gray(content), gray(dicom_file(SAMPLES, WindowCenter=600, WindowWidth=1500)))


def test_without_a_window_the_range_counts_but_not_the_padding():
    samples = SAMPLES.copy()
    samples[0] = 60_000
    content = dicom_file(samples, bits=16, PixelPaddingValue=60_000, RescaleSlope=1, RescaleIntercept=-1000)
    expected = np.clip(samples.astype(float) / 4095, 0, 1) * 255
    low = int(samples[1:].min())
    expected[1:] = (samples[1:] - float(low)) / (4095 - low) * 255
    assert np.abs(gray(content) - expected).max() <= 0.51
    assert read_note(decode_image(content, "scan.dcm")).startswith(f"DICOM without a window: values from {low - 1000} to 3,095")


def test_monochrome1_is_inverted():
    plain, inverted = (gray(dicom_file(SAMPLES, PhotometricInterpretation=f"MONOCHROME{number}")) for number in (2, 1))
    assert np.abs(plain.astype(int) + inverted - 255).max() <= 1
    assert "inverted" in read_note(decode_image(dicom_file(SAMPLES, PhotometricInterpretation="MONOCHROME1"), "x"))


def test_signed_samples():
    samples = np.array([[-1024, 0], [1000, 3071]], np.int16)
    content = dicom_file(samples, bits=16, WindowCenter=0.5, WindowWidth=2001)
    assert gray(content).tolist() == [[0, 128], [255, 255]]


def test_one_gray_level_and_narrow_windows():
    assert np.unique(gray(dicom_file(np.full((4, 4), 7, np.uint16)))).tolist() == [0]
    assert np.unique(gray(dicom_file(SAMPLES, WindowCenter=2000.5, WindowWidth=1))).tolist() == [0, 255]
    # A width that the standard forbids is no window.
    assert len(np.unique(gray(dicom_file(SAMPLES, WindowCenter=2000, WindowWidth=0)))) > 100


@pytest.mark.parametrize("syntax", ["ExplicitVRLittleEndian", "ImplicitVRLittleEndian", "RLELossless"])
def test_colors(syntax):
    colors = np.random.default_rng(0).integers(0, 256, (16, 12, 3), dtype=np.uint8)
    content = dicom_file(colors, syntax=syntax)
    assert np.array_equal(np.asarray(decode_image(content, "scan.dcm")), colors)


def test_jpeg_inside():
    stream = io.BytesIO()
    Image.fromarray((SAMPLES // 16).astype(np.uint8)).save(stream, "JPEG")
    content = dicom_file(
        np.zeros(SAMPLES.shape, np.uint8), bits=8, encapsulated=stream.getvalue(), WindowCenter=127.5, WindowWidth=256
    )
    assert np.abs(gray(content) - np.asarray(Image.open(stream)).astype(float)).max() <= 1


def test_every_way_to_a_photo_reads_it(tmp_path):
    content = dicom_file(SAMPLES, WindowCenter=600, WindowWidth=1500)
    (tmp_path / "scan.dcm").write_bytes(content)
    (tmp_path / "IM0001").write_bytes(content)
    forms = [tmp_path / "scan.dcm", str(tmp_path / "IM0001"), content, io.BytesIO(content)]
    pixels = [np.asarray(photo.photo) for photo in open_photos(forms, Preprocessing())]
    assert all(np.array_equal(each[..., 0], gray(content)) for each in pixels)
    assert images_below(tmp_path) == [tmp_path / "scan.dcm"]


def test_large_pictures_are_refused_before_they_are_decoded():
    content = dicom_file(SAMPLES, Rows=60_000, Columns=60_000)
    with pytest.raises(ImageError, match=r"^expected an image of at most .* pixels, got scan.dcm \(60000x60000 pixels\)"):
        decode_image(content, "scan.dcm")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (dicom_file(np.zeros((3, 4, 4), np.uint16), NumberOfFrames=3), "expected a DICOM file of one picture, got 3 frames"),
        (dicom_file(SAMPLES, drop=("PixelData",)), "expected a DICOM file with a picture, got one without pixels"),
        (dicom_file(SAMPLES, PhotometricInterpretation="PALETTE COLOR"), "got PALETTE COLOR; export it as gray or RGB"),
        (dicom_file(SAMPLES, syntax="DeflatedExplicitVRLittleEndian"), "got a deflated one"),
        (dicom_file(SAMPLES, RescaleSlope=1e300, RescaleIntercept=0), "expected a finite rescale slope"),
        (dicom_file(SAMPLES)[:-300], "damaged or truncated image scan.dcm"),
        (bytes(128) + b"DICM" + b"\xff" * 400, "scan.dcm"),
        (bytes(128) + b"DICM", "scan.dcm"),
    ],
    ids=["frames", "no pixels", "palette", "deflated", "overflow", "short", "noise", "empty"],
)
def test_what_cannot_be_drawn_is_refused(content, message):
    with pytest.raises(ImageError, match=message) as refused:
        decode_image(content, "scan.dcm")
    assert "\n" not in str(refused.value)
    assert "scan.dcm" in str(refused.value)


def test_compressed_picture_larger_than_it_says():
    stream = io.BytesIO()
    Image.new("L", (400, 400)).save(stream, "JPEG")
    content = dicom_file(np.zeros((4, 4), np.uint8), bits=8, encapsulated=stream.getvalue())
    with pytest.raises(ImageError, match="expected a picture of 4x4 pixels as the DICOM file says, got 400x400"):
        decode_image(content, "scan.dcm")


def test_without_the_extra_the_error_says_how_to_install_it(monkeypatch):
    content = dicom_file(SAMPLES)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(
        ImageError, match=r"^cannot use scan.dcm: reading DICOM files needs .* pip install 'vitrail\[medical\]'$"
    ):
        decode_image(content, "scan.dcm")


def test_a_dcm_file_of_something_else(tmp_path):
    (tmp_path / "scan.dcm").write_bytes(b"no picture at all")
    with pytest.raises(ImageError, match="or DICOM with the letters DICM"):
        open_image(tmp_path / "scan.dcm")

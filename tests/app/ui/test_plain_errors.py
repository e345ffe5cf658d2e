"""The page says in plain sentences what went wrong and what to do."""

from io import BytesIO

import numpy as np
import pytest
from app_requests import draw_bird, load_model
from PIL import Image

from vitrail.app.limits import Limits
from vitrail.app.model_pool import ModelPool
from vitrail.app.service import ExplainService
from vitrail.app.ui.plain_errors import say_plainly
from vitrail.core.errors import VitrailError

MODEL = "vitrail:hit-birds"


@pytest.fixture
def refuse(tmp_path):
    """A function that returns what the page says about a request that the service refuses."""
    draw_bird().save(tmp_path / "bird.png")
    limits = Limits(num_bytes=300_000, num_pixels=100_000, num_methods=2, num_side=2000)
    service = ExplainService(ModelPool([MODEL], loader=lambda _: load_model("hit-birds")), limits, tmp_path)

    def explain(content=None, name="bird.png", **changes) -> str:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(VitrailError) as caught:
            service.explain(**({"photo": tmp_path / name, "model": MODEL, "methods": ["hit"]} | changes))
        return say_plainly(str(caught.value))

    return explain


def png(width, height):
    file = BytesIO()
    Image.new("L", (width, height)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"photo": None}, "There is no photo yet. Upload or paste one, or choose an example."),
        ({"methods": []}, "Choose at least one way to explain the photo."),
        ({"methods": ["hit", "random", "rollout"]}, "Choose at most 2 ways to explain at a time."),
        ({"target": "unicorn"}, "The model does not know the class “unicorn”. Choose one from the list."),
        ({"target": "it's"}, "The model does not know the class “it's”. Choose one from the list."),
        ({"target": "99"}, "The model has no class number 99. Choose a class from the list."),
    ],
)
def test_choices_that_are_refused(refuse, changes, sentence):
    assert refuse(**changes) == sentence


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "“x.png” is an empty file. Choose a JPEG, PNG, WebP, GIF, BMP, TIFF or DICOM file."),
        (b"%PDF-1.7", "“x.png” is not a photo that can be read here. Choose a JPEG, PNG, WebP, GIF, BMP, TIFF or DICOM file."),
        (b"\0\0\0\x18ftypheic", "This is a HEIC photo, as iPhones take them. Export it as JPEG, then choose it again."),
        (png(99, 99)[:60], "“x.png” is damaged or incomplete. Download or export it again, or choose another photo."),
        (b"\0" * 400_000, "This file has 0.4 MB; at most 0.3 MB are allowed. Scale the photo down."),
        (png(2001, 9), "This photo has 2,001x9 pixels; at most 2,000 are allowed on each side. Crop it, or scale it down."),
        (png(400, 400), "This photo has 400x400 pixels; at most 100,000 pixels in all are allowed. Scale it down."),
    ],
)
def test_files_that_are_refused(refuse, content, sentence):
    assert refuse(content, "x.png") == sentence


def test_dicom_files_that_are_refused(refuse):
    pytest.importorskip("pydicom", reason="needs the extra medical")
    from dicom_files import dicom_file

    whole = dicom_file(np.arange(96 * 96, dtype=np.uint16).reshape(96, 96))
    damaged = refuse(whole[:-5000], "scan.dcm")
    assert damaged == "“scan.dcm” is damaged or incomplete. Download or export it again, or choose another photo."
    several = dicom_file(np.zeros((96, 96), np.uint16), NumberOfFrames=3)
    assert refuse(several, "scan.dcm").startswith("This DICOM file contains 3 pictures. Export the one to explain")


def test_other_messages_keep_their_words():
    assert say_plainly("there is no room; try again later") == "There is no room. Try again later."
    assert say_plainly("Something failed.") == "Something failed."

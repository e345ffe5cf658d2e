"""Decoded photos in memory are those of the files."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from vitrail.core.errors import InvalidInputError
from vitrail.datasets import decoded
from vitrail.datasets.dataset import Sample, Unreadable
from vitrail.datasets.decoded import DecodedImages
from vitrail.datasets.folder import ImageFolder

SIZES = [(40, 30), (16, 50), (20, 20), (9, 31)]


def to_tensor(image):
    return torch.from_numpy(np.array(image)).float()


@pytest.fixture
def images(tmp_path):
    generator = np.random.default_rng(0)
    for number, (width, height) in enumerate(SIZES):
        folder = tmp_path / f"class{number % 2}"
        folder.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (height, width, 3)).astype(np.uint8)).save(folder / f"{number}.png")
    return ImageFolder.scan(tmp_path, to_tensor)


def equal(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert isinstance(a, Sample)
        assert a[1:] == b[1:]
        torch.testing.assert_close(a.image, b.image, rtol=0, atol=0)


@pytest.mark.parametrize("short_side", [None, 12])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_images_in_memory_are_those_of_the_files(images, short_side, num_workers):
    resized = DecodedImages.wrap(images, short_side)
    kept = resized.keep_in_memory(num_workers)
    equal(kept, resized)
    if short_side is None:
        equal(kept, images)


def test_images_in_memory_need_no_files(images):
    kept = DecodedImages.wrap(images).keep_in_memory()
    before = list(kept)
    for index in range(len(images)):
        images.paths[index].unlink()
    equal(kept, before)
    assert isinstance(images[0], Unreadable)


def test_only_larger_images_are_scaled_down_and_keep_their_aspect_ratio(images):
    sizes = {DecodedImages.wrap(images, 12).open(i).size for i in range(len(images))}
    assert sizes == {(16, 12), (12, 37), (12, 12), (9, 31)}


def test_subsets_keep_pixels_labels_and_names_together(images):
    kept = DecodedImages.wrap(images).keep_in_memory()
    equal(kept.subset([2, 0]).subset([1]), images.subset([0]))
    equal(pickle.loads(pickle.dumps(kept)), images)


def test_an_unreadable_image_stays_unreadable(images):
    images.paths[1].write_bytes(b"no image")
    kept = DecodedImages.wrap(images).keep_in_memory()
    assert kept[1] == images[1]
    assert isinstance(kept[1], Unreadable)
    equal(kept.subset([0, 2]), images.subset([0, 2]))


def test_photos_that_do_not_fit_into_memory_are_refused(images, monkeypatch):
    monkeypatch.setattr(decoded, "_free_memory", lambda: 5000.0)
    with pytest.raises(InvalidInputError, match=r"expected decoded photos that fit .* data\.short_side"):
        DecodedImages.wrap(images).keep_in_memory()
    assert DecodedImages.wrap(images, 8).keep_in_memory().decoded is not None


def test_reading_leaves_the_random_numbers_alone(images):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    DecodedImages.wrap(images).keep_in_memory(num_workers=1)
    assert torch.equal(torch.get_rng_state(), before)

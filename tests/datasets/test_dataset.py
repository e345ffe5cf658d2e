"""Labeled images: files, arrays, subsets, crops and copies."""

import pickle

import numpy as np
import pytest
import torch
from official_layouts import middle, photo
from PIL import Image

from vitrail.core.errors import ImageError, InvalidInputError
from vitrail.datasets.dataset import NO_LABEL, LabeledArrays, LabeledFiles, Sample, Unreadable
from vitrail.datasets.image_io import decode_image, open_image


@pytest.fixture
def files(tmp_path):
    """Six photos in mixed class order, with boxes."""
    paths = [photo(tmp_path / f"{i}.png", (10, 8)) or tmp_path / f"{i}.png" for i in range(6)]
    boxes = [(float(i), 1.0, float(i + 3), 5.0) for i in range(6)]
    return LabeledFiles(paths, [0, 1, 0, 2, 1, 0], ["a", "b", "c"], middle, boxes)


@pytest.fixture
def arrays():
    """Five gray images of increasing brightness."""
    pixels = np.arange(5, dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(6, 2)
    return LabeledArrays(pixels, [0, 1, 0, 1, NO_LABEL], ["a", "b"], middle, "mnist/test")


def test_labeled_files_yield_samples_in_order(files):
    samples = list(files)
    assert [(sample.path, sample.label) for sample in samples] == list(zip(map(str, files.paths), files.labels, strict=True))
    assert files.box(2) == (2, 1, 5, 5)
    assert LabeledFiles(files.paths, files.labels, files.class_names, middle).box(2) is None


def test_a_subset_keeps_its_lists_aligned(files):
    part = files.subset([5, 3])
    assert (part.paths, part.labels) == ([files.paths[5], files.paths[3]], [0, 2])
    assert [part.box(0), part.box(1)] == [files.box(5), files.box(3)]
    assert (len(part), len(files)) == (2, 6)


def test_crop_to_box_crops_to_the_box(files):
    cropped = LabeledFiles(files.paths, files.labels, files.class_names, middle, files.boxes, crop_to_box=True)
    assert cropped.open(4).size == (3, 4)
    assert np.asarray(cropped.open(4)).tolist() == np.asarray(files.open(4).crop((4, 1, 7, 5))).tolist()
    assert cropped.box(4) is None
    assert cropped.subset([4]).open(0).size == (3, 4)


@pytest.mark.parametrize(
    ("box", "size"), [((-3.0, -1.0, 4.0, 90.0), (4, 8)), ((0.4, 0.6, 9.6, 7.5), (10, 7)), ((9.0, 7.0, 10.0, 8.0), (1, 1))]
)
def test_a_box_is_clipped_to_the_image(files, box, size):
    assert LabeledFiles(files.paths[:1], [0], ["a"], middle, [box], crop_to_box=True).open(0).size == size


@pytest.mark.parametrize("box", [(10.0, 0.0, 12.0, 4.0), (3.0, 4.0, 3.0, 6.0), (5.0, 1.0, 2.0, 6.0)])
def test_an_image_with_an_empty_box_is_unreadable(files, box):
    cropped = LabeledFiles(files.paths[:1], [0], ["a"], middle, [box], crop_to_box=True)
    assert cropped[0] == Unreadable(str(files.paths[0]), f"expected a box within 10x8 pixels, got {box} for {files.paths[0]}")


def test_labeled_arrays_yield_samples_in_order(arrays):
    assert [int(sample.image[0]) for sample in arrays] == list(range(5))
    assert isinstance(arrays[3], Sample)
    assert (arrays[3].label, arrays[3].path) == (1, "mnist/test/3")
    assert (arrays.open(1).size, arrays.open(1).mode) == ((6, 4), "RGB")
    assert arrays.box(0) is None


def test_a_subset_of_arrays_keeps_its_image_numbers(arrays):
    part = arrays.subset([4, 1]).subset([1])
    assert (part.name(0), part.labels, int(part[0].image[0])) == ("mnist/test/1", [1], 1)


def test_labeled_arrays_keep_rgb_colors():
    pixels = np.zeros((1, 2, 3, 3), np.uint8)
    pixels[..., 2] = 9
    assert LabeledArrays(pixels, [0], ["a"], middle, "x").open(0).getpixel((2, 1)) == (0, 0, 9)


@pytest.mark.parametrize("name", ["files", "arrays"])
def test_copies_are_equal_and_independent(name, request):
    images = request.getfixturevalue(name)
    copy = pickle.loads(pickle.dumps(images))
    assert [(sample.path, sample.label) for sample in copy] == [(sample.path, sample.label) for sample in images]
    other = images.with_transform(lambda image: torch.ones(1)).with_labels([1] * len(images))
    assert type(other) is type(images)
    assert (other[0].label, float(other[0].image)) == (1, 1)
    assert images[0].label == 0


def test_subsample_keeps_class_proportions_with_mixed_class_order(files):
    assert sorted(files.subsample(3).labels) == [0, 0, 1]
    assert files.subsample(5).paths == sorted(files.subsample(5).paths)
    many = LabeledFiles([files.paths[0]] * 999, [i % 3 for i in range(999)], ["a", "b", "c"], middle)
    assert np.bincount(many.subsample(30).labels).tolist() == [10, 10, 10]
    assert many.subsample(999) is many
    with pytest.raises(InvalidInputError, match="expected a limit of at least 1 image, got 0"):
        many.subsample(0)


def test_decode_image_agrees_with_open_image(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGBA", (3, 2), (200, 0, 0, 128)).save(path)
    assert np.asarray(decode_image(path.read_bytes(), "a")).tolist() == np.asarray(open_image(path)).tolist()
    for content, reason in (
        (b"", "empty one"),
        (b"text", "something else: a"),
        (path.read_bytes()[:45], "damaged or truncated image a"),
    ):
        with pytest.raises(ImageError, match=reason):
            decode_image(content, "a")

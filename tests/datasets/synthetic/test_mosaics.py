"""Mosaics: their members, cells and ground truth, and the images of which a model is confident."""

import pickle
from collections import Counter
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from samples import CLASS_NAMES
from together import Together
from torch.utils.data import DataLoader

from vitrail.adapters import Preprocessing, load
from vitrail.core.errors import ImageError, InvalidInputError
from vitrail.datasets.collate import collate
from vitrail.datasets.dataset import NO_LABEL, LabeledArrays, LabeledFiles, Unreadable
from vitrail.datasets.folder import ImageFolder
from vitrail.datasets.ground_truth import attach_ground_truth
from vitrail.datasets.synthetic.mosaics import make_mosaics, without_cropping
from vitrail.evaluation.confident_images import confident_images
from vitrail.runs import loop

pytest_plugins = ("tiny",)

CROPPED = Preprocessing((16, 16), crop_fraction=0.6, mean=(0.0,) * 3, std=(1.0,) * 3)
COUNTS = (3, 5, 1, 4, 2, 6)

RECORDED = [(1, 0, 4, 2), (9, 7, 5, 6), (12, 10, 11, 3)]


def shades(counts=COUNTS, transform=CROPPED):
    """Uniform images of 20x30 pixels in mixed class order; image i has the gray value 10 i."""
    labels = [label for turn in range(max(counts)) for label, count in enumerate(counts) if turn < count]
    pixels = np.full((len(labels), 20, 30), 10 * np.arange(len(labels), dtype=np.uint8)[:, None, None])
    return LabeledArrays(pixels, labels, [f"class {label}" for label in range(len(counts))], transform, "shades")


def cell_means(image, cells):
    """The mean of every cell, row by row; the size must be divisible."""
    rows, columns = image.shape[0] // cells, image.shape[1] // cells
    parts = image[: rows * cells, : columns * cells].reshape(cells, rows, cells, columns, -1)
    assert np.ptp(parts, axis=(1, 3)).max() == 0  # Every cell is uniform.
    return parts.mean((1, 3)).mean(-1).flatten()


def test_cells_show_their_members_and_the_ground_truth_is_the_target_cell():
    images = shades()
    grids = make_mosaics(images)
    for index, (number, members, target_cell) in enumerate(grids.mosaics):
        assert (number, target_cell) == divmod(index, 4)
        assert len({images.labels[member] for member in members}) == 4
        assert grids.labels[index] == images.labels[members[target_cell]]
        shown = cell_means(np.asarray(grids.open(index)), 2)
        assert shown.tolist() == [10 * member for member in members]
        sample = grids[index]
        assert sample.label == grids.labels[index]
        # Inside the ground truth, the network sees the target image only.
        torch.testing.assert_close(sample.image[:, sample.ground_truth], torch.full((3, 64), members[target_cell] * 10 / 255))
        assert sample.image.shape == (3, 16, 16)
        assert int(sample.ground_truth.sum()) == 64
        assert np.array_equal(grids.ground_truth(index), sample.ground_truth.numpy())
        left, top, right, bottom = grids.box(index)
        assert (right - left, bottom - top, grids.ground_truth(index)[int(top), int(left)]) == (8, 8, True)


def test_mosaics_use_the_first_images_of_their_classes_once_each():
    images = shades()
    grids = make_mosaics(images)
    pictures = [mosaic.members for mosaic in grids.mosaics if mosaic.target_cell == 0]
    used = [member for members in pictures for member in members]
    assert len(used) == len(set(used))
    for label, count in enumerate(COUNTS):
        taken = [member for member in used if images.labels[member] == label]
        assert taken == [i for i, other in enumerate(images.labels) if other == label][: len(taken)]
        assert len(taken) <= count
    # Fewer than four classes have unused images.
    left = Counter(images.labels) - Counter(images.labels[member] for member in used)
    assert len(left) < 4
    assert [mosaic.members for mosaic in grids.mosaics[::4]] == [mosaic.members for mosaic in grids.mosaics[3::4]]


def test_usable_images_are_used_in_order_of_preference():
    images = shades()
    usable = [20, 13, 4, 11, 0, 6, 1, 19, 7, 12, 3]
    grids = make_mosaics(images, usable=usable)
    used = [member for mosaic in grids.mosaics[::4] for member in mosaic.members]
    assert set(used) <= set(usable)
    for label in range(6):
        ranked = [member for member in usable if images.labels[member] == label]
        taken = [member for member in used if images.labels[member] == label]
        assert taken == ranked[: len(taken)]


def test_a_seed_determines_the_mosaics():
    """Recorded numbers, to detect other mosaics on another machine or with another release of numpy."""
    grids = make_mosaics(shades(), seed=3)
    assert [mosaic.members for mosaic in grids.mosaics[::4]] == RECORDED
    assert make_mosaics(shades(), seed=3).mosaics == grids.mosaics
    assert make_mosaics(shades(), seed=4).mosaics != grids.mosaics
    for count in (1, 4, 6):
        few = make_mosaics(shades(), count=count, seed=3)
        assert few.mosaics == grids.mosaics[:count]
        assert few.labels == grids.labels[:count]
    assert len(make_mosaics(shades(), count=10_000, seed=3)) == len(grids)


def test_names_are_short_and_unique():
    images = shades()
    grids = make_mosaics(images)
    names = [grids.name(index) for index in range(len(grids))]
    assert len(set(names)) == len(names)
    assert names[5] == f"mosaic-000001/cell-1-of-{'+'.join(str(member) for member in grids.mosaics[5].members)}"
    files = LabeledFiles([Path(f"{'x' * 90}{i}.jpg") for i in range(4)], [0, 1, 2, 3], list("abcd"), CROPPED)
    assert len(make_mosaics(files).name(0)) < 100
    part = grids.subset([5, 2])
    assert [part.name(0), part.name(1)] == [names[5], names[2]]


@pytest.mark.parametrize("size", [(16, 16), (17, 23)])
@pytest.mark.parametrize("cells", [2, 3, 5])
def test_the_cells_partition_the_mosaic(size, cells):
    images = shades((2,) * 30, replace(CROPPED, size=size))
    grids = make_mosaics(images, cells, count=cells**2)
    masks = torch.stack([sample.ground_truth for sample in grids])
    assert masks.shape == (cells**2, *size)
    assert torch.equal(masks.sum(0), torch.ones(size, dtype=torch.long))
    heights, widths = masks.any(2).sum(1), masks.any(1).sum(1)
    assert max(int(heights.max() - heights.min()), int(widths.max() - widths.min())) <= 1
    # Cells are in row-major order.
    assert all((first[1], first[0]) < (second[1], second[0]) for first, second in pairwise(map(grids.box, range(cells**2))))


@pytest.mark.parametrize("mode", ["center", "squash", "whole"])
def test_a_cell_shows_the_preprocessed_image(mode, tmp_path):
    """Each quarter equals the result of the network's preprocessing at half the size."""
    preprocessing = Preprocessing((16, 12), 1.0 if mode == "whole" else 0.7, mode, mean=(0.0,) * 3, std=(1.0,) * 3)
    noise = np.random.default_rng(0).integers(0, 256, (4, 40, 31, 3), dtype=np.uint8)
    images = LabeledArrays(noise, [0, 1, 2, 3], list("abcd"), preprocessing, "noise")
    grids = make_mosaics(images)
    height, width = (12, 12) if mode == "whole" else (16, 12)
    half = replace(preprocessing, size=(height // 2, width // 2), crop_mode="squash" if mode == "squash" else "center")
    sample = grids[0]
    assert sample.image.shape == (3, height, width)
    for cell, member in enumerate(grids.mosaics[0].members):
        mask = grids[cell].ground_truth
        assert torch.equal(sample.image[:, mask].reshape(3, height // 2, width // 2), half(images.open(member)))
    assert without_cropping(preprocessing).visible_box(height, width) == (0, 0, width, height)


def test_mosaics_support_subsets_labels_copies_and_loaders():
    images = shades()
    grids = make_mosaics(images)
    copy = pickle.loads(pickle.dumps(grids.with_labels([label + 10 for label in grids.labels])))
    assert [sample.path for sample in copy] == [sample.path for sample in grids]
    assert [sample.label for sample in copy] == [label + 10 for label in grids.labels]
    some = grids.subsample(5)
    assert (type(some), len(some)) == (type(grids), 5)
    known = {sample.path: sample.image for sample in grids}
    assert all(torch.equal(sample.image, known[sample.path]) for sample in some)
    batch = next(iter(DataLoader(grids, 4, num_workers=2, collate_fn=collate)))
    assert torch.equal(batch.ground_truth.sum(0), torch.ones(16, 16, dtype=torch.long))
    bare = grids.with_transform(lambda image: torch.ones(1))
    assert (float(bare[0].image), bare[0].ground_truth) == (1, None)
    assert np.array_equal(bare.ground_truth(0), grids.ground_truth(0))


def test_with_transform_crops_the_members_but_not_the_mosaic():
    grids = make_mosaics(shades())
    other = attach_ground_truth(grids, Preprocessing((24, 32), crop_fraction=0.5))
    assert other[1].image.shape == (3, 24, 32)
    assert int(other[1].ground_truth.sum()) == 12 * 16
    assert other.open(1).size == (32, 24)
    assert other.mosaics == grids.mosaics
    with pytest.raises(InvalidInputError, match="at least one pixel per cell"):
        grids.with_transform(Preprocessing((1, 9)))


def test_an_unreadable_member_is_named(tmp_path):
    paths = [tmp_path / f"{name}.png" for name in "abcdefgh"]
    for index, path in enumerate(paths):
        Image.new("RGB", (9, 9), (index, 0, 0)).save(path)
    paths[2].write_bytes(b"no photo")
    paths[3].unlink()
    grids = make_mosaics(LabeledFiles(paths, [0, 1, 2, 3] * 2, list("abcd"), CROPPED))
    for index in range(8):
        sample = grids[index]
        assert isinstance(sample, Unreadable) == (index < 4)
        assert sample.path == grids.name(index)
    order = grids.mosaics[0].members
    first = paths[min((2, 3), key=order.index)]
    assert f"cannot make a mosaic with {first}: " in grids[0].reason
    with pytest.raises(ImageError, match="cannot make a mosaic with"):
        grids.open(0)
    thin = LabeledArrays(
        np.zeros((4, 2, 40_000), np.uint8), [0, 1, 2, 3], list("abcd"), replace(CROPPED, size=(1600, 1600)), "thin"
    )
    assert "cannot make a mosaic with thin/" in make_mosaics(thin)[0].reason


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cells": 1}, "expected cells >= 2"),
        ({"count": 0}, "count >= 1"),
        ({"seed": -1}, "seed >= 0"),
        ({"cells": 3}, r"at least 9 classes for mosaics of 3 x 3 cells, got 6; use fewer cells, or images of more classes$"),
        ({"usable": [0, 1, 2, 6, 7]}, "at least 4 classes .* got 3; .* or a lower threshold"),
        ({"usable": []}, "got 0"),
        ({"usable": [0, 1, 2, 3, 3]}, "usable images between 0 and 20, each once"),
        ({"usable": [0, 1, 2, -1]}, "usable images between 0 and 20"),
        ({"images": shades().with_labels([NO_LABEL, *range(20)])}, "found 1 of 21 without one"),
        ({"images": shades(transform=lambda image: torch.ones(1))}, "Preprocessing as the images' transform"),
        (
            {"images": shades(transform=replace(CROPPED, size=(1, 1)))},
            "at least one pixel per cell, got 2 x 2 cells in 1x1 pixels",
        ),
    ],
)
def test_bad_arguments_are_refused(change, message):
    with pytest.raises(InvalidInputError, match=message):
        make_mosaics(**{"images": shades(), **change})


def test_mosaics_are_not_cropped_for_the_model(tiny_model_file):
    """One cell is white: it is inside the ground truth if and only if it is the target cell."""
    classifier = load(tiny_model_file, device="cpu")
    assert classifier.preprocessing.crop_fraction < 1
    pixels = np.zeros((4, 16, 16), np.uint8)
    pixels[1] = 255
    grids = make_mosaics(LabeledArrays(pixels, [0, 1, 2, 3], CLASS_NAMES[:4], classifier.preprocessing, "white"))
    batch = collate([grids[index] for index in range(len(grids))])
    white = classifier.preprocessing.denormalize(batch.images).mean(1) > 0.5
    assert white.flatten(1).sum(1).tolist() == [64] * 4
    for seen, mask, label in zip(white, batch.ground_truth, batch.labels.tolist(), strict=True):
        assert torch.equal(seen & mask, seen if label == 1 else torch.zeros_like(seen))
    assert classifier.logits(batch.images).shape == (4, len(CLASS_NAMES))


@pytest.fixture
def classified(tiny_model_file, make_classes):
    """A model, photos of which it classifies some correctly, and its probabilities for each, computed one by one."""
    classifier = load(tiny_model_file, device="cpu")
    images = ImageFolder.scan(make_classes(sorted(CLASS_NAMES), 5), classifier.preprocessing)
    with torch.no_grad():
        probabilities = torch.stack([classifier.module(sample.image[None]).softmax(-1)[0] for sample in images])
    return classifier, images, probabilities


def test_confident_images_are_correct_and_sorted(classified):
    classifier, images, probabilities = classified
    sure, classes = probabilities.max(-1)
    right = [i for i, label in enumerate(images.labels) if classifier.class_names[int(classes[i])] == images.class_names[label]]
    assert len(right) >= 3
    threshold = float(sure[right].sort().values[:2].mean())  # Between the two least confident images.
    for options in ({}, {"batch_size": 4}, {"num_workers": 2}):
        indices = confident_images(classifier, images, threshold=threshold, **options)
        assert indices == sorted((i for i in right if sure[i] >= threshold), key=lambda i: -float(sure[i]))
    assert len(indices) == len(right) - 1
    assert len(confident_images(classifier, images, threshold=0.0)) == len(right)
    assert confident_images(classifier, images, threshold=1.0) == [i for i in right if sure[i] == 1]


def test_labels_are_matched_to_classes_by_name(classified):
    """Reversing the order of the folders does not change the result."""
    classifier, images, _ = classified
    names = images.class_names[::-1]
    renamed = replace(images, class_names=names, labels=[len(names) - 1 - label for label in images.labels])
    assert confident_images(classifier, renamed, threshold=0.0) == confident_images(classifier, images, threshold=0.0)


def test_unreadable_images_are_not_confident(classified):
    classifier, images, _ = classified
    first, *others = confident_images(classifier, images, threshold=0.0)
    images.paths[first].write_bytes(b"no photo")
    assert confident_images(classifier, images, threshold=0.0) == others
    with pytest.raises(ImageError, match="not one of 1 images"):
        confident_images(classifier, images.subset([first]))


def test_bad_thresholds_and_unlabeled_photos_are_refused(classified):
    classifier, images, _ = classified
    for threshold in (-0.1, 1.5, float("nan")):
        with pytest.raises(InvalidInputError, match="threshold between 0 and 1"):
            confident_images(classifier, images, threshold=threshold)
    with pytest.raises(InvalidInputError, match="photos without a class"):
        confident_images(classifier, replace(images, class_names=[]))


def test_two_processes_find_the_same_images_as_one(classified, monkeypatch):
    classifier, images, _ = classified
    find = partial(confident_images, images=images, batch_size=4, threshold=0.0)
    alone = find(classifier)
    models = [replace(classifier, module=deepcopy(classifier.module)) for _ in range(2)]
    assert Together(2, monkeypatch, loop).run(lambda rank: find(models[rank])) == [alone, alone]

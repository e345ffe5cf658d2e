"""DETR's geometric augmentation."""

import math

import numpy as np
import pytest
import torch
from official_layouts import photo as write_photo
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import InterpolationMode

from vitrail.adapters import Preprocessing
from vitrail.core.errors import ImageError
from vitrail.datasets.augmentation.detr import RandomShorterSide, RandomSizeCrop, detr_geometry
from vitrail.datasets.augmentation.transforms import AugmentationConfig, make_training_transform
from vitrail.datasets.collate import collate
from vitrail.datasets.folder import ImageFolder

BILINEAR = InterpolationMode.BILINEAR
TENTH = [48, 51, 54, 58, 61, 64, 67, 70, 74, 77, 80]
"""480, 512, ..., 800, divided by ten."""


def coordinates(height: int, width: int) -> Image.Image:
    """A photo whose colors encode the position of every pixel: red increases to the right, green downwards."""
    rows, cols = np.indices((height, width)) + 0.5
    return Image.fromarray(np.stack([cols / width * 255, rows / height * 255, 0 * rows], 2).round().astype(np.uint8))


def test_all_sizes_of_detr_occur_and_no_others():
    geometry, square = detr_geometry((80, 133), BILINEAR, 0.5), Image.new("RGB", (100, 100))
    sizes = [geometry(square).size for _ in range(600)]
    assert {min(size) for size in sizes} - set(TENTH) <= set(range(48, 80))
    # A crop of 38 to 60 pixels is seldom square; the whole photo always is.
    squares = [size for size in sizes if size[0] == size[1]]
    assert {side for side, _ in squares} == set(TENTH)
    assert 0.5 < len(squares) / len(sizes) < 0.62
    assert all(min(size) in TENTH for size in sizes)  # The limit of 133 does not apply up to 60x38.
    shapes = [max(size) / min(size) for size in sizes]
    assert 1.3 < max(shapes) <= 60 / 38 + 0.03


def test_the_longer_side_is_limited():
    geometry = detr_geometry((133, 80), BILINEAR, 0.5)
    for size in [(400, 100), (100, 400)]:
        results = [geometry(Image.new("RGB", size)).size for _ in range(60)]
        assert all(max(result) <= 134 for result in results)
        assert (132, 33)[:: 1 if size[0] > size[1] else -1] in results


def test_sizes_at_800_pixels_are_those_of_detr():
    geometry, wide = detr_geometry((800, 1333), BILINEAR, 0.0), Image.new("RGB", (1000, 500))
    sizes = {geometry(wide).size for _ in range(30)}
    # The longer side of 1333 leaves 666 for the shorter one of the whole photo.
    assert {min(size) for size in sizes} <= {*range(480, 801, 32), 666}
    whole = {width for width, height in sizes if width == 2 * height}
    assert 1332 in whole
    assert whole <= {*range(960, 1332, 64), 1332}
    assert len(whole) >= 3


def test_crops_keep_the_aspect_ratio_of_the_photo():
    geometry, photo = detr_geometry((80, 133), BILINEAR, 0.0), coordinates(200, 200)
    num_crops = 0
    for _ in range(60):
        seen = np.asarray(geometry(photo)).astype(float) / 255
        height, width, _ = seen.shape
        across, down = seen[height // 2, :, 0], seen[:, width // 2, 1]
        steps = (across[-3] - across[2]) / (width - 5), (down[-3] - down[2]) / (height - 5)
        assert steps[0] == pytest.approx(steps[1], rel=0.15)  # Same scale along both sides, not rotated.
        share = steps[0] * width, steps[1] * height
        # Crops of 38 to 60 pixels from a photo resized to 40, 50 or 60.
        assert min(share) >= 38 / 60 - 0.05
        assert max(share) <= 1.05
        num_crops += min(share) < 0.95
    assert 10 < num_crops < 40


def test_a_flip():
    photo = coordinates(40, 60)
    for probability in (0.0, 1.0):
        geometry = detr_geometry((40, 66), BILINEAR, probability)
        for _ in range(5):
            seen = np.asarray(geometry(photo)).astype(int)
            assert (seen[0, -1, 0] > seen[0, 0, 0]) == (probability == 0)
            assert seen[-1, 0, 1] > seen[0, 0, 1]


def test_the_sides_of_a_crop_are_drawn_independently():
    crop, photo = RandomSizeCrop(5, 9), coordinates(7, 30)
    sizes = [crop(photo).size for _ in range(300)]
    assert {width for width, _ in sizes} == {5, 6, 7, 8, 9}
    assert {height for _, height in sizes} == {5, 6, 7}
    assert len(set(sizes)) == 15
    assert RandomSizeCrop(5, 9)(Image.new("RGB", (3, 2))).size == (3, 2)


def test_a_crop_may_be_anywhere():
    crop, photo = RandomSizeCrop(2, 2), Image.fromarray(np.arange(20, dtype=np.uint8).reshape(4, 5))
    corners = {int(np.asarray(crop(photo))[0, 0]) for _ in range(200)}
    assert corners == {5 * row + col for row in range(3) for col in range(4)}


@pytest.mark.parametrize("size", [(3, 700), (700, 3), (1, 1)])
def test_thin_photos_keep_at_least_one_pixel(size):
    geometry = detr_geometry((8, 13), BILINEAR, 0.5)
    for _ in range(20):
        assert min(geometry(Image.new("RGB", size)).size) >= 1


def test_a_photo_that_would_become_too_large_is_refused():
    with pytest.raises(
        ImageError, match="expected a photo of ordinary proportions, got 30000x10 pixels, which resizes to 1200000x400"
    ):
        RandomShorterSide([400], None, BILINEAR)(Image.new("1", (30_000, 10)))


def test_the_smallest_limits():
    geometry = detr_geometry((1, 1), BILINEAR, 0.5)
    assert all(geometry(Image.new("RGB", (50, 50))).size == (1, 1) for _ in range(10))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_loader_pads_images_of_different_sizes(num_workers, tmp_path):
    for i in range(8):
        write_photo(tmp_path / f"{i}.png", (30, 20) if i % 2 else (20, 30))
    config = AugmentationConfig(crop="detr", mixup=0, cutmix=0)
    images = ImageFolder.scan(tmp_path, make_training_transform(config, Preprocessing((16, 27), 1.0, "whole")))
    (batch,) = DataLoader(images, 8, num_workers=num_workers, collate_fn=collate)
    assert batch.padding is not None
    assert batch.padding.shape == (8, *batch.images.shape[-2:])
    for image, padding in zip(batch.images, batch.padding, strict=True):
        assert (image[:, padding] == 0).all()
        assert math.prod(image.shape[-2:]) > 0
        assert not padding[0, 0]
    assert torch.equal(batch.padding.all((1, 2)), torch.zeros(8, dtype=torch.bool))

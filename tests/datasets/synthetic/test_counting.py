"""Counting data sets: labels, ground truth and balance, of colors and of photos."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitrail.core.errors import ImageError, InvalidInputError
from vitrail.datasets.synthetic.base import GROUND_TRUTH, SYNTHETIC
from vitrail.datasets.synthetic.counting import COLORS, CifarCounting, ColorCounting

CIFAR = Path(__file__).parents[4] / "shared" / "data" / "cifar10-test.tar.xz"


def same(a, b):
    return (
        a.label == b.label and np.array_equal(a.image, b.image) and np.array_equal(a.masks[GROUND_TRUTH], b.masks[GROUND_TRUTH])
    )


def shades(root, classes=("ant", "bee", "cat"), count=30):
    """A data set of uniform images with distinct gray values: 40 times the class plus the number, and 128 more in test."""
    for split, offset in (("train", 0), ("test", 128)):
        for label, name in enumerate(classes):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                gray = offset + 40 * label + number
                Image.new("RGB", (32, 32), (gray, gray, gray)).save(root / split / name / f"{number:04d}.png")
    return root


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """The folder of `shades`, which tests must not change."""
    return shades(tmp_path_factory.mktemp("shades"))


def tiles(sample, grid_size, side):
    """The upper left pixel of every tile; all pixels of a tile must be equal."""
    pixels = np.asarray(sample.image).reshape(grid_size, side, grid_size, side, 3).transpose(0, 2, 1, 3, 4)
    assert (pixels == pixels[:, :, :1, :1]).all()
    return pixels[:, :, 0, 0]


def test_both_data_sets_are_registered():
    assert SYNTHETIC["counting"] is ColorCounting
    assert SYNTHETIC["cifar-counting"] is CifarCounting


@pytest.mark.parametrize("class_idx", range(6))
def test_the_label_is_the_number_of_patches_of_the_color(class_idx):
    dataset = ColorCounting(class_idx=class_idx, patch_size=4)
    colors = [color for _, color in COLORS]
    for index in range(40):
        sample = dataset.draw("train", index)
        patches = tiles(sample, 3, 4).reshape(9, 3).tolist()
        assert all(tuple(color) in colors for color in patches)
        assert sample.label == patches.count(list(colors[class_idx])) == int(dataset.class_names[sample.label])


def test_the_ground_truth_is_the_pixels_of_the_color():
    dataset = ColorCounting(class_idx=2)
    for index in range(20):
        sample = dataset.draw("test", index)
        expected = (np.asarray(sample.image) == COLORS[2][1]).all(axis=-1)
        assert sample.masks[GROUND_TRUTH].dtype == bool
        assert np.array_equal(sample.masks[GROUND_TRUTH], expected)
        assert sample.masks[GROUND_TRUTH].any() == (sample.label > 0)


def test_black_and_white_are_not_among_the_colors():
    assert len({color for _, color in COLORS}) == len({name for name, _ in COLORS}) == 6
    assert not {(0, 0, 0), (255, 255, 255)} & {color for _, color in COLORS}


@pytest.mark.parametrize("grid_size", [1, 2, 4])
def test_shapes_and_names(grid_size):
    dataset = ColorCounting(grid_size=grid_size, patch_size=5)
    sample = dataset.draw("val", 0)
    assert dataset.image_size == (5 * grid_size, 5 * grid_size) == sample.image.size == sample.masks[GROUND_TRUTH].shape
    assert sample.image.mode == "RGB"
    assert [int(name) for name in dataset.class_names] == list(range(grid_size**2 + 1))
    assert sorted(dataset.class_names) == list(dataset.class_names)


def test_labels_are_balanced():
    dataset = ColorCounting(grid_size=2, patch_size=1)
    labels = [dataset.draw("train", index).label for index in range(50)]
    assert np.bincount(labels).tolist() == [10] * 5


def test_all_positions_and_all_other_colors_are_equally_likely():
    dataset = ColorCounting(grid_size=2, patch_size=1)
    samples = [dataset.draw("train", index) for index in range(2000)]
    positions = np.mean([sample.masks[GROUND_TRUTH] for sample in samples if sample.label == 1], axis=0)
    assert np.abs(positions - 0.25).max() < 0.087  # 400 draws: four standard errors.
    others = np.concatenate([np.asarray(sample.image)[~sample.masks[GROUND_TRUTH]] for sample in samples])
    _, counts = np.unique(others, axis=0, return_counts=True)
    assert len(counts) == 5
    assert np.abs(counts / counts.sum() - 0.2).max() < 0.028


def test_a_sample_depends_only_on_fields_split_and_index():
    dataset = ColorCounting(seed=3)
    first = [dataset.draw("train", index) for index in range(12)]
    again = [ColorCounting(seed=3).draw("train", index) for index in reversed(range(12))][::-1]
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    for other in (ColorCounting(seed=4).draw("train", 5), dataset.draw("test", 5), dataset.draw("train", 15)):
        assert other.label == first[5].label
        assert not same(other, first[5])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seed": -1}, "expected seed to be at least 0, got -1"),
        ({"grid_size": 0}, "expected grid_size to be at least 1, got 0"),
        ({"class_idx": -1}, "expected class_idx to be at least 0, got -1"),
        ({"class_idx": 6}, "expected class_idx to be one of 6 colors, at most 5, got 6"),
        ({"patch_size": 0}, "3 tiles of 0 pixels"),
        ({"patch_size": 5000}, "expected images of 1 to 4096 pixels a side"),
        ({"grid_size": 10**6}, "expected images of 1 to 4096 pixels a side"),
    ],
)
def test_bad_fields_are_refused(fields, message):
    with pytest.raises(InvalidInputError, match=re.escape(message)):
        ColorCounting(**fields)


@pytest.mark.parametrize(("split", "index"), [("validation", 0), ("train", -1)])
def test_bad_samples_are_refused(split, index):
    with pytest.raises(InvalidInputError, match="expected the split train, val or test and an index of at least 0"):
        ColorCounting().draw(split, index)


@pytest.mark.parametrize(("split", "class_idx"), [("train", 0), ("train", 2), ("val", 2), ("test", 0)])
def test_the_label_is_the_number_of_photos_of_the_class_from_the_right_split(photos, split, class_idx):
    dataset = CifarCounting(root=photos, grid_size=2, class_idx=class_idx)
    for index in range(30):
        sample = dataset.draw(split, index)
        grays = tiles(sample, 2, 32)[..., 0].astype(int)
        assert (grays >= 128).all() == (split == "test")
        classes, numbers = divmod(grays % 128, 40)
        if split != "test":
            assert ((numbers % 10 == 9) == (split == "val")).all()
        assert sample.label == (classes == class_idx).sum() == index % 5
        assert np.array_equal(sample.masks[GROUND_TRUTH], (classes == class_idx).repeat(32, 0).repeat(32, 1))


def test_photos_are_resized_to_the_tile_size(tmp_path):
    dataset = CifarCounting(root=shades(tmp_path, count=2), grid_size=3, tile_size=8)
    sample = dataset.draw("test", 4)
    assert sample.image.size == dataset.image_size == (24, 24)
    assert tiles(sample, 3, 8).shape == (3, 3, 3)


def test_photos_are_drawn_deterministically(photos):
    first, again = ([CifarCounting(root=photos).draw("train", index) for index in order] for order in ((3, 4, 5), (5, 4, 3)))
    assert all(same(a, b) for a, b in zip(first, again[::-1], strict=True))
    assert not same(first[0], CifarCounting(root=photos, seed=1).draw("train", 3))


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_missing_folder_is_named(tmp_path, split):
    part = tmp_path / ("test" if split == "test" else "train")
    message = re.escape(
        f"expected CIFAR-10 as folders of images, {part}/<class>/<image>, found no folder {part}; set the option root"
    )
    with pytest.raises(InvalidInputError, match=message):
        CifarCounting(root=tmp_path).draw(split, 0)


def test_too_few_images_or_classes(tmp_path):
    root = shades(tmp_path / "few", count=9)
    CifarCounting(root=root).draw("train", 1)
    with pytest.raises(InvalidInputError, match=r"at least 10 images of each class in .*train, got fewer of ant, bee, cat$"):
        CifarCounting(root=root).draw("val", 1)
    with pytest.raises(InvalidInputError, match=r"expected class_idx to be one of at least two classes in .*, got 3 among 3"):
        CifarCounting(root=root, class_idx=3).draw("train", 1)
    with pytest.raises(InvalidInputError, match=r"at least two classes in .*, got 0 among 1"):
        CifarCounting(root=shades(tmp_path / "one", classes=("ant",), count=1)).draw("train", 1)


def test_a_damaged_photo_is_named(tmp_path):
    root = shades(tmp_path, count=1)
    (root / "test" / "ant" / "0000.png").write_bytes(b"no photo")
    with pytest.raises(ImageError, match=r"0000.png"):
        CifarCounting(root=root).draw("test", 9)


@pytest.mark.skipif(not CIFAR.is_file(), reason=f"CIFAR-10 is not there: {CIFAR}")
def test_real_photos(tmp_path):
    import tarfile

    with tarfile.open(CIFAR) as archive:  # Only the first members are read, since the archive is one compressed stream.
        num_photos = 0
        for member in archive:
            if member.isfile() and member.name.endswith(".jpg"):
                name = Path(member.name)
                target = tmp_path / "test" / name.parts[-2] / name.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.extractfile(member).read())
                num_photos += 1
            if num_photos == 1100:
                break
    if len(list((tmp_path / "test").iterdir())) < 2:
        pytest.skip("the archive begins with more than 1,100 images of one class")
    sample = CifarCounting(root=tmp_path).draw("test", 4)
    assert sample.image.size == (96, 96)
    assert sample.label == 4 == sample.masks[GROUND_TRUTH].sum() / 32**2

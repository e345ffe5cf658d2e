import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitrail.core.errors import ImageError, InvalidInputError
from vitrail.datasets.synthetic.base import ANSWER, SYNTHETIC
from vitrail.datasets.synthetic.counting import COLORS, CifarCounting, ColorCounting

CIFAR = Path(__file__).parents[4] / "shared" / "data" / "cifar10-test.tar.xz"


def same(a, b):
    return a.label == b.label and np.array_equal(a.image, b.image) and np.array_equal(a.masks[ANSWER], b.masks[ANSWER])


def shades(root, classes=("ant", "bee", "cat"), count=30):
    """A data set whose every image is of one gray of its own: 40 times the class plus its number, and 128 more in test."""
    for split, offset in (("train", 0), ("test", 128)):
        for label, name in enumerate(classes):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                gray = offset + 40 * label + number
                Image.new("RGB", (32, 32), (gray, gray, gray)).save(root / split / name / f"{number:04d}.png")
    return root


def tiles(sample, grid_size, side):
    """The upper left pixel of every tile, after making sure that all its pixels are alike."""
    pixels = np.asarray(sample.image).reshape(grid_size, side, grid_size, side, 3).transpose(0, 2, 1, 3, 4)
    assert (pixels == pixels[:, :, :1, :1]).all()
    return pixels[:, :, 0, 0]


def test_both_are_registered():
    assert SYNTHETIC["counting"] is ColorCounting
    assert SYNTHETIC["cifar-counting"] is CifarCounting


@pytest.mark.parametrize("class_idx", range(6))
def test_the_label_is_how_many_patches_of_the_image_have_the_color(class_idx):
    task = ColorCounting(class_idx=class_idx, patch_size=4)
    colors = [color for _, color in COLORS]
    for index in range(40):
        sample = task.draw("train", index)
        found = tiles(sample, 3, 4).reshape(9, 3).tolist()
        assert all(tuple(color) in colors for color in found)
        assert sample.label == found.count(list(colors[class_idx])) == int(task.class_names[sample.label])


def test_the_answer_is_the_pixels_of_the_color_and_empty_for_none():
    task = ColorCounting(class_idx=2)
    for index in range(20):
        sample = task.draw("test", index)
        expected = (np.asarray(sample.image) == COLORS[2][1]).all(axis=-1)
        assert sample.masks[ANSWER].dtype == bool
        assert np.array_equal(sample.masks[ANSWER], expected)
        assert sample.masks[ANSWER].any() == (sample.label > 0)


def test_neither_black_nor_white_is_among_the_six_colors():
    assert len({color for _, color in COLORS}) == len({name for name, _ in COLORS}) == 6
    assert not {(0, 0, 0), (255, 255, 255)} & {color for _, color in COLORS}


@pytest.mark.parametrize("grid_size", [1, 2, 4])
def test_shapes_and_names(grid_size):
    task = ColorCounting(grid_size=grid_size, patch_size=5)
    sample = task.draw("val", 0)
    assert task.image_size == (5 * grid_size, 5 * grid_size) == sample.image.size == sample.masks[ANSWER].shape
    assert sample.image.mode == "RGB"
    assert [int(name) for name in task.class_names] == list(range(grid_size**2 + 1))
    assert sorted(task.class_names) == list(task.class_names)


def test_labels_are_balanced():
    task = ColorCounting(grid_size=2, patch_size=1)
    labels = [task.draw("train", index).label for index in range(50)]
    assert np.bincount(labels).tolist() == [10] * 5


def test_all_places_and_all_other_colors_are_equally_likely():
    task = ColorCounting(grid_size=2, patch_size=1)
    samples = [task.draw("train", index) for index in range(4000)]
    places = np.mean([sample.masks[ANSWER] for sample in samples if sample.label == 1], axis=0)
    assert np.abs(places - 0.25).max() < 0.06  # 800 draws: four standard errors.
    others = np.concatenate([np.asarray(sample.image)[~sample.masks[ANSWER]] for sample in samples])
    _, counts = np.unique(others, axis=0, return_counts=True)
    assert len(counts) == 5
    assert np.abs(counts / counts.sum() - 0.2).max() < 0.02


def test_a_sample_depends_on_fields_split_and_index_alone():
    task = ColorCounting(seed=3)
    first = [task.draw("train", index) for index in range(12)]
    again = [ColorCounting(seed=3).draw("train", index) for index in reversed(range(12))][::-1]
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    for other in (ColorCounting(seed=4).draw("train", 5), task.draw("test", 5), task.draw("train", 15)):
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


@pytest.mark.parametrize("class_idx", [0, 2])
@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_label_is_how_many_photos_are_of_the_class_and_of_the_right_split(tmp_path, split, class_idx):
    task = CifarCounting(root=shades(tmp_path), grid_size=2, class_idx=class_idx)
    for index in range(30):
        sample = task.draw(split, index)
        grays = tiles(sample, 2, 32)[..., 0].astype(int)
        assert (grays >= 128).all() == (split == "test")
        classes, numbers = divmod(grays % 128, 40)
        if split != "test":
            assert ((numbers % 10 == 9) == (split == "val")).all()
        assert sample.label == (classes == class_idx).sum() == index % 5
        assert np.array_equal(sample.masks[ANSWER], (classes == class_idx).repeat(32, 0).repeat(32, 1))


def test_photos_are_brought_to_the_tile_size(tmp_path):
    task = CifarCounting(root=shades(tmp_path, count=2), grid_size=3, tile_size=8)
    sample = task.draw("test", 4)
    assert sample.image.size == task.image_size == (24, 24)
    assert tiles(sample, 3, 8).shape == (3, 3, 3)


def test_photos_are_drawn_the_same_again(tmp_path):
    root = shades(tmp_path)
    first, again = ([CifarCounting(root=root).draw("train", index) for index in order] for order in ((3, 4, 5), (5, 4, 3)))
    assert all(same(a, b) for a, b in zip(first, again[::-1], strict=True))
    assert not same(first[0], CifarCounting(root=root, seed=1).draw("train", 3))


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_missing_folder_is_named(tmp_path, split):
    part = tmp_path / ("test" if split == "test" else "train")
    message = re.escape(
        f"expected CIFAR-10 as folders of images, {part}/<class>/<image>, found no folder {part}; name its place"
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

    with tarfile.open(CIFAR) as archive:  # Compressed in one stream: the first members are read, not all.
        wanted = 0
        for member in archive:
            if member.isfile() and member.name.endswith(".jpg"):
                name = Path(member.name)
                target = tmp_path / "test" / name.parts[-2] / name.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.extractfile(member).read())
                wanted += 1
            if wanted == 1100:
                break
    if len(list((tmp_path / "test").iterdir())) < 2:
        pytest.skip("the archive begins with more than 1,100 images of one class")
    sample = CifarCounting(root=tmp_path).draw("test", 4)
    assert sample.image.size == (96, 96)
    assert sample.label == 4 == sample.masks[ANSWER].sum() / 32**2

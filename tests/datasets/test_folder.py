"""Folders as data sets: classes, single photos, unreadable files and loaders."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from vitrail.core.errors import ImageError, InvalidInputError
from vitrail.datasets.collate import collate
from vitrail.datasets.dataset import NO_LABEL, Batch, Sample, Unreadable
from vitrail.datasets.folder import ImageFolder, split_folder
from vitrail.datasets.image_io import FORMATS


def brightness(image: Image.Image) -> torch.Tensor:
    """The red value of the first pixel, which identifies the photos of these tests."""
    return torch.from_numpy(np.asarray(image)[:1, :1, 0].astype(np.float32))[None]


def photo(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (3, 2), (value, 0, 0)).save(path)
    return path


def broken(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("no image")
    return path


def test_a_folder_of_photos(tmp_path):
    for name in ("b.png", "a.PNG", "c.jpeg"):
        photo(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    images = ImageFolder.scan(tmp_path, brightness)
    assert [path.name for path in images.paths] == ["a.PNG", "b.png", "c.jpeg"]
    assert list(images.labels) == [NO_LABEL] * 3
    assert list(images.class_names) == []
    assert len(images) == 3


def test_a_folder_per_class(tmp_path):
    photo(tmp_path / "wolf" / "1.png", 10)
    photo(tmp_path / "ant" / "1.png", 20)
    photo(tmp_path / "ant" / "2.png", 30)
    images = ImageFolder.scan(str(tmp_path), brightness)
    assert list(images.class_names) == ["ant", "wolf"]
    assert [(path.parent.name, label) for path, label in zip(images.paths, images.labels, strict=True)] == [
        ("ant", 0),
        ("ant", 0),
        ("wolf", 1),
    ]
    assert [(float(sample.image), sample.label, sample.path) for sample in images] == [
        (20, 0, str(tmp_path / "ant" / "1.png")),
        (30, 0, str(tmp_path / "ant" / "2.png")),
        (10, 1, str(tmp_path / "wolf" / "1.png")),
    ]


def test_nested_folders_belong_to_their_class(tmp_path):
    photo(tmp_path / "ant" / "red" / "deep" / "1.png")
    photo(tmp_path / "bee" / "1.png")
    images = ImageFolder.scan(tmp_path, brightness)
    assert list(images.class_names) == ["ant", "bee"]
    assert list(images.labels) == [0, 1]


def test_a_folder_without_images_is_skipped_with_a_warning(tmp_path, caplog):
    photo(tmp_path / "bee" / "1.png")
    (tmp_path / "ant").mkdir()
    (tmp_path / "ant" / "notes.txt").touch()
    assert list(ImageFolder.scan(tmp_path, brightness).class_names) == ["bee"]
    assert f"skipped folders without images: ant in {tmp_path}" in caplog.text


def test_a_hidden_folder_is_not_a_class(tmp_path):
    photo(tmp_path / "bee" / "1.png")
    photo(tmp_path / ".ipynb_checkpoints" / "1.png")
    images = ImageFolder.scan(tmp_path, brightness)
    assert list(images.class_names) == ["bee"]
    assert len(images) == 1


def test_a_hidden_folder_beside_photos_makes_no_classes(tmp_path):
    photo(tmp_path / "1.png")
    photo(tmp_path / ".thumbnails" / "1.png")
    images = ImageFolder.scan(tmp_path, brightness)
    assert [path.relative_to(tmp_path).as_posix() for path in images.paths] == ["1.png"]


def test_a_folder_named_like_an_image_is_not_an_image(tmp_path):
    photo(tmp_path / "bee" / "1.png")
    (tmp_path / "bee" / "more.png").mkdir()
    assert [path.name for path in ImageFolder.scan(tmp_path, brightness).paths] == ["1.png"]


def test_a_single_file(tmp_path):
    path = photo(tmp_path / "one.png", 7)
    images = ImageFolder.scan(path, brightness)
    assert len(images) == 1
    assert images[0] == Sample(images[0].image, NO_LABEL, str(path))
    assert float(images[0].image) == 7


@pytest.mark.parametrize(
    "contents", [[], ["notes.txt"], ["ant/notes.txt", "bee/notes.txt"]], ids=["empty", "text", "classes of text"]
)
def test_a_folder_without_images(tmp_path, contents):
    for name in contents:
        broken(tmp_path / name)
    message = rf"^expected images \(\.jpg, .*\.dcm\) in {re.escape(str(tmp_path))} or in one folder per class, found none$"
    with pytest.raises(InvalidInputError, match=message):
        ImageFolder.scan(tmp_path, brightness)


def test_a_missing_folder(tmp_path):
    missing = tmp_path / "missing"
    with pytest.raises(InvalidInputError, match=f"^{re.escape(f'no such file or folder of images: {missing}')}$"):
        ImageFolder.scan(missing, brightness)


def test_an_unreadable_file_is_not_replaced_by_another_image(tmp_path):
    photo(tmp_path / "a.png", 1)
    path = broken(tmp_path / "b.png")
    photo(tmp_path / "c.png", 3)
    first, second, third = ImageFolder.scan(tmp_path, brightness)
    assert second == Unreadable(str(path), f"expected an image file ({', '.join(FORMATS)}), got something else: {path}")
    assert (float(first.image), float(third.image)) == (1, 3)


def test_a_deleted_file_is_unreadable(tmp_path):
    path = photo(tmp_path / "a.png")
    images = ImageFolder.scan(tmp_path, brightness)
    path.unlink()
    assert images[0] == Unreadable(str(path), f"no such image file: {path}")


def test_a_photo_for_which_the_transform_raises_an_image_error_is_unreadable(tmp_path):
    def refuse(image):
        raise ImageError(f"too thin: {image.size}")

    path = photo(tmp_path / "a.png")
    assert ImageFolder.scan(path, refuse)[0] == Unreadable(str(path), "too thin: (3, 2)")


def test_other_errors_of_the_transform_propagate(tmp_path):
    def fail(image):
        raise TypeError("a programming fault")

    with pytest.raises(TypeError, match="a programming fault"):
        ImageFolder.scan(photo(tmp_path / "a.png"), fail)[0]


def test_collate_stacks_readable_samples():
    samples = [
        Sample(torch.full((1, 2, 2), 1.0), 4, "a"),
        Unreadable("b", "damaged"),
        Sample(torch.full((1, 2, 2), 3.0), NO_LABEL, "c"),
    ]
    batch = collate(samples)
    assert isinstance(batch, Batch)
    assert batch.images.shape == (2, 1, 2, 2)
    assert batch.images[:, 0, 0, 0].tolist() == [1, 3]
    assert batch.labels.tolist() == [4, NO_LABEL]
    assert batch.labels.dtype == torch.int64
    assert batch.paths == ["a", "c"]
    assert batch.unreadable == [Unreadable("b", "damaged")]


def test_collate_of_unreadable_samples_is_empty():
    batch = collate([Unreadable("a", "damaged"), Unreadable("b", "empty")])
    assert (len(batch.images), len(batch.labels), batch.paths) == (0, 0, [])
    assert batch.labels.dtype == torch.int64
    assert [skipped.path for skipped in batch.unreadable] == ["a", "b"]


@pytest.fixture
def twelve(tmp_path):
    for name, count in (("ant", 2), ("bee", 4), ("cat", 6)):
        for i in range(count):
            photo(tmp_path / name / f"{i}.png", 10 * i)
    return ImageFolder.scan(tmp_path, brightness)


@pytest.mark.parametrize(("limit", "shares"), [(6, [1, 2, 3]), (3, [1, 1, 1]), (11, [2, 4, 5]), (1, [1, 0, 0])])
def test_subsample_keeps_class_proportions(twelve, limit, shares):
    some = twelve.subsample(limit)
    assert len(some) == len(some.labels) == limit
    assert np.abs(np.bincount(some.labels, minlength=3) - shares).max() <= 1
    assert len(set(some.paths)) == limit
    assert all(path.parent.name == some.class_names[label] for path, label in zip(some.paths, some.labels, strict=True))
    gaps = np.diff([twelve.paths.index(path) for path in some.paths])
    assert not len(gaps) or gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("limit", [None, 12, 13])
def test_subsample_with_a_high_limit_keeps_everything(twelve, limit):
    assert list(twelve.subsample(limit).paths) == list(twelve.paths)


@pytest.mark.parametrize("limit", [0, -3])
def test_subsample_refuses_a_limit_below_one(twelve, limit):
    with pytest.raises(InvalidInputError, match=f"^expected a limit of at least 1 image, got {limit}$"):
        twelve.subsample(limit)


def test_split_folder_returns_the_first_existing_folder(tmp_path):
    (tmp_path / "test").mkdir()
    assert split_folder(tmp_path, ["val", "test"]) == tmp_path / "test"
    (tmp_path / "val").mkdir()
    assert split_folder(str(tmp_path), ["val", "test"]) == tmp_path / "val"


def test_split_folder_falls_back_to_the_root(tmp_path):
    (tmp_path / "val").write_text("a file")
    assert split_folder(tmp_path, ["val", "test"]) == tmp_path
    assert split_folder(tmp_path, []) == tmp_path


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_data_loader_gives_every_image_once_and_in_order(tmp_path, num_workers):
    for i in range(5):
        photo(tmp_path / f"{i}.png", 10 * i)
    broken(tmp_path / "2.png")
    images = ImageFolder.scan(tmp_path, brightness)
    batches = list(DataLoader(images, batch_size=2, num_workers=num_workers, collate_fn=collate))
    assert [batch.images.flatten().tolist() for batch in batches] == [[0, 10], [30], [40]]
    assert [[Path(path).name for path in batch.paths] for batch in batches] == [["0.png", "1.png"], ["3.png"], ["4.png"]]
    assert [[Path(skipped.path).name for skipped in batch.unreadable] for batch in batches] == [[], ["2.png"], []]
    assert all(isinstance(batch, Batch) for batch in batches)

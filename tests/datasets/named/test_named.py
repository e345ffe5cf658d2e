"""All published data sets: tiny copies are read, damaged ones are refused with a helpful message."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from official_layouts import LAYOUTS, middle, photo
from torch.utils.data import DataLoader

from vitrail.core.errors import InvalidInputError, UnknownNameError
from vitrail.datasets.collate import collate
from vitrail.datasets.dataset import LabeledImages, Sample, Unreadable
from vitrail.datasets.named import DATA, list_data, named_data
from vitrail.datasets.open import read_data, read_stream

SPLITS = [(name, split) for name, layout in LAYOUTS.items() for split in layout.parts]
ON_DISK = [(name, split) for name, split in SPLITS if not LAYOUTS[name].in_memory]


@pytest.fixture
def root(request, tmp_path):
    """The folder of a tiny copy of the data set `name`."""
    LAYOUTS[request.getfixturevalue("name")].write(tmp_path)
    return tmp_path


def annotations(root: Path):
    return sorted(path for path in root.rglob("*") if path.is_file() and path.suffix not in (".jpg", ".JPEG", ".png"))


def test_every_data_set_has_a_test_layout():
    assert sorted([*LAYOUTS, "huggingface", "webdataset"]) == list(DATA)


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_read_data_reads_every_split(name, split, root):
    layout = LAYOUTS[name]
    images = read_data(name, root, split, middle)
    assert isinstance(images, LabeledImages)
    assert list(images.class_names) == layout.class_names
    assert list(images.labels) == [label for _, label in layout.parts[split]]
    where = "" if layout.in_memory else f"{root}/"
    assert [images.name(i) for i in range(len(images))] == [where + path for path, _ in layout.parts[split]]
    samples = list(images)
    assert all(isinstance(sample, Sample) for sample in samples)
    assert [(sample.path, sample.label) for sample in samples] == [(where + path, label) for path, label in layout.parts[split]]


@pytest.mark.parametrize("name", LAYOUTS)
def test_splits_are_disjoint_and_share_their_classes(name, root):
    parts = [read_data(name, root, split, middle) for split in LAYOUTS[name].parts]
    assert len({tuple(part.class_names) for part in parts}) == 1
    names = [part.name(i) for part in parts for i in range(len(part))]
    assert len(names) == len(set(names))
    assert len({tuple(part.open(i).getpixel((3, 4)) for i in range(len(part))) for part in parts}) == len(parts)


@pytest.mark.parametrize(
    "name",
    [
        "cifar10",
        "cifar100",
        "cub-200-2011",
        "fgvc-aircraft",
        "imagenette",
        "mnist",
        "oxford-pets",
        "stanford-cars",
        "tiny-imagenet",
    ],
)
def test_the_folder_of_the_official_archive_may_be_the_root(name, root):
    below = list(root.iterdir())
    images = read_data(name, below[0], "train", middle)
    assert [sample.label for sample in images] == [label for _, label in LAYOUTS[name].parts["train"]]


@pytest.mark.parametrize("name", LAYOUTS)
def test_data_sets_can_be_pickled(name, root):
    images = read_data(name, root, "train", middle)
    copy = pickle.loads(pickle.dumps(images))
    assert [sample.path for sample in copy] == [sample.path for sample in images]
    torch.testing.assert_close(copy[1].image, images[1].image)


@pytest.mark.parametrize("name", LAYOUTS)
def test_subsets_of_data_sets(name, root):
    images = read_data(name, root, "train", middle)
    part = images.subset([1, 0])
    assert type(part) is type(images)
    assert [sample.path for sample in part] == [images.name(1), images.name(0)]
    assert part.labels == [images.labels[1], images.labels[0]]
    assert part.subset([1]).name(0) == images.name(0)
    assert part.subset([1]).box(0) == images.box(0)
    assert float(part.with_transform(lambda image: torch.zeros(1))[0].image) == 0
    torch.testing.assert_close(part.subset([1])[0].image, images[0].image)


@pytest.mark.parametrize(("name", "split"), ON_DISK)
def test_a_damaged_image_is_unreadable_and_not_replaced(name, split, root):
    images = read_data(name, root, split, middle)
    path = Path(images.name(0))
    path.write_bytes(path.read_bytes()[:-30])
    first, *others = images
    assert isinstance(first, Unreadable)
    assert first.path == str(path)
    assert str(path) in first.reason
    assert [sample.path for sample in others] == [images.name(i) for i in range(1, len(images))]


@pytest.mark.parametrize(("name", "split"), ON_DISK)
def test_a_missing_image_is_unreadable(name, split, root):
    images = read_data(name, root, split, middle)
    path = Path(images.name(0))
    path.unlink()
    assert images[0] == Unreadable(str(path), f"no such image file: {path}")


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_empty_folder_gives_download_instructions(name, tmp_path):
    for split in LAYOUTS[name].parts:
        with pytest.raises(InvalidInputError) as error:
            read_data(name, tmp_path, split, middle)
        message = str(error.value)
        assert message.startswith(f"{name}: no such file or folder: {tmp_path}/")
        assert f"expected below {tmp_path}:\n  {DATA[name].layout.strip().splitlines()[0]}\n" in message
        assert f"\nto get it: {DATA[name].download}" in message


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_missing_file_is_named(name, root):
    for path in annotations(root):
        path.rename(path.with_name("elsewhere"))
        failed = 0
        for split in LAYOUTS[name].parts:
            try:
                read_data(name, root, split, middle)
            except InvalidInputError as error:
                assert f"{name}: no such file or folder: {path}\n" in str(error)  # noqa: PT017 (not every split needs the file)
                failed += 1
        assert failed or path.name in ("families.txt", "images_family_test.txt")
        path.with_name("elsewhere").rename(path)


DAMAGES = {
    "emptied": lambda content: b"",
    "halved": lambda content: content[: len(content) // 2],
    "cut at the end": lambda content: content[:-9],
    "other bytes": lambda content: b"\xff\xfe\x00\x01" * 40,
    "a web page": lambda content: b"<!DOCTYPE html>\n<html><body>404 not found</body></html>\n",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_damaged_file_is_named(name, root, damage):
    for path in annotations(root):
        whole = path.read_bytes()
        path.write_bytes(DAMAGES[damage](whole))
        for split in LAYOUTS[name].parts:
            try:
                images = read_data(name, root, split, middle)
            except InvalidInputError as error:
                assert str(path.parent) in str(error)  # noqa: PT017 (a line less may go unnoticed)
                assert "damaged" in str(error)  # noqa: PT017
            else:
                assert damage in ("halved", "cut at the end") or not path.name.startswith(split)
                assert len(images)
        path.write_bytes(whole)


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "folder"])
def test_an_unknown_split_is_refused(name, tmp_path):
    splits = " and ".join(LAYOUTS[name].parts)
    absent = "test" if "val" in LAYOUTS[name].parts else "val"
    with pytest.raises(InvalidInputError, match=rf"^{name} has no split '{absent}', only {splits}; .*(hold|held|label)"):
        read_data(name, tmp_path, absent, middle)


def test_an_unknown_option_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match=r"^cub-200-2011 has no option crop; its options: crop_to_box$"):
        read_data("cub-200-2011", tmp_path, "train", middle, crop=True)
    with pytest.raises(InvalidInputError, match=r"^mnist has no option crop; its options: none$"):
        read_data("mnist", tmp_path, "train", middle, crop=True)


def test_a_bad_option_value_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match=r"cannot use 'maker' for fgvc-aircraft.level: .*'manufacturer'"):
        read_data("fgvc-aircraft", tmp_path, "train", middle, level="maker")


def test_an_unknown_data_set_is_refused(tmp_path):
    with pytest.raises(UnknownNameError, match=r"^unknown data set 'cub'; choose one of: cifar10, cifar100, cub-200-2011, "):
        read_data("cub", tmp_path, "train", middle)


def test_a_custom_data_set(tmp_path, monkeypatch):
    monkeypatch.setattr(DATA, "_entries", dict(DATA._entries))

    @named_data("two", "two photos", layout="a.png b.png", download="draw them", splits=("test",))
    def read_two(root, split, transform):
        return replace(read_data("folder", root, ".", transform), labels=[0, 1], class_names=["a", "b"])

    photo(tmp_path / "a.png")
    photo(tmp_path / "b.png")
    assert read_data("two", tmp_path, "test", middle)[1].label == 1
    assert "two" in [entry["name"] for entry in list_data()]


def test_read_data_and_read_stream_refuse_each_others_data_sets(tmp_path):
    with pytest.raises(
        InvalidInputError, match=r"^mnist cannot be streamed; use read_data \(streams: huggingface, webdataset\)$"
    ):
        read_stream("mnist", tmp_path, "train", middle)
    with pytest.raises(InvalidInputError, match=r"^webdataset can only be streamed, .*; use read_stream$"):
        read_data("webdataset", tmp_path, "train", middle)


def test_list_data():
    entries = {entry["name"]: entry for entry in list_data()}
    assert list(entries) == list(DATA)
    assert entries["cub-200-2011"]["options"] == {"crop_to_box": False}
    assert entries["cub-200-2011"]["splits"] == ["train", "test"]
    assert entries["folder"]["splits"] is None
    assert [name for name, entry in entries.items() if entry["streamed"]] == ["webdataset"]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("name", ["cub-200-2011", "cifar10"])
def test_a_data_loader_yields_every_image_once(name, root, num_workers):
    images = read_data(name, root, "train", middle)
    batches = list(DataLoader(images, 2, num_workers=num_workers, collate_fn=collate))
    assert [path for batch in batches for path in batch.paths] == [images.name(i) for i in range(len(images))]
    assert [label for batch in batches for label in batch.labels.tolist()] == list(images.labels)

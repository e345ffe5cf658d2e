"""Streams: shares of processes and workers, random order, damaged records, and WebDataset."""

import io
import json
import tarfile
from pathlib import Path

import pytest
import torch
from official_layouts import middle
from PIL import Image
from torch.utils.data import DataLoader

from vitrail.core.errors import InvalidInputError, MissingExtraError
from vitrail.datasets.collate import collate
from vitrail.datasets.dataset import NO_LABEL, Sample, Unreadable
from vitrail.datasets.open import read_stream
from vitrail.datasets.streaming import ImageStream, Record, StreamedImages

needs_webdataset = pytest.mark.skipif(
    not __import__("importlib.util").util.find_spec("webdataset"), reason="pip install 'vitrail[webdataset]'"
)


def encoded(value: int, kind="PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 0, 0)).save(file, kind)
    return file.getvalue()


class Counting(ImageStream):
    """Images 0, 1, 2, ..., of which each worker of each process reads every n-th."""

    def __init__(self, count):
        self.count = count

    def records(self, share, seed):
        first, total = share.rank * share.num_workers + share.worker, share.world_size * share.num_workers
        order = torch.arange(self.count)
        if seed is not None:
            order = order[torch.randperm(self.count, generator=torch.Generator().manual_seed(seed))]
        for i in order[first::total].tolist():
            yield Record(encoded(i), i % 3, f"{i}")


def numbers(samples):
    return [int(sample.path) for sample in samples]


@pytest.fixture
def ten():
    return StreamedImages(Counting(10), ["a", "b", "c"], middle, num_images=10)


def test_a_stream_yields_every_image_once_in_order(ten):
    samples = list(ten)
    assert all(isinstance(sample, Sample) for sample in samples)
    assert numbers(samples) == list(range(10))
    assert [sample.label for sample in samples] == [i % 3 for i in range(10)]
    assert [int(sample.image[0]) for sample in samples] == list(range(10))


def test_processes_read_disjoint_shares(ten):
    parts = [numbers(ten.share(rank, 3)) for rank in range(3)]
    assert sorted(sum(parts, [])) == list(range(10))  # noqa: RUF017


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_workers_read_disjoint_shares(ten, num_workers):
    batches = list(DataLoader(ten, 2, num_workers=num_workers, collate_fn=collate))
    assert sorted(int(path) for batch in batches for path in batch.paths) == list(range(10))


def test_training_yields_equally_many_images_per_process(ten):
    parts = [numbers(ten.for_training(seed=1, rank=rank, world_size=4)) for rank in range(4)]
    assert [len(part) for part in parts] == [3, 3, 3, 3]
    assert set().union(*parts) == set(range(10))


def test_training_changes_the_order_every_epoch(ten):
    training = ten.for_training(seed=1)
    first, again = numbers(training), numbers(training)
    training.set_epoch(1)
    assert first == again
    assert first != list(range(10))
    assert numbers(training) != first
    assert sorted(numbers(training)) == list(range(10))
    assert numbers(ten.for_training(seed=2)) != first


def test_set_epoch_reaches_persistent_workers(ten):
    training = ten.for_training(seed=1)
    loader = DataLoader(training, 10, num_workers=1, persistent_workers=True, collate_fn=collate)
    (first,) = loader
    training.set_epoch(1)
    (second,) = loader
    assert sorted(first.paths) == sorted(second.paths)
    assert first.paths != second.paths


def test_training_on_a_stream_of_unknown_length_is_refused(ten):
    with pytest.raises(InvalidInputError, match="expected num_images, the number of images in the stream"):
        StreamedImages(Counting(10), ["a"], middle).for_training(seed=0)


def test_a_process_without_images(ten):
    images = StreamedImages(Counting(1), ["a", "b", "c"], middle, num_images=1)
    assert list(images.share(1, 2)) == []
    with pytest.raises(InvalidInputError, match="expected images for worker 0 of 1 in process 1 of 2, found none in its share"):
        list(images.for_training(seed=0, rank=1, world_size=2))


def test_with_transform(ten):
    assert next(iter(ten.with_transform(lambda image: torch.ones(2)))).image.tolist() == [1, 1]


class Listed(ImageStream):
    def __init__(self, *records):
        self.listed = records

    def records(self, share, seed):
        yield from self.listed


def test_unreadable_records_are_reported_in_order():
    images = StreamedImages(
        Listed(
            Record(encoded(3, "JPEG")[:300], 0, "cut"),
            Record(b"", 0, "empty"),
            Record(encoded(4), 2, "wrong class"),
            Record(encoded(5), NO_LABEL, "photo"),
            Unreadable("lost", "gone"),
        ),
        ["a", "b"],
        middle,
    )
    cut, empty, wrong, photo, lost = images
    assert (cut.path, empty.path) == ("cut", "empty")
    assert "damaged or truncated image cut" in cut.reason
    assert empty.reason == "expected an image file, got an empty one (0 bytes): empty"
    assert wrong == Unreadable("wrong class", "expected a class from 0 to 1, got 2")
    assert photo == Unreadable("photo", "expected a class for photo, got none")
    assert lost == Unreadable("lost", "gone")


# webdataset


def shard(path: Path, files: dict[str, bytes]):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def shards(tmp_path):
    """Three shards of four images."""
    for i in range(3):
        files = {}
        for j in range(4 * i, 4 * i + 4):
            files |= {
                f"{j:03}.png": encoded(j),
                f"{j:03}.cls": str(j % 2).encode(),
                f"{j:03}.json": json.dumps({"kind": 1}).encode(),
            }
        shard(tmp_path / f"set-train-{i:04}.tar", files)
    (tmp_path / "classes.txt").write_text("day bird\nnight bird\n")
    return tmp_path


@needs_webdataset
def test_webdataset_shards(shards):
    images = read_stream("webdataset", shards, "train", middle)
    assert images.class_names == ["day bird", "night bird"]
    assert images.num_images is None
    samples = list(images)
    assert [int(sample.image[0]) for sample in samples] == list(range(12))
    assert [sample.label for sample in samples] == [i % 2 for i in range(12)]
    assert samples[5].path == f"{shards}/set-train-0001.tar/005.png"


@needs_webdataset
@pytest.mark.parametrize("num_workers", [0, 2])
def test_shards_are_distributed_over_processes_and_workers(shards, num_workers):
    images = read_stream("webdataset", shards, "train", middle)
    values = []
    for rank in range(2):
        for batch in DataLoader(images.share(rank, 2), 3, num_workers=num_workers, collate_fn=collate):
            values += batch.images[:, 0, 0, 0].int().tolist()
    assert sorted(values) == list(range(12))


@needs_webdataset
def test_shards_in_random_order(shards):
    images = read_stream("webdataset", shards, "train", middle, num_images=12, buffer=3)
    orders = []
    for seed in (0, 0, 1):
        orders.append([int(sample.image[0]) for sample in images.for_training(seed)])
        assert sorted(orders[-1]) == list(range(12))
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != sorted(orders[0])


@needs_webdataset
def test_shards_by_pattern_folder_and_info_json(shards):
    chosen = read_stream("webdataset", shards, "val", middle, shards="*-0002.tar", num_classes=5, label="kind")
    assert [sample.label for sample in chosen] == [1] * 4
    assert chosen.class_names == ["0", "1", "2", "3", "4"]
    shard(shards / "val" / "a.tar", {"1.png": encoded(7), "1.cls": b"0"})
    assert [int(sample.image[0]) for sample in read_stream("webdataset", shards, "val", middle)] == [7]
    info = {"splits": {"train": {"name": "train", "num_samples": 8, "filenames": ["set-train-0001.tar", "set-train-0002.tar"]}}}
    (shards / "_info.json").write_text(json.dumps(info))
    listed = read_stream("webdataset", shards, "train", middle)
    assert listed.num_images == 8
    assert len(list(listed)) == 8
    with pytest.raises(InvalidInputError, match=r"webdataset: .*_info\.json has no split 'test', only train"):
        read_stream("webdataset", shards, "test", middle)


@needs_webdataset
def test_damaged_shards_and_records_are_reported(shards):
    whole = {
        "1.jpg": encoded(1, "JPEG")[:100],
        "1.cls": b"0",
        "2.png": encoded(2),
        "3.cls": b"1",
        "4.png": encoded(4),
        "4.cls": b"x",
    }
    shard(shards / "set-train-0000.tar", whole)
    cut = shards / "set-train-0001.tar"
    cut.write_bytes(cut.read_bytes()[:4000])
    samples = list(read_stream("webdataset", shards, "train", middle))
    lost = [sample for sample in samples if isinstance(sample, Unreadable)]
    assert [Path(sample.path).name for sample in lost] == ["1.jpg", "2", "3", "4", "set-train-0001.tar"]
    assert "expected an image in" in lost[2].reason
    assert "expected a class as a number in a .cls beside the image" in lost[3].reason
    assert "damaged tar file" in lost[4].reason
    assert [int(sample.image[0]) for sample in samples[-4:]] == [8, 9, 10, 11]


@needs_webdataset
def test_missing_shards_and_class_names_are_refused(tmp_path):
    with pytest.raises(
        InvalidInputError,
        match=r"(?s)webdataset: no such file or folder: .*/\*train\*\.tar or .*/train/\*\.tar\nexpected below",
    ):
        read_stream("webdataset", tmp_path, "train", middle)
    shard(tmp_path / "train-0.tar", {"1.png": encoded(1), "1.cls": b"0"})
    with pytest.raises(
        InvalidInputError, match=r"expected the class names in .*classes\.txt, one per line, or the option num_classes"
    ):
        read_stream("webdataset", tmp_path, "train", middle)


def test_streams_without_their_package_are_refused(tmp_path, monkeypatch):
    for package, name in (("webdataset", "webdataset"), ("datasets", "huggingface")):
        monkeypatch.setitem(__import__("sys").modules, package, None)
        with pytest.raises(MissingExtraError, match=rf"the data set {name} needs .*pip install 'vitrail\[{package}\]'"):
            read_stream(name, tmp_path, "train", middle)

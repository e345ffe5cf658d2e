"""Data sets of the Hugging Face Hub, as tables and as streams."""

import pickle

import pytest
import torch
from official_layouts import middle
from PIL import Image
from torch.utils.data import DataLoader

from vitrail.adapters import Preprocessing
from vitrail.core.errors import InvalidInputError
from vitrail.datasets.collate import collate
from vitrail.datasets.dataset import NO_LABEL, Sample, Unreadable
from vitrail.datasets.open import read_data, read_stream
from vitrail.datasets.source import DataSource

datasets = pytest.importorskip("datasets", reason="pip install 'vitrail[datasets]'")


def table(values, labels=None, **columns):
    features = datasets.Features({"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["ant", "bee"])})
    pictures = [Image.new("RGB", (8, 8), (value, 0, 0)) for value in values]
    return datasets.Dataset.from_dict(
        {"picture": pictures, "kind": labels or [value % 2 for value in values]}, features=features
    )


@pytest.fixture
def root(tmp_path, monkeypatch):
    """The files of a repository: twelve training images in three files, and two test images."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    home = tmp_path / "set"
    (home / "data").mkdir(parents=True)
    for i in range(3):
        table(range(4 * i, 4 * i + 4)).to_parquet(str(home / "data" / f"train-0000{i}-of-00003.parquet"))
    table([20, 21], [1, -1]).to_parquet(str(home / "data" / "test-00000-of-00001.parquet"))
    return home


PREPROCESSING = Preprocessing((8, 8))


def values(samples):
    return [int(sample.image[0]) for sample in samples]


def test_a_table(root):
    images = read_data("huggingface", root, "train", middle)
    assert list(images.class_names) == ["ant", "bee"]
    assert list(images.labels) == [i % 2 for i in range(12)]
    samples = list(images)
    assert all(isinstance(sample, Sample) for sample in samples)
    assert values(samples) == list(range(12))
    assert samples[3].path == f"{root}/train/3"
    test = read_data("huggingface", root, "test", middle)
    assert (values(test), list(test.labels)) == ([20, 21], [1, NO_LABEL])


def test_a_subset_of_a_table(root):
    part = read_data("huggingface", root, "train", middle).subset([7, 2, 5]).subset([2, 0])
    assert values(part) == [5, 7]
    assert part.labels == [1, 1]
    assert part.name(1) == f"{root}/train/7"
    assert values(pickle.loads(pickle.dumps(part))) == [5, 7]


def test_a_table_in_a_data_loader(root):
    images = read_data("huggingface", root, "train", middle)
    batches = list(DataLoader(images, 5, num_workers=2, collate_fn=collate))
    assert torch.cat([batch.images for batch in batches])[:, 0, 0, 0].tolist() == list(range(12))


def test_damaged_cells_are_unreadable(root):
    from datasets import Dataset, Features, Value

    cells = [{"bytes": b"no image", "path": None}, {"bytes": None, "path": None}, None]
    features = Features({"picture": {"bytes": Value("binary"), "path": Value("string")}, "kind": Value("int64")})
    raw = Dataset.from_dict({"picture": cells, "kind": [0, 1, None]}, features=features)
    raw.to_parquet(str(root / "data" / "val-00000-of-00001.parquet"))
    for file in root.glob("data/t*"):
        file.unlink()
    with pytest.raises(InvalidInputError, match="expected the option image to be one of the columns picture, kind, got None"):
        read_data("huggingface", root, "val", middle)
    images = read_data("huggingface", root, "val", middle, image="picture", label="kind")
    assert list(images.class_names) == ["0", "1"]
    assert list(images.labels) == [0, 1, NO_LABEL]
    assert [type(sample) for sample in images] == [Unreadable] * 3
    assert images[0].reason.endswith(f"got something else: {root}/val/0")
    streamed = list(read_stream("huggingface", root, "val", middle, image="picture", label="kind", num_classes=2))
    assert [type(sample) for sample in streamed] == [Unreadable] * 3


def test_class_names_from_strings(root):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    pictures = [Image.new("RGB", (8, 8))] * 3
    for file in root.glob("data/*"):
        file.unlink()
    named = datasets.Dataset.from_dict({"image": pictures, "label": ["wasp", "ant", "wasp"]}, features=features)
    named.to_parquet(str(root / "data" / "train-00000-of-00001.parquet"))
    images = read_data("huggingface", root, "train", middle)
    assert (list(images.class_names), list(images.labels)) == (["ant", "wasp"], [1, 0, 1])
    with pytest.raises(InvalidInputError, match=r"column 'label' .* set the option num_classes"):
        read_stream("huggingface", root, "train", middle)


def test_a_folder_written_by_save_to_disk(root):
    datasets.DatasetDict({"train": table([1, 2])}).save_to_disk(str(root / "saved"))
    assert values(read_data("huggingface", root / "saved", "train", middle)) == [1, 2]


def test_the_split_of_a_saved_table_is_the_one_that_is_asked_for(root):
    datasets.DatasetDict({"train": table([1, 2]), "test": table([3, 5, 7])}).save_to_disk(str(root / "saved"))
    for split, expected in (("train", [1, 2]), ("test", [3, 5, 7]), (None, [3, 5, 7])):
        assert (
            values(DataSource(root / "saved", None, split).read(PREPROCESSING, ("test", "val")).with_transform(middle))
            == expected
        )


def test_a_table_without_splits_has_no_other_split(root):
    table([1, 2]).save_to_disk(str(root / "single"))
    assert values(read_data("huggingface", root / "single", "all", middle)) == [1, 2]
    with pytest.raises(InvalidInputError, match="expected a table with the split 'train', got one without splits"):
        read_data("huggingface", root / "single", "train", middle)


def test_rows_of_a_table_have_the_sizes_of_their_pictures(root):
    images = read_data("huggingface", root, "train", middle)
    assert [images.num_bytes(i) for i in range(2)] == [len(images.table[i]["picture"]["bytes"]) for i in range(2)]


def test_folders_that_are_not_data_sets_are_refused(root, tmp_path):
    with pytest.raises(InvalidInputError, match="cannot read split 'val' of"):
        read_data("huggingface", root, "val", middle)
    with pytest.raises(InvalidInputError, match=r"no such file or folder: .*/nowhere\nexpected below"):
        read_data("huggingface", tmp_path / "nowhere", "train", middle)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError, match="cannot read split 'train' of"):
        read_data("huggingface", tmp_path / "empty", "train", middle)


def test_a_stream(root):
    images = read_stream("huggingface", root, "train", middle, num_images=12)
    assert list(images.class_names) == ["ant", "bee"]
    assert values(images) == list(range(12))
    assert [sample.label for sample in images] == [i % 2 for i in range(12)]


@pytest.mark.parametrize(("world_size", "num_workers"), [(1, 0), (3, 0), (2, 2)])
def test_a_stream_is_distributed_over_processes_and_workers(root, world_size, num_workers):
    images = read_stream("huggingface", root, "train", middle)
    numbers = []
    for rank in range(world_size):
        for batch in DataLoader(images.share(rank, world_size), 3, num_workers=num_workers, collate_fn=collate):
            numbers += batch.images[:, 0, 0, 0].int().tolist()
    assert sorted(numbers) == list(range(12))


def test_a_stream_in_random_order(root):
    images = read_stream("huggingface", root, "train", middle, num_images=12, buffer=5)
    training = images.for_training(seed=3)
    first = values(training)
    assert sorted(first) == list(range(12))
    assert first != sorted(first)
    training.set_epoch(1)
    assert values(training) != first


def test_a_shuffled_stream_is_distributed_over_workers(root):
    training = read_stream("huggingface", root, "train", middle, num_images=12, buffer=5).for_training(seed=3)
    batches = list(DataLoader(training, 4, num_workers=2, collate_fn=collate))
    assert sum(len(batch.images) for batch in batches) == 12


def test_images_stored_beside_the_table(root):
    for value in (3, 4):
        path = root.parent / "folders" / "train" / ("ant" if value % 2 else "bee") / f"{value}.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (8, 8), (value, 0, 0)).save(path)
    images = read_data("huggingface", root.parent / "folders", "train", middle)
    assert (values(images), [images.class_names[label] for label in images.labels]) == ([3, 4], ["ant", "bee"])
    assert sorted(values(read_stream("huggingface", root.parent / "folders", "train", middle))) == [3, 4]

"""Explanations of lists, tar files, tables and data sets by name: those of the same images in a folder, found by key."""

import logging
import os
import pickle
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from official_layouts import LAYOUTS
from samples import noisy_photo
from tar_files import encoded, write_tar
from together import Together

import vitrail
from vitrail.core.errors import ImageError, InvalidInputError, OutputError
from vitrail.datasets.source import DataSource
from vitrail.explainers import make_explainer
from vitrail.runs import claim, explain_files, explain_shards, loop
from vitrail.runs import explain_folder as folder_run
from vitrail.runs.dataset_photos import DatasetPhotos
from vitrail.runs.explain_folder import explain_folder
from vitrail.runs.explain_photos import PhotoReader
from vitrail.runs.photo_list import list_folder_photos
from vitrail.viz.style import Style

pytest_plugins = ("tiny",)

KINDS = ("list", "tars", "table", "saved")


@pytest.fixture(autouse=True)
def _small_pictures(monkeypatch):
    """Drawing is not what is tested here."""
    monkeypatch.setattr("vitrail.runs.explain_photos.Style", partial(Style, side=16))
    monkeypatch.setattr("vitrail.runs.explain_files.contact_sheet", lambda rows, path, style: path.touch())


@pytest.fixture(scope="module")
def classifier(tiny_model_file):
    return vitrail.load(tiny_model_file, device="cpu")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The same five images, and one that cannot be read, in all kinds of sources; the last but one is the unreadable one."""
    root = tmp_path_factory.mktemp("sources")
    contents = [encoded(0), encoded(1), encoded(2), encoded(3), b"no picture", encoded(4)]
    for i, content in enumerate(contents):
        (root / "folder").mkdir(exist_ok=True)
        (root / "folder" / f"{i}.png").write_bytes(content)
    (root / "lists").mkdir()
    (root / "lists" / "list.txt").write_text("".join(f"../folder/{i}.png\n" for i in range(6)))
    for i in (0, 1):
        members = [(f"../{j}.png", contents[j]) for j in range(3 * i, 3 * i + 3)]
        write_tar(root / "tars" / f"{i}.tar", *members)
    return root, contents


@pytest.fixture
def source(sources, monkeypatch, tmp_path):
    """A function that returns a source by its kind, with the keys of its images."""
    root, contents = sources

    def get(kind):
        if kind == "list":
            return DataSource(root / "lists" / "list.txt"), [f"../folder/{i}.png" for i in range(6)]
        if kind == "tars":
            return DataSource(root / "tars" / "{0..1}.tar"), [f"{i // 3}.tar/../{i}.png" for i in range(6)]
        datasets = pytest.importorskip("datasets", reason="pip install 'vitrail[datasets]'")
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        features = datasets.Features({"image": datasets.Image()})
        cells = {"image": [{"bytes": content, "path": None} for content in contents]}
        table = datasets.Dataset.from_dict(cells, features=features)
        if kind == "saved":
            table.save_to_disk(str(root / "saved")) if not (root / "saved").exists() else None
            return DataSource(root / "saved"), [f"{i}" for i in range(6)]
        (root / "table" / "data").mkdir(parents=True, exist_ok=True)
        table.to_parquet(str(root / "table" / "data" / "test-00000-of-00001.parquet"))
        return DataSource(root / "table"), [f"test/{i}" for i in range(6)]

    return get


@pytest.fixture
def explain(classifier, monkeypatch):
    """A function that explains in batches and shards of two images."""
    monkeypatch.setattr(folder_run, "IMAGES_PER_SHARD", 2)

    def run(data, out, model=classifier, **options):
        return explain_folder([make_explainer("hit", model)], data, out, **{"batch_size": 2, "pictures": "none", **options})

    return run


def assert_same_maps(run, keys, expected):
    assert run.images == [key for i, key in enumerate(keys) if i != 4]
    for index, (one, other) in enumerate(zip(run["hit"], expected["hit"], strict=True)):
        torch.testing.assert_close(one.relevance, other.relevance, rtol=0, atol=0)
        torch.testing.assert_close(run["hit"][run.images[index]].relevance, other.relevance, rtol=0, atol=0)


@pytest.mark.parametrize("file_format", ["files", "shards"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_source_gives_the_maps_of_the_folder(kind, file_format, source, sources, explain, tmp_path):
    data, keys = source(kind)
    explain(sources[0] / "folder", tmp_path / "expected")
    results = explain(data, tmp_path / "a" / "b" / "out", file_format=file_format)
    assert (results.num_images, len(results.unreadable)) == (5, 1)
    assert_same_maps(vitrail.open_run(tmp_path / "a" / "b" / "out"), keys, vitrail.open_run(tmp_path / "expected"))
    # Nothing is written outside of the output folder, whatever the keys.
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["a", "expected"]
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["out"]
    again = explain(data, tmp_path / "a" / "b" / "out", file_format=file_format)
    assert again.num_before == (5 if file_format == "files" else 0)


@pytest.mark.parametrize("file_format", ["files", "shards"])
@pytest.mark.parametrize("kind", ["list", "tars", "saved"])
def test_processes_and_interruptions_change_no_byte(
    kind, file_format, source, explain, classifier, tmp_path, snapshot, monkeypatch
):
    data, _keys = source(kind)
    explain(data, tmp_path / "one", file_format=file_format)
    whole = snapshot(tmp_path / "one")
    with monkeypatch.context() as patch:
        models = [replace(classifier, module=deepcopy(classifier.module)) for _ in range(2)]
        together = Together(2, patch, loop, claim, folder_run, explain_files, explain_shards)
        ends = together.run(lambda rank: explain(data, tmp_path / "two", models[rank], file_format=file_format))
        assert [end.num_images for end in ends] == [5, 5]
    assert snapshot(tmp_path / "two") == whole
    module = explain_files if file_format == "files" else explain_shards
    original, calls = module.explain_images, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(module, "explain_images", interrupted)
    with pytest.raises(KeyboardInterrupt):
        explain(data, tmp_path / "stopped", file_format=file_format)
    explain(data, tmp_path / "stopped", file_format=file_format)
    assert snapshot(tmp_path / "stopped") == whole


@pytest.mark.parametrize("kind", ["tars", "saved"])
def test_workers_read_ahead(kind, source, explain, tmp_path, snapshot):
    data, _keys = source(kind)
    for workers in (0, 2):
        explain(data, tmp_path / str(workers), num_workers=workers)
    assert snapshot(tmp_path / "0") == snapshot(tmp_path / "2")


def test_a_data_set_by_its_name(explain, tmp_path):
    LAYOUTS["cub-200-2011"].write(tmp_path / "birds")
    LAYOUTS["cifar10"].write(tmp_path / "cifar")
    explain(DataSource(tmp_path / "birds", "cub-200-2011", "train"), tmp_path / "1")
    explain(DataSource(tmp_path / "cifar", "cifar10"), tmp_path / "2", limit=2)
    names = [name for name, _label in LAYOUTS["cub-200-2011"].parts["train"]]
    assert [Path(key).name for key in vitrail.open_run(tmp_path / "1").images] == [Path(name).name for name in names]
    assert vitrail.open_run(tmp_path / "2").images[0] == "cifar10/test/0"
    assert (tmp_path / "2" / "hit" / "cifar10" / "test" / "0.npz").is_file()
    with pytest.raises(OutputError, match='split: "train" there, "test" now'):
        explain(DataSource(tmp_path / "birds", "cub-200-2011", "test"), tmp_path / "1")


def test_a_changed_tar_file_is_noticed(sources, explain, tmp_path):
    data = tmp_path / "0.tar"
    write_tar(data, ("1.png", encoded(1)))
    explain(data, tmp_path / "out", file_format="shards")
    write_tar(data, ("1.png", encoded(2) + b"more"))
    with pytest.raises(OutputError, match="photos: the names or sizes of files differ"):
        explain(data, tmp_path / "out", file_format="shards")


def test_what_cannot_be_explained(explain, tmp_path):
    (tmp_path / "list.txt").write_text("gone.png\n")
    with pytest.raises(ImageError, match=r"not one of 1 images could be read; the first: no such image file: .*gone\.png"):
        explain(tmp_path / "list.txt", tmp_path / "out")
    photo = tmp_path / "other" / "hit" / "1.png"
    photo.parent.mkdir(parents=True)
    noisy_photo(1).save(photo)
    (tmp_path / "list.txt").write_text(f"{os.fspath(photo)}\n")
    with pytest.raises(InvalidInputError, match=r"expected images outside of the results, got .*; choose another --out"):
        explain(tmp_path / "list.txt", tmp_path / "other")
    with pytest.raises(InvalidInputError, match="expected --split and --data-option together with --data-set"):
        DataSource(tmp_path / "list.txt", split="test")


def test_queries_take_the_same_sources(classifier, source):
    for kind in ("list", "tars"):
        data, keys = source(kind)
        photos, _ = list_folder_photos(data, classifier, limit=3)
        assert [photo.key for photo, _ in photos] == keys[::2]
        assert photos[0].photo.open(classifier.preprocessing).size == noisy_photo(0).size
        assert len({photo.result_name for photo, _ in photos}) == 3


def test_what_workers_send_does_not_grow_with_the_number_of_images(classifier, make_photo, tmp_path):
    path = make_photo(tmp_path / "0.png")
    sizes = []
    for count in (1, 1000):
        (tmp_path / "list.txt").write_text("".join(f"{i}.png\n" for i in range(count)))
        photos = DatasetPhotos.from_source(DataSource(tmp_path / "list.txt"), classifier.preprocessing)
        opened = PhotoReader(photos, classifier.preprocessing)[0]
        assert opened.photo.path == path
        sizes.append(len(pickle.dumps(opened)))
    assert sizes[1] == sizes[0]


def test_images_newer_than_their_explanations_are_named(make_photo, explain, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("vitrail"), "propagate", True)
    caplog.set_level(logging.WARNING, "vitrail")  # Commands of other tests may have been quiet.
    paths = [make_photo(tmp_path / "data" / f"{i}.png", i) for i in range(3)]
    explain(tmp_path / "data", tmp_path / "out")
    explain(tmp_path / "data", tmp_path / "out")
    assert "newer" not in caplog.text
    later = (tmp_path / "out" / "hit" / "1.npz").stat().st_mtime + 10
    os.utime(paths[1], (later, later))
    explain(tmp_path / "data", tmp_path / "out")
    assert "1 image(s) are newer than their explanations, such as 1.png" in caplog.text

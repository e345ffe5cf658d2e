"""Synthetic data sets on disk: what is written, read back and refused, and building them by name."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from striped import Failing, Striped

from vitrail.core.errors import ImageError, InvalidInputError, OutputError, UnknownNameError
from vitrail.datasets.folder import ImageFolder
from vitrail.datasets.image_io import open_image
from vitrail.datasets.synthetic.base import GROUND_TRUTH
from vitrail.datasets.synthetic.birds import Birds, separating_parts
from vitrail.datasets.synthetic.counting import CifarCounting, ColorCounting
from vitrail.datasets.synthetic.generation import read_generated_mask, read_parts, write_synthetic
from vitrail.datasets.synthetic.names import SYNTHETIC, describe_synthetic, list_synthetic, make_synthetic

pytest_plugins = ("tiny",)

SIXTEEN = ColorCounting(grid_size=4, patch_size=2)
"""Seventeen classes, whose names have two digits."""


def pixels(image):
    return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize(
    "dataset", [SIXTEEN, Birds(size=64, num_classes=3, spurious=1.0), Striped()], ids=["counting", "birds", "striped"]
)
def test_written_files_equal_drawn_samples(dataset, tmp_path):
    num_classes = len(dataset.class_names)
    counts = {"train": 2 * num_classes, "val": 0, "test": num_classes}
    write_synthetic(dataset, tmp_path / "out", counts)
    for split, count in counts.items():
        assert (tmp_path / "out" / split).exists() == (count > 0)
        for index in range(count):
            sample = dataset.draw(split, index)
            path = tmp_path / "out" / split / dataset.class_names[sample.label] / f"{index:06d}.png"
            assert np.array_equal(pixels(open_image(path)), pixels(sample.image))
            assert np.array_equal(read_generated_mask(path), sample.masks[GROUND_TRUTH])
            parts = {name: mask for name, mask in sample.masks.items() if name != GROUND_TRUTH}
            if not parts:
                continue
            read = read_parts(str(path))
            assert list(read) == list(parts)
            assert all(read[name].dtype == bool and np.array_equal(read[name], parts[name]) for name in parts)
    assert len(list((tmp_path / "out").rglob("*.png"))) == 3 * num_classes * (2 if dataset is SIXTEEN else 3)


def test_ground_truth_masks_are_black_and_white(tmp_path):
    write_synthetic(SIXTEEN, tmp_path / "out", {"train": 17})
    with Image.open(tmp_path / "out" / "masks" / "answer" / "train" / "03" / "000003.png") as mask:
        assert mask.mode == "L"
        values, counts = np.unique(mask, return_counts=True)
    assert values.tolist() == [0, 255]
    assert counts.tolist() == [4 * 13, 4 * 3]


def test_the_written_classes_are_in_numeric_order(tmp_path):
    write_synthetic(SIXTEEN, tmp_path / "out", {"train": 34, "test": 17})
    for split, count in (("train", 34), ("test", 17)):
        images = ImageFolder.scan(tmp_path / "out" / split, lambda image: image)
        assert len(images) == count
        assert tuple(images.class_names) == SIXTEEN.class_names
        for path, label in zip(images.paths, images.labels, strict=True):
            assert label == int(path.parent.name) == read_generated_mask(path).sum() / 4


def test_the_description_rebuilds_the_data_set(tmp_path):
    dataset = Birds(seed=5, size=64, num_classes=4)
    write_synthetic(dataset, tmp_path / "out", {"test": 4, "train": 8})
    content = json.loads((tmp_path / "out" / "task.json").read_text())
    assert content["format"] == "vitrail task 1"
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", content["vitrail"])
    assert make_synthetic(content["task"], **content["options"]) == dataset
    assert content["class_names"] == list(dataset.class_names)
    assert content["image_size"] == [64, 64]
    assert content["counts"] == {"train": 8, "val": 0, "test": 4}
    assert content["parts"] == [name for name in dataset.draw("train", 0).masks if name != GROUND_TRUTH]
    for a, first in enumerate(dataset.class_names):
        for b, second in enumerate(dataset.class_names):
            if a != b:
                assert content["separating_parts"][first][second] == list(separating_parts(a, b))
                assert set(separating_parts(a, b)) <= set(content["parts"])


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2])
def test_worker_processes_write_the_same_bytes(tmp_path, snapshot, num_workers):
    dataset = Striped()
    write_synthetic(dataset, tmp_path / "here", {"train": 50})
    write_synthetic(dataset, tmp_path / "there", {"train": 50}, num_workers)
    assert snapshot(tmp_path / "here") == snapshot(tmp_path / "there")


def test_a_larger_count_adds_images(tmp_path, snapshot):
    write_synthetic(SIXTEEN, tmp_path / "few", {"train": 20})
    write_synthetic(SIXTEEN, tmp_path / "many", {"train": 40, "val": 17})
    few, many = snapshot(tmp_path / "few"), snapshot(tmp_path / "many")
    assert all(many[name] == content for name, content in few.items() if name != "task.json")


def test_an_empty_folder_is_used(tmp_path):
    (tmp_path / "out").mkdir()
    write_synthetic(SIXTEEN, tmp_path / "out", {"val": 17})
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == ["masks", "task.json", "val"]


def test_existing_files_are_not_changed(tmp_path, snapshot):
    write_synthetic(SIXTEEN, tmp_path / "out", {"train": 17})
    before = snapshot(tmp_path)
    with pytest.raises(OutputError, match=re.escape(f"{tmp_path / 'out'} exists and is not empty; choose another --out")):
        write_synthetic(SIXTEEN, tmp_path / "out", {"train": 17})
    (tmp_path / "file").write_text("precious")
    before["file"] = b"precious"
    with pytest.raises(OutputError, match="is a file"):
        write_synthetic(SIXTEEN, tmp_path / "file", {"train": 17})
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("num_workers", "exists"),
    [(0, True), pytest.param(0, False, marks=pytest.mark.slow), pytest.param(1, False, marks=pytest.mark.slow)],
)
def test_a_failed_run_leaves_no_files(tmp_path, num_workers, exists):
    if exists:
        (tmp_path / "out").mkdir()
    with pytest.raises(InvalidInputError, match=r"^enough drawn$"):
        write_synthetic(Failing(), tmp_path / "out", {"train": 20}, num_workers)
    assert list(tmp_path.rglob("*")) == ([tmp_path / "out"] if exists else [])


@pytest.mark.slow
def test_a_killed_run_leaves_no_complete_data_set(tmp_path):
    out = tmp_path / "out"
    code = (
        "import os\nfrom pathlib import Path\n"
        "from vitrail.datasets.synthetic import generation\nfrom vitrail.datasets.synthetic.counting import ColorCounting\n"
        "draw = ColorCounting.draw\n"
        "def fatal(self, split, index):\n    if index == 30: os.kill(os.getpid(), 9)\n    return draw(self, split, index)\n"
        "ColorCounting.draw = fatal\n"
        f"generation.write_synthetic(ColorCounting(), {str(out)!r}, {{'train': 50}})\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=60)
    assert run.returncode == -9
    [leftover] = out.glob(".partial-*")
    with pytest.raises(InvalidInputError, match="found none"):
        ImageFolder.scan(out, lambda image: image)
    write_synthetic(ColorCounting(), out, {"train": 50})
    assert not leftover.exists()


@pytest.mark.parametrize(
    ("counts", "num_workers", "message"),
    [
        ({}, 0, "expected at least one image to draw"),
        ({"train": 0, "test": 0}, 0, "expected at least one image to draw"),
        ({"train": 17, "validation": 17}, 0, "expected counts for train, val, test, got validation"),
        ({"train": 17, "test": 16}, 0, "for test, or at least one for each of the 17 classes and at most 1000000, got 16"),
        ({"train": -1}, 0, "expected 0 images for train"),
        ({"train": 10**7}, 0, "got 10000000"),
        ({"train": 17}, -1, "expected num_workers of at least 0, got -1"),
    ],
)
def test_bad_counts_are_refused(tmp_path, counts, num_workers, message):
    with pytest.raises(InvalidInputError, match=re.escape(message)):
        write_synthetic(SIXTEEN, tmp_path / "out", counts, num_workers)
    assert not (tmp_path / "out").exists()


def test_too_many_regions_are_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="expected at most 16 masks beside the ground truth, got 17"):
        write_synthetic(Striped(num_parts=17), tmp_path / "out", {"train": 2})
    assert not (tmp_path / "out").exists()


def test_missing_and_damaged_masks_are_refused(tmp_path):
    write_synthetic(SIXTEEN, tmp_path / "out", {"train": 17})
    path = tmp_path / "out" / "train" / "03" / "000003.png"
    with pytest.raises(
        ImageError,
        match=r"masks/parts/train/03/000003.png: no such image file: .*; only images written by",
    ):
        read_parts(path)
    mask = tmp_path / "out" / "masks" / "answer" / "train" / "03" / "000003.png"
    mask.write_bytes(mask.read_bytes()[:60])
    with pytest.raises(ImageError, match=r"cannot read the mask .*masks/answer/train/03/000003.png"):
        read_generated_mask(path)
    with pytest.raises(ImageError, match=r"expected the path of an image in the folders of its split and class, got /a.png"):
        read_generated_mask("/a.png")
    (tmp_path / "out" / "masks" / "parts" / "train" / "03").mkdir(parents=True)
    Image.new("L", (8, 8)).save(tmp_path / "out" / "masks" / "parts" / "train" / "03" / "000003.png")
    with pytest.raises(ImageError, match="expected a mask that names its parts"):
        read_parts(path)


@pytest.mark.parametrize("text", ['["wing", "ta', "", "3", "null", '{"wing": 0}', "[1, 2]", "[" * 100_000])
def test_damaged_names_of_parts_are_refused(text, tmp_path):
    path, mask = tmp_path / "train" / "a" / "0.png", tmp_path / "masks" / "parts" / "train" / "a" / "0.png"
    mask.parent.mkdir(parents=True)
    names = PngInfo()
    names.add_text("parts", text)
    Image.new("L", (8, 8)).save(mask, pnginfo=names)
    with pytest.raises(ImageError, match="expected a mask that names its parts") as caught:
        read_parts(path)
    assert len(str(caught.value)) < 1000


def test_relative_paths_of_images(tmp_path, monkeypatch):
    write_synthetic(SIXTEEN, tmp_path / "out", {"train": 17})
    monkeypatch.chdir(tmp_path / "out" / "train" / "03")
    assert read_generated_mask("000003.png").sum() == 12
    assert read_generated_mask(Path("..") / "04" / "000004.png").sum() == 16


def test_all_synthetic_data_sets_are_built_by_name():
    assert [entry["name"] for entry in list_synthetic()] == list(SYNTHETIC) == ["birds", "cifar-counting", "counting"]
    for entry in list_synthetic():
        assert entry["summary"].endswith((".", "?"))
        assert make_synthetic(entry["name"], **entry["options"]) == SYNTHETIC[entry["name"]]()
        json.dumps(entry)
    assert make_synthetic("cifar-counting", root="some/where", seed=2) == CifarCounting(seed=2, root=Path("some/where"))
    assert make_synthetic("counting", patch_size="8").image_size == (24, 24)
    json.dumps(describe_synthetic(CifarCounting()))
    assert "separating_parts" not in describe_synthetic(SIXTEEN)


@pytest.mark.parametrize(
    ("name", "options", "kind", "message"),
    [
        (
            "bird",
            {},
            UnknownNameError,
            "unknown synthetic data set 'bird' (did you mean 'birds'?); choose one of: birds, cifar-counting, counting",
        ),
        (
            "counting",
            {"size": 3},
            InvalidInputError,
            "counting has no option size; its options: seed, grid_size, class_idx",
        ),
        ("counting", {"grid_size": "many"}, InvalidInputError, "cannot use 'many' for counting.grid_size: "),
        ("counting", {"grid_size": None}, InvalidInputError, "cannot use None for counting.grid_size: "),
        ("counting", {"class_idx": 7}, InvalidInputError, "expected class_idx to be one of 6 colors"),
    ],
)
def test_bad_names_and_options_are_refused(name, options, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        make_synthetic(name, **options)

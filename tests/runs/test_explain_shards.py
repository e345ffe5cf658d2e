"""Explanations in shards: the same as in files, whatever the batches, interruptions and processes; read lazily by image."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from samples import noisy_photo
from together import Together

import vitrail
from vitrail.core.errors import CheckpointError, OutputError, UnknownNameError
from vitrail.explainers import make_explainer
from vitrail.explanation import Explanation
from vitrail.runs import claim, explain_files, explain_shards, loop
from vitrail.runs import explain_folder as folder_run
from vitrail.runs.explain_folder import explain_folder
from vitrail.runs.explain_shards import is_drawn

pytest_plugins = ("tiny", "score_runs")

pytestmark = pytest.mark.usefixtures("plain_pictures")

METHODS = ("hit", "rollout")


@pytest.fixture(scope="module")
def classifier(tiny_model_file):
    return vitrail.load(tiny_model_file, device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Seven photos, one of which cannot be read."""
    root = tmp_path_factory.mktemp("data")
    for i in range(6):
        path = root / ("cats" if i % 2 else "dogs") / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        noisy_photo(i).save(path)
    (root / "dogs" / "bad.png").write_bytes(b"no picture")
    return root


@pytest.fixture
def explain(classifier, data, monkeypatch):
    """A function that explains into shards of four images."""
    monkeypatch.setattr(folder_run, "IMAGES_PER_SHARD", 4)

    def run(out, model=classifier, **options):
        explainers = [make_explainer(name, model) for name in METHODS]
        return explain_folder(explainers, data, out, batch_size=2, file_format="shards", **options)

    return run


def assert_equal(actual, expected):
    assert actual.sources == expected.sources
    assert (actual.method, actual.model, actual.class_names) == (expected.method, expected.model, expected.class_names)
    for name, tensor in expected._tensors().items():
        torch.testing.assert_close(getattr(actual, name), tensor, rtol=0, atol=0)


def test_shards_hold_what_files_hold(explain, classifier, data, tmp_path):
    results = explain(tmp_path / "shards", pictures=2)
    explain_folder([make_explainer(name, classifier) for name in METHODS], data, tmp_path / "files", batch_size=2)
    assert (results.num_images, [file.path for file in results.unreadable]) == (6, [str(data / "dogs" / "bad.png")])
    shards, files = vitrail.open_run(tmp_path / "shards"), vitrail.open_run(tmp_path / "files")
    assert list(shards) == list(files) == list(METHODS)
    assert shards.images == files.images == [f"cats/{i}.png" for i in (1, 3, 5)] + [f"dogs/{i}.png" for i in (0, 2, 4)]
    for method in METHODS:
        assert len(shards[method]) == 6
        for index, (streamed, expected) in enumerate(zip(shards[method], files[method], strict=True)):
            assert_equal(streamed, expected)
            assert_equal(shards[method][index], expected)
            assert_equal(shards[method][expected.sources[0]], expected)
    assert shards["hit"][0].bias is not None
    assert shards["rollout"][0].bias is None
    rows = (tmp_path / "shards" / "images.csv").read_text().splitlines()
    assert rows[0] == "image,target,target_name,probability,logit,shard,row"
    assert len(list((tmp_path / "shards" / "shards").iterdir())) == 2
    assert sorted(path.name for path in (tmp_path / "shards" / "pictures" / "hit").rglob("*.png")) == ["1.png", "2.png"]


def test_half_precision_is_an_option(explain, tmp_path):
    explain(tmp_path / "full", pictures="none")
    explain(tmp_path / "half", pictures="none", half=True)
    assert not (tmp_path / "full" / "pictures").exists()
    full, half = (vitrail.open_run(tmp_path / name)["hit"][3] for name in ("full", "half"))
    assert not torch.equal(full.relevance, half.relevance)
    torch.testing.assert_close(full.relevance, half.relevance, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("times", [1, 3])
def test_an_interrupted_run_ends_with_the_same_bytes(times, explain, tmp_path, snapshot, monkeypatch):
    explain(tmp_path / "whole")
    calls = []

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) <= times:
            raise KeyboardInterrupt
        return explain_images(*arguments)

    explain_images = explain_shards.explain_images
    monkeypatch.setattr(explain_shards, "explain_images", fail)
    for _ in range(times):
        with pytest.raises(KeyboardInterrupt):
            explain(tmp_path / "stopped")
    explain(tmp_path / "stopped")
    assert snapshot(tmp_path / "stopped") == snapshot(tmp_path / "whole")


@pytest.mark.parametrize("damage", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-9])])
def test_only_a_damaged_shard_is_computed_again(damage, explain, tmp_path, snapshot):
    explain(tmp_path / "out")
    whole = snapshot(tmp_path / "out")
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "shards").iterdir()}
    damage(tmp_path / "out" / "shards" / "000001.safetensors")
    with pytest.raises((CheckpointError, OSError)):
        vitrail.open_run(tmp_path / "out")["hit"][5]
    explain(tmp_path / "out")
    assert snapshot(tmp_path / "out") == whole
    again = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "shards").iterdir()}
    assert [name for name in times if times[name] != again[name]] == ["000001.safetensors"]


@pytest.mark.parametrize("file_format", ["shards", "files"])
def test_processes_write_the_bytes_of_one(file_format, classifier, data, tmp_path, snapshot, monkeypatch):
    monkeypatch.setattr(folder_run, "IMAGES_PER_SHARD", 2)

    def run(model, out):
        explainers = [make_explainer(name, model) for name in METHODS]
        return explain_folder(explainers, data, out, batch_size=2, file_format=file_format, pictures=3)

    alone = run(classifier, tmp_path / "one")
    models = [replace(classifier, module=deepcopy(classifier.module)) for _ in range(2)]
    together = Together(2, monkeypatch, loop, claim, folder_run, explain_files, explain_shards)
    assert together.run(lambda rank: run(models[rank], tmp_path / "two")) == [alone, alone]
    assert snapshot(tmp_path / "two") == snapshot(tmp_path / "one")


def test_other_settings_are_refused(explain, tmp_path):
    explain(tmp_path / "out", pictures=1)
    with pytest.raises(OutputError, match="pictures"):
        explain(tmp_path / "out", pictures=2)
    explain(tmp_path / "out", pictures=2, overwrite=True)


def test_images_that_are_not_there(explain, tmp_path):
    with pytest.raises(CheckpointError, match="expected the folder of a finished"):
        vitrail.open_run(tmp_path)
    explain(tmp_path / "out")
    run = vitrail.open_run(tmp_path / "out")
    with pytest.raises(UnknownNameError, match="unknown method of this run 'chefer'"):
        run["chefer"]
    with pytest.raises(UnknownNameError, match=r"no image 'birds/1\.png'"):
        run["hit"]["birds/1.png"]
    with pytest.raises(IndexError):
        run["hit"][6]
    assert [one.sources for one in run["hit"][4:]] == [("dogs/2.png",), ("dogs/4.png",)]
    assert isinstance(run["hit"][-1], Explanation)


@pytest.mark.parametrize(("pictures", "drawn"), [(0, 0), (1, 1), (3, 3), (7, 7), (9, 7), ("all", 7), ("none", 0)])
def test_pictures_are_drawn_for_the_requested_number_of_images(pictures, drawn):
    assert sum(is_drawn(index, 7, pictures) for index in range(7)) == drawn

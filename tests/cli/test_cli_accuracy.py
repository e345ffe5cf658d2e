import json
import re

import pytest
import torch
from samples import CLASS_NAMES

import vitrail
from vitrail.datasets.image_io import open_image

pytest_plugins = ("tiny",)

CLASSES = ("crimson", "amber", "green")


@pytest.fixture
def labeled(make_classes):
    """Three of the model's seven classes, so that only names can tell their numbers; eight photos each."""
    return make_classes(CLASSES, 8)


def by_hand(labeled, tiny_model_file):
    """Top-1, top-5 and confidence, photo by photo."""
    classifier = vitrail.load(tiny_model_file, device="cpu")
    first, five, confidences = [], [], []
    for path in sorted(labeled.rglob("*.png")):
        with torch.no_grad():
            probabilities = classifier.module(classifier.preprocessing(open_image(path))[None]).softmax(-1)[0]
        ranked = [CLASS_NAMES[i] for i in probabilities.argsort(descending=True).tolist()]
        first.append(path.parent.name == ranked[0])
        five.append(path.parent.name in ranked[:5])
        confidences.append(float(probabilities.max()))
    return sum(first) / len(first), sum(five) / len(five), sum(confidences) / len(confidences)


def test_it_agrees_with_a_count_by_hand(labeled, run_vitrail, tiny_model_file, tmp_path):
    top1, top5, confidence = by_hand(labeled, tiny_model_file)
    assert 0 < top1 < top5 < 1  # Else the test would tell nothing.
    code, printed, err = run_vitrail("test", labeled, "-m", tiny_model_file, "--batch-size", 5, "-o", tmp_path / "out")
    assert code == 0, err
    assert f"24 images: top-1 {top1:.2%}, top-5 {top5:.2%}, mean confidence {confidence:.3f}" in printed
    written = json.loads((tmp_path / "out" / "accuracy.json").read_text())
    assert written["top1"] == pytest.approx(top1)
    assert written["top5"] == pytest.approx(top5)
    assert written["mean_confidence"] == pytest.approx(confidence, abs=1e-5)
    assert (written["num_images"], written["unreadable"]) == (24, [])


def test_a_folder_named_test_is_taken_before_val_and_the_rest(labeled, run_vitrail, make_photo, tiny_model_file, tmp_path):
    make_photo(tmp_path / "set" / "train" / "amber" / "a.png")
    make_photo(tmp_path / "set" / "val" / "amber" / "a.png")
    labeled.rename(tmp_path / "set" / "test")
    code, printed, _err = run_vitrail("test", tmp_path / "set", "-m", tiny_model_file)
    assert code == 0
    assert "on 24 images" in printed


def test_limit_gives_every_class_its_share(labeled, run_vitrail, tiny_model_file, tmp_path):
    for path in labeled.glob("*/[2-7].png"):
        if path.parent.name != "green":
            path.unlink()
    code, printed, _err = run_vitrail("test", labeled, "-m", tiny_model_file, "--limit", 6)
    assert code == 0
    assert "on 6 images" in printed


def test_unreadable_files_are_counted_and_skipped(labeled, run_vitrail, tiny_model_file, tmp_path):
    before = by_hand(labeled, tiny_model_file)
    (labeled / "amber" / "bad.jpg").write_bytes(b"\xff\xd8\xff nonsense")
    code, printed, err = run_vitrail("test", labeled, "-m", tiny_model_file, "--batch-size", 1, "-o", tmp_path / "out")
    assert code == 0
    assert "skipped 1 unreadable file" in err
    assert f"24 images: top-1 {before[0]:.2%}" in printed
    written = json.loads((tmp_path / "out" / "accuracy.json").read_text())
    assert [entry["path"] for entry in written["unreadable"]] == [str(labeled / "amber" / "bad.jpg")]


def test_unknown_classes_are_named(labeled, run_vitrail, tiny_model_file):
    (labeled / "green").rename(labeled / "gren")
    code, _out, err = run_vitrail("test", labeled, "-m", tiny_model_file)
    assert code == 2
    assert "gren" in err


@pytest.mark.parametrize("problem", ["no folder", "unknown class", "no classes"])
def test_nothing_is_written_before_the_data_is_known_to_fit(
    problem, labeled, run_vitrail, tiny_model_file, tmp_path, monkeypatch
):
    written = []
    monkeypatch.setattr("vitrail.api.evaluation.export_huggingface", lambda *args: written.append(args))
    if problem == "unknown class":
        (labeled / "green").rename(labeled / "gren")
    data = {"no folder": tmp_path / "none", "no classes": labeled / "green"}.get(problem, labeled)
    command = ("test", data, "-m", tiny_model_file, "--export", tmp_path / "exported", "-o", tmp_path / "out")
    code, printed, err = run_vitrail(*command)
    assert (code, printed, err.count("error:")) == (2, "", 1)
    assert (written, (tmp_path / "exported").exists(), (tmp_path / "out").exists()) == ([], False, False)


def test_an_existing_report_is_not_replaced_without_overwrite(labeled, run_vitrail, tiny_model_file, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "accuracy.json").write_text("precious")
    assert run_vitrail("test", labeled, "-m", tiny_model_file, "-o", tmp_path / "out")[0] == 2
    assert (tmp_path / "out" / "accuracy.json").read_text() == "precious"
    assert run_vitrail("test", labeled, "-m", tiny_model_file, "-o", tmp_path / "out", "--overwrite")[0] == 0
    assert json.loads((tmp_path / "out" / "accuracy.json").read_text())["num_images"] == 24


def test_a_data_set_by_its_name(labeled, run_vitrail, tiny_model_file, tmp_path):
    (tmp_path / "root").mkdir()
    labeled.rename(tmp_path / "root" / "test")
    root = tmp_path / "root"
    code, by_folder, err = run_vitrail("test", root, "--model", tiny_model_file)
    assert code == 0, err
    code, by_name, err = run_vitrail("test", root, "--model", tiny_model_file, "--data-set", "folder", "--split", "test")
    assert code == 0, err
    assert by_name == by_folder
    (root / "test").rename(root / "last")
    code, by_option, err = run_vitrail(
        "test", root, "--model", tiny_model_file, "--data-set", "folder", "--data-option", "test=last"
    )
    assert code == 0, err
    assert by_option == by_folder


def test_val_is_used_in_a_folder_without_test(labeled, run_vitrail, make_photo, tiny_model_file, tmp_path):
    root = tmp_path / "root"
    make_photo(root / "train" / "amber" / "a.png")
    arguments = ("test", root, "--model", tiny_model_file, "--data-set", "folder")
    code, _out, err = run_vitrail(*arguments)
    assert code == 2
    assert f"expected a folder test or val in {root}" in err
    labeled.rename(root / "val")
    code, printed, err = run_vitrail(*arguments)
    assert code == 0, err
    assert "on 24 images" in printed
    # A folder that is asked for is not replaced by another.
    code, _out, err = run_vitrail(*arguments, "--data-option", "test=last")
    assert code == 2
    assert str(root / "last") in err
    (root / "val").rename(root / "proof")
    code, printed, err = run_vitrail(*arguments, "--data-option", "val=proof")
    assert code == 0, err
    assert "on 24 images" in printed
    make_photo(root / "test" / "amber" / "a.png")
    code, printed, err = run_vitrail(*arguments, "--data-option", "val=proof")
    assert code == 0, err
    assert "on 1 images" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data-set", "flders"), "unknown data set 'flders'"),
        (("--data-set", "mnist"), "train-images-idx3-ubyte|t10k-images-idx3-ubyte"),
        (("--data-set", "mnist", "--split", "val"), "no split 'val'"),
        (("--data-set", "mnist", "--data-option", "level=1"), "level"),
        (("--split", "test"), "--data-set"),
    ],
)
def test_an_unreadable_data_set_is_reported_in_one_message(arguments, message, run_vitrail, tiny_model_file, tmp_path):
    code, _out, err = run_vitrail("test", tmp_path, "--model", tiny_model_file, *arguments)
    assert code == 2
    assert err.count("error:") == 1
    assert re.search(message, err), err

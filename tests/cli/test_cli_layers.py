"""`vitrail layers`: what is written, what is printed, and what is refused."""

import csv
import json
import re

import numpy as np
import pytest
import torch
from processes import run_together

import vitrail
from vitrail.datasets.image_io import open_image

pytest_plugins = ("tiny", "score_runs")

pytestmark = pytest.mark.usefixtures("plain_pictures")

FILES = ["images.csv", "index.html", "layers.csv", "layers.png", "saliency.csv", "summary.json"]
RUN = ["run.json", "shards"]
"""What a run needs to resume."""
CLASSES = ("crimson", "amber", "green")


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def strict_json(path):
    """NaN and Infinity, which other programs cannot read, fail."""
    return json.loads(path.read_text(), parse_constant=pytest.fail)


@pytest.fixture
def labeled(make_classes):
    return make_classes(CLASSES, 6)


@pytest.fixture
def reported(labeled, run_vitrail, tiny_model_file, tmp_path):
    """The folder of a run over 18 labeled photos in batches of four, and what was printed."""
    code, printed, err = run_vitrail("layers", labeled, "-m", tiny_model_file, "--batch-size", 4, "-o", tmp_path / "out")
    assert code == 0, err
    return tmp_path / "out", printed


@pytest.mark.usefixtures("real_pictures")
def test_every_file_is_written(reported):
    out, printed = reported
    assert sorted(path.name for path in out.iterdir()) == sorted([*FILES, *RUN, "timing.json"])
    assert (out / "layers.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "index.html").read_text()
    assert page.count('src="data:image/png;base64,') == 1
    assert all(words in page for words in ("Top-1 accuracy", "Agreement with the full model", "Mean layer saliency"))
    assert all(name in printed for name in FILES)


def test_layers_csv_holds_means_and_standard_errors(reported, labeled, tiny_model_file):
    out, _printed = reported
    classifier = vitrail.load(tiny_model_file, device="cpu")
    paths = sorted(labeled.rglob("*.png"))
    images = torch.stack([classifier.preprocessing(open_image(path)) for path in paths])
    labels = np.array([classifier.class_names.index(path.parent.name) for path in paths])
    rows = rows_of(out / "layers.csv")
    assert [(row["kind"], row["k"], row["kept"]) for row in rows] == [
        ("first", "0", ""),
        ("first", "1", "0"),
        ("first", "2", "0 1"),
        ("without_first", "0", "0 1"),
        ("without_first", "1", "1"),
        ("without_first", "2", ""),
        ("single", "0", "0"),
        ("single", "1", "1"),
        ("without", "0", "1"),
        ("without", "1", "0"),
    ]
    with torch.no_grad():
        targets = classifier.module(images).argmax(-1).numpy()
        for row in rows:
            keep = torch.tensor([[str(layer) in row["kept"].split() for layer in range(2)]])
            probabilities = classifier.module.ablated_logits(images, keep)[:, 0].softmax(-1).numpy()
            values = {
                "top1": probabilities.argmax(-1) == labels,
                "agreement": probabilities.argmax(-1) == targets,
                "probability": probabilities[np.arange(18), targets],
            }
            for name, each in values.items():
                assert float(row[name]) == pytest.approx(each.mean(), abs=1e-5)
                assert float(row[f"{name}_error"]) == pytest.approx(each.std(ddof=1) / 18**0.5, abs=1e-5)


def test_the_parts_of_every_image_are_those_of_the_means(reported, tiny_model_file):
    out, _printed = reported
    images, saliency, summary = rows_of(out / "images.csv"), rows_of(out / "saliency.csv"), strict_json(out / "summary.json")
    assert [row["layer"] for row in saliency] == ["0", "1", "bias", "logit"]
    parts = np.array([[float(row[name]) for name in ("layer_0", "layer_1", "bias", "logit")] for row in images])
    np.testing.assert_allclose(parts[:, :3].sum(1), parts[:, 3], rtol=1e-4, atol=1e-4)
    for i, row in enumerate(saliency):
        expected = [parts[:, i].mean(), parts[:, i].std(ddof=1) / 18**0.5, np.abs(parts[:, i]).mean()]
        np.testing.assert_allclose([float(row[name]) for name in ("mean", "error", "mean_magnitude")], expected, rtol=1e-5)
    np.testing.assert_allclose(summary["mean_layer_saliency"], parts[:, :2].mean(0), rtol=1e-5)
    assert [row["label"] for row in images] == [name for name in sorted(CLASSES) for _ in range(6)]
    classifier = vitrail.load(tiny_model_file, device="cpu")
    for row in images[::5]:
        with torch.no_grad():
            logits = classifier.module(classifier.preprocessing(open_image(row["image"]))[None])[0]
        assert row["target"] == classifier.class_names[int(logits.argmax())]
        assert float(row["logit"]) == pytest.approx(float(logits.max()), rel=1e-4)


def test_the_summary_and_the_printed_table_agree_with_the_files(reported):
    out, printed = reported
    summary, rows = strict_json(out / "summary.json"), rows_of(out / "layers.csv")
    assert (summary["num_layers"], summary["num_images"], summary["no_labels"], summary["unreadable"]) == (2, 18, None, [])
    assert summary["completeness_error"] < 1e-4
    whole = next(row for row in rows if (row["kind"], row["k"]) == ("first", "2"))
    assert summary["whole_model"]["top1"]["mean"] == pytest.approx(float(whole["top1"]))
    assert summary["whole_model"]["probability"]["mean"] == pytest.approx(float(whole["probability"]), abs=1e-6)
    assert summary["whole_model"]["agreement"] == {"mean": 1.0, "error": 0.0}
    assert f"2 layers, 18 images: top-1 accuracy {float(whole['top1']):.4f}" in printed
    lines = printed.splitlines()
    head = next(i for i, line in enumerate(lines) if line.split()[:1] == ["k"])
    assert lines[head].split() == ["k", "first", "without_first", "single", "without", "given", "error", "magnitude"]
    table = lines[head : head + 6]
    # Numbers end where their heading ends.
    ends = {match.end() for match in re.finditer(r"\S+", table[0])}
    assert all({match.end() for match in re.finditer(r"\d\.\d{4}", line)} <= ends for line in table[1:])
    for k, line in enumerate(table[1:3]):
        of_kind = {row["kind"]: row["top1"] for row in rows if row["k"] == str(k)}
        shown = [float(of_kind[kind]) for kind in ("first", "without_first", "single", "without")]
        assert [float(number) for number in line.split()[1:5]] == pytest.approx(shown, abs=1e-4)


def test_photos_without_labels_need_none(run_vitrail, make_photo, tiny_model_file, tmp_path):
    for i in range(3):
        make_photo(tmp_path / "photos" / f"{i}.png", seed=i)
    code, printed, err = run_vitrail("layers", tmp_path / "photos", "-m", tiny_model_file, "-o", tmp_path / "out")
    assert code == 0, err
    assert "top-1 is left out: expected one sub-folder of images per class, found photos without a class" in printed
    assert "agreement with the full model by the layers that are kept" in printed
    assert "top1" not in rows_of(tmp_path / "out" / "layers.csv")[0]
    assert "label" not in rows_of(tmp_path / "out" / "images.csv")[0]
    summary = strict_json(tmp_path / "out" / "summary.json")
    assert "without a class" in summary["no_labels"]
    assert set(summary["whole_model"]) == {"agreement", "probability"}


def test_folders_of_other_classes_count_as_no_labels(run_vitrail, make_classes, tiny_model_file, tmp_path):
    folder = make_classes(("blue", "purple"), 1)
    code, printed, _err = run_vitrail("layers", folder, "-m", tiny_model_file, "-o", tmp_path / "out")
    assert code == 0
    assert "top-1 is left out: " in printed
    assert "unknown among 2: purple" in printed


def test_a_single_photo_has_no_standard_error(run_vitrail, make_photo, tiny_model_file, tmp_path):
    photo = make_photo(tmp_path / "a.png")
    code, printed, err = run_vitrail("layers", photo, "-m", tiny_model_file, "-o", tmp_path / "out")
    assert code == 0, err
    assert "nan" not in printed.lower()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([*FILES, *RUN])
    assert strict_json(tmp_path / "out" / "summary.json")["whole_model"]["probability"]["error"] is None
    assert {row["error"] for row in rows_of(tmp_path / "out" / "saliency.csv")} == {""}
    assert {row["probability_error"] for row in rows_of(tmp_path / "out" / "layers.csv")} == {""}
    assert ">nan<" not in (tmp_path / "out" / "index.html").read_text()


def test_a_folder_named_test_is_taken_and_limit_spreads(labeled, run_vitrail, make_photo, tiny_model_file, tmp_path):
    make_photo(tmp_path / "set" / "train" / "amber" / "a.png")
    labeled.rename(tmp_path / "set" / "test")
    code, printed, _err = run_vitrail("layers", tmp_path / "set", "-m", tiny_model_file, "--limit", 6, "-o", tmp_path / "out")
    assert code == 0
    assert "6 images" in printed
    assert [row["label"] for row in rows_of(tmp_path / "out" / "images.csv")] == [n for n in sorted(CLASSES) for _ in range(2)]


def test_unreadable_files_are_counted_and_skipped(labeled, run_vitrail, tiny_model_file, tmp_path):
    (labeled / "amber" / "bad.jpg").write_bytes(b"\xff\xd8\xff nonsense")
    code, printed, err = run_vitrail("layers", labeled, "-m", tiny_model_file, "-o", tmp_path / "out")
    assert code == 0
    assert "18 images" in printed
    assert "skipped 1 unreadable file" in err
    written = strict_json(tmp_path / "out" / "summary.json")["unreadable"]
    assert [file["path"] for file in written] == [str(labeled / "amber" / "bad.jpg")]


def test_another_model_is_refused_in_one_message(labeled, run_vitrail, tmp_path):
    code, printed, err = run_vitrail(
        *("layers", labeled, "-m", "timm:vit_tiny_patch16_224", "--model-arg", "pretrained=false", "-o", tmp_path / "out")
    )
    assert (code, printed) == (2, "")
    assert err.count("error: ") == 1
    assert "expected a HiT, whose class token is a sum over its layers, got timm:vit_tiny_patch16_224" in err
    assert not (tmp_path / "out").exists()


def test_earlier_results_are_replaced_only_if_asked(reported, labeled, run_vitrail, tiny_model_file, snapshot):
    out, _printed = reported
    before = snapshot(out)
    code, _out, err = run_vitrail("layers", labeled, "-m", tiny_model_file, "-o", out)
    assert code == 2
    assert "--overwrite" in err
    assert snapshot(out) == before
    code, _out, _err = run_vitrail("layers", labeled, "-m", tiny_model_file, "-o", out, "--overwrite", "--limit", 3)
    assert code == 0
    assert len(rows_of(out / "images.csv")) == 3


def test_nothing_to_read_is_an_error(run_vitrail, tiny_model_file, tmp_path):
    code, _out, err = run_vitrail("layers", tmp_path / "none", "-m", tiny_model_file, "-o", tmp_path / "out")
    assert (code, "no such file or folder of images" in err) == (2, True)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "bad.png").write_bytes(b"")
    code, _out, err = run_vitrail("layers", tmp_path / "photos", "-m", tiny_model_file, "-o", tmp_path / "out")
    assert (code, "not one of 1 images could be read" in err) == (2, True)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_two_processes_print_and_write_what_one_does(labeled, run_vitrail, tiny_model_file, tmp_path):
    """17 readable photos, so that the shares are unequal."""
    (labeled / "crimson" / "0.png").write_bytes(b"")
    arguments = ("layers", labeled, "-m", tiny_model_file, "--batch-size", 4, "--device", "cpu", "--out")
    code, printed, err = run_vitrail(*arguments, tmp_path / "one")
    assert code == 0, err
    code, printed_by_two, err = run_together("-m", "vitrail", *arguments, tmp_path / "two")
    assert code == 0, err
    # Batches of other images may be rounded otherwise in their last digits; the completeness error is nothing but rounding.
    of_one, of_two = (
        [line for line in text.splitlines() if not line.startswith(("completeness", "wrote"))]
        for text in (printed, printed_by_two)
    )
    assert of_two == of_one
    assert err.count("skipped 1 unreadable file") == 1
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == sorted([*FILES, *RUN, "timing.json"])
    for name in ("images.csv", "layers.csv", "saliency.csv"):
        one, two = (rows_of(tmp_path / folder / name) for folder in ("one", "two"))
        for left, right in zip(one, two, strict=True):
            assert list(left) == list(right)
            for column in left:
                assert _number(left[column]) == pytest.approx(_number(right[column]), abs=1e-5), column


def _number(cell):
    try:
        return float(cell)
    except ValueError:
        return cell

import csv
import json
import re

import numpy as np
import pytest
import torch

import vitrail
from vitrail.data.images import open_image

pytest_plugins = ("tiny",)

COLUMNS = ("insertion_zero", "deletion_zero", "insertion_blur", "deletion_blur")


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def photos(make_photo, tmp_path):
    return [make_photo(tmp_path / "photos" / f"{i}.png", seed=i) for i in range(5)]


@pytest.fixture
def scored(photos, run_vitrail, tiny_model_file, tmp_path):
    """The folder of a run over five photos in batches of two, and what was printed."""
    out = tmp_path / "out"
    code, printed, err = run_vitrail(
        "score", photos[0].parent, "--model", tiny_model_file, "--steps", 12, "--batch-size", 2, "--out", out
    )
    assert code == 0, err
    return out, printed


def test_every_file_is_written(scored):
    out, _printed = scored
    assert sorted(path.name for path in out.iterdir()) == [
        "curves.csv",
        "curves.npz",
        "curves.png",
        "scores.csv",
        "summary.json",
    ]
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_scores_are_the_areas_under_the_saved_curves(scored, photos):
    out, _printed = scored
    rows = rows_of(out / "scores.csv")
    assert [(row["image"], row["method"]) for row in rows] == [
        (str(path), method) for method in ("hit", "random") for path in photos
    ]
    with np.load(out / "curves.npz") as arrays:
        assert tuple(arrays["names"]) == COLUMNS
        fractions = arrays["fractions"].astype(np.float64)
        np.testing.assert_allclose(fractions, np.arange(13) / 12, atol=1e-6)
        for method in ("hit", "random"):
            curves = arrays[method].astype(np.float64)
            assert curves.shape == (5, 4, 13)
            areas = np.trapezoid(curves, fractions, axis=-1)
            empty = curves[:, 1::2, -1].repeat(2, axis=1)
            clean = curves[:, 1::2, 0].repeat(2, axis=1)
            for row, area, low, high in zip([r for r in rows if r["method"] == method], areas, empty, clean, strict=True):
                np.testing.assert_allclose([float(row[column]) for column in COLUMNS], area, atol=1e-5)
                relative = [float(row[f"normalised_{column}"]) for column in COLUMNS]
                np.testing.assert_allclose(relative, (area - low) / (high - low), rtol=1e-3, atol=1e-4)


def test_the_mean_curves_and_the_summary_agree_with_the_arrays(scored, photos):
    out, printed = scored
    summary = json.loads((out / "summary.json").read_text())
    points = rows_of(out / "curves.csv")
    with np.load(out / "curves.npz") as arrays:
        for method in ("hit", "random"):
            for i, baseline in enumerate(("zero", "blur")):
                for j, direction in enumerate(("insertion", "deletion")):
                    mine = [p for p in points if (p["method"], p["baseline"], p["direction"]) == (method, baseline, direction)]
                    mean = arrays[method][:, 2 * i + j].mean(0)
                    assert {p["curve"] for p in mine} == {f"{direction}_{baseline}"}
                    np.testing.assert_allclose([float(p["mean_score"]) for p in mine], mean, atol=1e-6)
                    np.testing.assert_allclose([float(p["fraction"]) for p in mine], arrays["fractions"], atol=1e-6)
                    area = np.trapezoid(mean, arrays["fractions"])
                    assert summary["mean_auc"][method][f"{direction}_{baseline}"] == pytest.approx(area, abs=1e-5)
                    line = next(line for line in printed.splitlines() if line.startswith(f"  {method} "))
                    shown = float(re.search(rf"\b{direction}_{baseline} ([\d.]+)", line)[1])
                    assert shown == pytest.approx(area, abs=1e-4)
    assert (summary["num_images"], summary["num_steps"], summary["protocol"], summary["orders"]) == (5, 12, "hit", ["most"])
    assert summary["unreadable"] == []
    assert set(summary["completeness_error"]) == {"hit"}
    assert summary["completeness_error"]["hit"] < 1e-4


def test_curves_begin_and_end_where_the_network_says(scored, photos, tiny_model_file):
    out, _printed = scored
    classifier = vitrail.load(tiny_model_file, device="cpu")
    targets = [row["target"] for row in rows_of(out / "scores.csv")][:5]
    with np.load(out / "curves.npz") as arrays, torch.no_grad():
        for i, path in enumerate(photos):
            image = classifier.preprocessing(open_image(path))[None]
            clean = classifier.module(image).softmax(-1)[0]
            empty = classifier.module(torch.zeros_like(image)).softmax(-1)[0]
            target = int(clean.argmax())
            assert targets[i] == classifier.class_names[target]
            for method in ("hit", "random"):
                insertion, deletion = arrays[method][i, :2]
                np.testing.assert_allclose([insertion[-1], deletion[0]], float(clean[target]), atol=1e-5)
                np.testing.assert_allclose([insertion[0], deletion[-1]], float(empty[target]), atol=1e-5)


def test_the_order_of_change_can_be_turned_round(run_vitrail, photos, tiny_model_file, tmp_path):
    for order in ("most", "least"):
        code, _out, err = run_vitrail(
            "score",
            photos[0],
            "-m",
            tiny_model_file,
            "--method",
            "hit",
            "--steps",
            16,
            "--order",
            order,
            "-o",
            tmp_path / order,
        )
        assert code == 0, err
    with np.load(tmp_path / "most" / "curves.npz") as most, np.load(tmp_path / "least" / "curves.npz") as least:
        # What is inserted last by one order is what is deleted last by the other.
        np.testing.assert_allclose(most["hit"][0, 0::2], least["hit"][0, 1::2, ::-1], atol=1e-5)
        assert not np.allclose(most["hit"], least["hit"], atol=1e-3)
    assert json.loads((tmp_path / "least" / "summary.json").read_text())["orders"] == ["least"]


def test_limit_takes_images_spread_over_the_folder(run_vitrail, photos, tiny_model_file, tmp_path):
    out = tmp_path / "out"
    code, _out, _err = run_vitrail("score", photos[0].parent, "-m", tiny_model_file, "--steps", 2, "--limit", 2, "-o", out)
    assert code == 0
    assert [row["image"] for row in rows_of(out / "scores.csv")][:2] == [str(photos[0]), str(photos[2])]


def test_unreadable_files_are_counted_named_and_skipped(run_vitrail, photos, tiny_model_file, tmp_path):
    (photos[0].parent / "2b.jpg").write_text("no photo")
    out = tmp_path / "out"
    code, printed, err = run_vitrail(
        "score", photos[0].parent, "-m", tiny_model_file, "--steps", 2, "--batch-size", 1, "-o", out
    )
    assert code == 0
    assert "1 unreadable file(s) were skipped" in err
    assert "5 images" in printed
    summary = json.loads((out / "summary.json").read_text())
    assert [entry["path"] for entry in summary["unreadable"]] == [str(photos[0].parent / "2b.jpg")]
    assert [row["image"] for row in rows_of(out / "scores.csv") if row["method"] == "hit"] == [str(path) for path in photos]


def test_photos_beside_a_folder_of_photos_are_not_silently_left_out(run_vitrail, photos, make_photo, tiny_model_file, tmp_path):
    make_photo(photos[0].parent / "holiday" / "beach.png", seed=9)
    code, out, err = run_vitrail("score", photos[0].parent, "-m", tiny_model_file, "--steps", 2, "-o", tmp_path / "out")
    assert (code, out) == (2, "")
    assert "5 beside" in err


def test_overwrite_replaces_scores(run_vitrail, photos, scored, tiny_model_file):
    out, _printed = scored
    before = (out / "scores.csv").read_bytes()
    arguments = ("score", photos[1], "-m", tiny_model_file, "--steps", 3, "-o", out)
    assert run_vitrail(*arguments)[0] == 2
    assert (out / "scores.csv").read_bytes() == before
    assert run_vitrail(*arguments, "--overwrite")[0] == 0
    assert [row["image"] for row in rows_of(out / "scores.csv")] == [str(photos[1])] * 2
    with np.load(out / "curves.npz") as arrays:
        assert arrays["hit"].shape == (1, 4, 4)


@pytest.fixture
def run_diffmask(run_vitrail, photos, tiny_model_file, tmp_path):
    """A function from more options to the printed lines of a run by this protocol; it writes into `out`."""

    def run(*options):
        arguments = ("score", photos[0].parent, "-m", tiny_model_file, "--protocol", "diffmask", "-o", tmp_path / "out")
        code, printed, err = run_vitrail(*arguments, "--batch-size", 2, "--overwrite", *options)
        assert code == 0, err
        return printed.splitlines()

    return run


def test_the_protocol_of_diffmask(run_diffmask, photos, tiny_model_file, tmp_path):
    lines, out = run_diffmask(), tmp_path / "out"
    names = ["deletion_noise", "deletion_noise_least", "deletion_noise_kl", "deletion_noise_least_kl"]
    assert "protocol diffmask, 7 cells a step, 5 images" in lines[0]
    assert lines[1:3] == [
        "higher is better: deletion_noise_least, deletion_noise_kl",
        "lower is better: deletion_noise, deletion_noise_least_kl",
    ]
    summary, rows = json.loads((out / "summary.json").read_text()), rows_of(out / "scores.csv")
    assert [key for key in rows[0] if "_" in key] == [*names, "normalised_deletion_noise", "normalised_deletion_noise_least"]
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    classifier, points = vitrail.load(tiny_model_file, device="cpu"), rows_of(out / "curves.csv")
    with np.load(out / "curves.npz") as arrays, torch.no_grad():
        assert list(arrays["names"]) == names
        np.testing.assert_allclose(arrays["fractions"], [0, 7 / 16, 14 / 16, 1])
        for line, method in zip(lines[3:5], ("hit", "random"), strict=True):
            curves = arrays[method]
            assert curves.shape == (5, 4, 4)
            assert line.split()[0] == method
            for i, name in enumerate(names):
                mine = [point for point in points if (point["method"], point["curve"]) == (method, name)]
                np.testing.assert_allclose([float(point["mean_score"]) for point in mine], curves[:, i].mean(0), atol=1e-6)
                np.testing.assert_allclose([float(point["fraction"]) for point in mine], arrays["fractions"], atol=1e-6)
                area = np.trapezoid(curves[:, i], arrays["fractions"], axis=-1)
                assert summary["mean_auc"][method][name] == pytest.approx(area.mean(), abs=1e-5)
                assert re.search(rf" {name} ([\d.]+)", line)[1] == f"{area.mean():.4f}"
                np.testing.assert_allclose([float(row[name]) for row in rows if row["method"] == method], area, atol=1e-5)
        for i, path in enumerate(photos):
            clean = classifier.module(classifier.preprocessing(open_image(path))[None]).softmax(-1).max()
            np.testing.assert_allclose(arrays["hit"][i, :2, 0], float(clean), atol=1e-5)
        np.testing.assert_array_equal(arrays["hit"][:, 2:, 0], 0)
        # Whatever went first, in the end all is noise.
        np.testing.assert_allclose(arrays["hit"][:, 0::2, -1], arrays["random"][:, 1::2, -1], atol=1e-5)


def test_steps_and_order_of_the_protocol_of_diffmask(run_diffmask, tmp_path):
    lines = run_diffmask("--steps", 5, "--order", "least")
    assert "protocol diffmask (changed), 5 steps, 5 images" in lines[0]
    with np.load(tmp_path / "out" / "curves.npz") as arrays:
        assert list(arrays["names"]) == ["deletion_noise_least", "deletion_noise_least_kl"]
        assert arrays["hit"].shape == (5, 2, 6)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["num_steps"], summary["cells_per_step"], summary["orders"]) == (5, None, ["least"])

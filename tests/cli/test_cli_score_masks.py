"""`vitrail score --metric masks`: what is written, what is printed, and what is refused."""

import csv
import json
import math

import pytest
from PIL import Image

from vitrail.data.counting import ColourCounting
from vitrail.data.generating import write_task

pytest_plugins = ("tiny",)

WITHOUT_ANSWERS = ["kept", "agreement", "kl"]
COMPARED = ["iou", "iou_at_size", "pointing"]


@pytest.fixture
def counted(tmp_path):
    """One image of each of the 17 classes; the answer of the first is empty."""
    write_task(ColourCounting(grid_size=4, patch_size=4), tmp_path / "data", {"test": 17})
    return tmp_path / "data" / "test"


@pytest.fixture
def run_masks(run_vitrail, tiny_model_file, tmp_path):
    """A function from data and options to the printed lines, the table masks.csv and the summary."""

    def run(data, *options):
        out = tmp_path / "out"
        code, printed, err = run_vitrail(
            "score", data, "-m", tiny_model_file, "--metric", "masks", "--batch-size", 4, "--device", "cpu", "-o", out, *options
        )
        assert code == 0, err
        assert sorted(path.name for path in out.iterdir()) == ["masks.csv", "masks.png", "scores.png", "summary.json"]
        for name in ("masks.png", "scores.png"):
            with Image.open(out / name) as picture:
                picture.verify()
        with (out / "masks.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        return printed.splitlines(), rows, json.loads((out / "summary.json").read_text())

    return run


@pytest.fixture
def refused(run_vitrail, tiny_model_file, tmp_path):
    """A function from data and options to the one message of a refusal that leaves nothing behind."""

    def run(data, *options):
        code, out, err = run_vitrail("score", data, "-m", tiny_model_file, "-o", tmp_path / "out", *options)
        assert (code, out) == (2, "")
        assert "Traceback" not in err
        assert not (tmp_path / "out").exists()
        return err

    return run


def test_tables_and_summary_agree(run_masks, counted):
    lines, rows, summary = run_masks(counted, "--threshold", 0.4)
    names = [*WITHOUT_ANSWERS, "answer", *COMPARED, "pointing_chance"]
    assert list(rows[0]) == ["image", "target", "method", *names]
    paths = sorted(map(str, counted.rglob("*.png")))
    assert [(row["image"], row["method"]) for row in rows] == [(path, method) for method in ("hit", "random") for path in paths]
    assert lines[:2] == [
        "tiny, masks cut at 0.4, 17 images",
        "left out of iou, iou_at_size and pointing, since their answer is empty: 1",
    ]
    head, better, *methods, chance = (line.split() for line in lines[2:-1])
    assert head == [*WITHOUT_ANSWERS, *COMPARED]
    assert better == ["better", "higher", "lower", "higher", "higher", "higher"]
    for line, method in zip(methods, ("hit", "random"), strict=True):
        mine = [row for row in rows if row["method"] == method]
        assert line[0] == method
        assert [row["iou"] == "" for row in mine] == [True] + [False] * 16
        for name in names:
            values = [float(row[name]) for row in mine if row[name]]
            assert summary["mean"][method][name] == pytest.approx(math.fsum(values) / len(values), abs=1e-6)
        assert line[1:] == [f"{summary['mean'][method][name]:.4f}" for name in head]
    assert chance == ["chance", f"{summary['mean']['random']['pointing_chance']:.4f}"]
    assert len(lines[2]) == len(lines[3]) == len(lines[4]) == len(lines[5])  # Columns are aligned to the right.
    assert (summary["metric"], summary["threshold"], summary["num_images"]) == ("masks", 0.4, 17)
    assert (summary["answers"], summary["num_empty_answers"], summary["unreadable"]) == (True, 1, [])
    assert summary["better"] == {"agreement": "higher", "kl": "lower", **dict.fromkeys(COMPARED, "higher")}


def test_photos_without_answers(run_masks, make_photo, tmp_path):
    for i in range(3):
        make_photo(tmp_path / "photos" / f"{i}.png", seed=i)
    (tmp_path / "photos" / "bad.png").write_bytes(b"")
    lines, rows, summary = run_masks(tmp_path / "photos", "--method", "random")
    assert lines[1] == "no answers lie beside the images: whether masks are right is not measured"
    assert lines[2].split() == WITHOUT_ANSWERS
    assert lines[4].split()[0] == "random"
    assert list(rows[0]) == ["image", "target", "method", *WITHOUT_ANSWERS]
    assert (summary["answers"], summary["num_images"], len(summary["unreadable"])) == (False, 3, 1)


def test_a_single_photo_and_a_limit(run_masks, counted):
    _, rows, _ = run_masks(counted / "05" / "000005.png")
    assert len(rows) == 2
    assert all(float(row["answer"]) > 0 for row in rows)
    _, rows, _ = run_masks(counted, "--limit", 2, "--overwrite")
    assert [row["image"][-10:] for row in rows[:2]] == ["000000.png", "000008.png"]


def test_only_images_without_an_answer(run_masks, counted):
    lines, rows, summary = run_masks(counted / "00")
    assert lines[1].endswith("since their answer is empty: 1")
    assert lines[2].split() == WITHOUT_ANSWERS
    assert list(rows[0])[3:] == [*WITHOUT_ANSWERS, "answer"]
    assert summary["num_empty_answers"] == 1


def test_masks_of_some_images_only(refused, counted):
    (counted.parent / "masks" / "answer" / "test" / "07" / "000007.png").unlink()
    err = refused(counted, "--metric", "masks")
    assert "none for 1 of 17 images" in err
    assert "000007.png" in err


def test_options_belong_to_their_metric(refused, counted):
    for option, value, metric, owner in (
        ("threshold", 0.5, "curves", "masks"),
        ("protocol", "hit", "masks", "curves"),
        ("steps", 3, "masks", "curves"),
        ("order", "least", "masks", "curves"),
    ):
        err = refused(counted, "--metric", metric, f"--{option}", value)
        assert f"expected --{option} together with --metric {owner}, got --metric {metric}" in err


@pytest.mark.parametrize("threshold", ["-0.1", "1.5", "nan", "half"])
def test_what_is_no_threshold_is_refused(threshold, refused, counted):
    assert "threshold" in refused(counted, "--metric", "masks", "--threshold", threshold)


def test_unknown_metrics_and_protocols_name_the_choices(refused, counted):
    assert "unknown metric 'mask' (did you mean 'masks'?); choose one of: curves, masks" in refused(counted, "--metric", "mask")
    assert "unknown protocol 'hut'" in refused(counted, "--protocol", "hut")


def test_curves_are_the_default(run_vitrail, tiny_model_file, counted, tmp_path):
    arguments = ("score", counted / "05", "-m", tiny_model_file, "--steps", 2)
    outputs = [run_vitrail(*arguments, *more, "-o", tmp_path / str(i)) for i, more in enumerate(((), ("--metric", "curves")))]
    (code, first, _), (other_code, second, _) = outputs
    assert code == other_code == 0
    assert first.replace(str(tmp_path / "0"), "") == second.replace(str(tmp_path / "1"), "")
    for name in ("scores.csv", "curves.csv", "summary.json"):
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "1" / name).read_bytes()

"""`vitrail score --metric masks`: what is written where answers are known, in part, or not at all."""

import json
import math

import pytest
from score_files import list_components, rows_of

from vitrail.datasets.synthetic.counting import ColorCounting
from vitrail.datasets.synthetic.generation import write_synthetic

pytest_plugins = ("tiny", "score_runs")

WITHOUT_ANSWERS = ["kept", "agreement", "kl"]
COMPARED = ["iou", "iou_at_size", "pointing"]


@pytest.fixture
def counted(tmp_path):
    """One image of each of the 17 classes; the answer of the first is empty."""
    write_synthetic(ColorCounting(grid_size=4, patch_size=4), tmp_path / "data", {"test": 17})
    return tmp_path / "data" / "test"


@pytest.fixture
def run_masks(run_score):
    """A function from data and options to the printed lines, the rows of images.csv and the summary."""

    def run(data, *options, out="out"):
        folder, printed, _err = run_score(data, "--metric", "masks", "--batch-size", 4, *options, out=out)
        assert (folder / "masks.png").is_file()
        assert not (folder / "curves.csv").exists()
        return printed.splitlines(), rows_of(folder / "images.csv"), json.loads((folder / "summary.json").read_text())

    return run


def measures_of(rows):
    return [name.removeprefix("masks.") for name in rows[0] if name.startswith("masks.")]


def test_tables_and_summary_agree(run_masks, counted):
    lines, rows, summary = run_masks(counted, "--metric-option", "masks.threshold=0.4")
    names = [*WITHOUT_ANSWERS, "ground_truth", *COMPARED, "pointing_chance"]
    assert measures_of(rows) == names
    paths = sorted(map(str, counted.rglob("*.png")))
    assert [(row["image"], row["method"]) for row in rows] == [(path, method) for method in ("hit", "random") for path in paths]
    assert lines[:2] == ["tiny, 17 images", "masks"]
    head, better, *methods = (line.split() for line in lines[2:6])
    assert head == names
    # What only describes has no direction, and its place stays empty.
    assert better == ["better", "higher", "lower", "higher", "higher", "higher"]
    for line, method in zip(methods, ("hit", "random"), strict=True):
        mine, found = [row for row in rows if row["method"] == method], summary["methods"][method]["measures"]
        assert line[0] == method
        assert [row["masks.iou"] == "" for row in mine] == [True] + [False] * 16
        for name, shown in zip(names, line[1::2], strict=True):
            values = [float(row[f"masks.{name}"]) for row in mine if row[f"masks.{name}"]]
            assert found[f"masks.{name}"]["images"] == len(values) == (16 if name in (*COMPARED, "pointing_chance") else 17)
            assert found[f"masks.{name}"]["mean"] == pytest.approx(math.fsum(values) / len(values), abs=1e-9)
            assert float(shown) == pytest.approx(found[f"masks.{name}"]["mean"], abs=6e-4 if abs(float(shown)) < 10 else 0.06)
    assert {name: entry["better"] for name, entry in summary["measures"].items() if name.startswith("masks.")} == {
        f"masks.{name}": {"agreement": "higher", "kl": "lower", **dict.fromkeys(COMPARED, "higher")}.get(name) for name in names
    }


def test_the_threshold_decides_how_much_is_kept(run_masks, counted, tmp_path):
    kept = []
    for threshold in (0, 0.3, 1):
        options = ("--method", "random", "--metric-option", f"masks.threshold={threshold}", "--limit", 4)
        _lines, rows, _summary = run_masks(counted, *options, out=str(threshold))
        kept.append([float(row["masks.kept"]) for row in rows])
        assert json.loads((tmp_path / str(threshold) / "run.json").read_text())["metrics"]["masks"] == {"threshold": threshold}
    # All cells, some, and the one of the largest relevance: noise has no two alike.
    assert kept[0] == [1] * 4
    assert all(1 / 16 < share < 1 for share in kept[1])
    assert kept[2] == [1 / 16] * 4


def test_a_mask_of_all_cells_changes_nothing(run_masks, counted, tmp_path):
    run_masks(counted, "--metric-option", "masks.threshold=0", "--limit", 3)
    kept, agreement, kl = list_components(tmp_path / "out")["values"][..., :3].transpose(2, 0, 1)
    assert (kept == 1).all()
    assert (agreement == 1).all()
    assert abs(kl).max() < 1e-6


def test_photos_without_ground_truth(run_masks, make_photo, tmp_path):
    for i in range(3):
        make_photo(tmp_path / "photos" / f"{i}.png", seed=i)
    (tmp_path / "photos" / "bad.png").write_bytes(b"")
    lines, rows, summary = run_masks(tmp_path / "photos", "--method", "random")
    assert lines[2].split() == measures_of(rows) == WITHOUT_ANSWERS
    assert lines[4].split()[0] == "random"
    assert (summary["num_images"], len(summary["unreadable"])) == (3, 1)


def test_a_single_image_and_a_limit(run_masks, counted):
    _lines, rows, _summary = run_masks(counted / "05" / "000005.png")
    assert len(rows) == 2
    assert all(float(row["masks.ground_truth"]) > 0 for row in rows)
    _lines, rows, _summary = run_masks(counted, "--limit", 2, "--overwrite")
    assert [row["image"][-10:] for row in rows[:2]] == ["000000.png", "000008.png"]


def test_only_images_without_ground_truth(run_masks, counted):
    lines, rows, summary = run_masks(counted / "00")
    # Nothing is right or wrong where nothing decides.
    assert lines[2].split() == measures_of(rows) == [*WITHOUT_ANSWERS, "ground_truth"]
    assert [float(row["masks.ground_truth"]) for row in rows] == [0, 0]
    assert "masks.iou" not in summary["measures"]


def test_masks_for_some_images_only(refused_score, counted):
    (counted.parent / "masks" / "answer" / "test" / "07" / "000007.png").unlink()
    err = refused_score(counted, "--metric", "masks")
    assert "none for 1 of 17 images" in err
    assert "000007.png" in err


@pytest.mark.parametrize("threshold", ["-0.1", "1.5", ".nan", "half"])
def test_what_is_no_threshold_is_refused(threshold, refused_score, counted):
    assert "threshold" in refused_score(counted, "--metric", "masks", "--metric-option", f"masks.threshold={threshold}")


def test_the_option_threshold_is_gone(run_vitrail, counted):
    code, out, err = run_vitrail("score", counted, "--metric", "masks", "--threshold", 0.4)
    assert (code, out) == (2, "")
    assert "--threshold" in err

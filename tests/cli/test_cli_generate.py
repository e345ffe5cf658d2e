import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from vitrail.datasets.folder import ImageFolder
from vitrail.datasets.synthetic.base import GROUND_TRUTH
from vitrail.datasets.synthetic.birds import Birds
from vitrail.datasets.synthetic.generation import read_generated_mask, read_parts

pytest_plugins = ("tiny",)

TINY = ("--train", 10, "--val", 0, "--test", 10, "--option", "patch_size=4")


def test_birds_are_written_with_their_ground_truth_and_a_picture(run_vitrail, tmp_path):
    out = tmp_path / "data" / "birds"
    options = ("--option", "size=64", "--option", "num_classes=3", "--seed", 7)
    code, printed, _err = run_vitrail("generate", "birds", "--out", out, "--train", 12, "--val", 3, "--test", 6, *options)
    assert code == 0
    assert printed.splitlines() == [
        "birds: 3 classes, images of 64x64 pixels",
        f"  train 12 images in {out / 'train'}",
        f"  val   3 images in {out / 'val'}",
        f"  test  6 images in {out / 'test'}",
        f"wrote the ground truth to {out / 'masks'}, and task.json and sheet.png to {out}",
    ]
    assert sorted(entry.name for entry in out.iterdir()) == ["masks", "sheet.png", "task.json", "test", "train", "val"]
    for split, count in (("train", 12), ("val", 3), ("test", 6)):
        assert len(ImageFolder.scan(out / split, lambda image: image)) == count
    sample = Birds(seed=7, size=64, num_classes=3).draw("train", 11)
    path = out / "train" / "bar-winged finch" / "000011.png"
    assert np.array_equal(Image.open(path), sample.image)
    assert np.array_equal(read_generated_mask(path), sample.masks[GROUND_TRUTH])
    assert np.array_equal(read_parts(path)["wing"], sample.masks["wing"])


def test_the_sheet_shows_the_images_and_fades_all_but_the_ground_truth(run_vitrail, tmp_path):
    out = tmp_path / "out"
    assert run_vitrail("generate", "counting", "--out", out, *TINY)[0] == 0
    with Image.open(out / "sheet.png") as sheet:
        seen = np.asarray(sheet.convert("RGB")).reshape(-1, 3)
    images = ImageFolder.scan(out / "train", lambda image: image)
    pure = [np.asarray(Image.open(path)).reshape(-1, 3) for path in images.paths]
    # Red is counted: it is shown twice, in the image and in its answer; every other color once.
    red, blue = (sum((image == color).all(axis=1).sum() for image in pure) for color in ((255, 0, 0), (0, 0, 255)))
    shown_red, shown_blue = ((seen == color).all(axis=1).sum() for color in ((255, 0, 0), (0, 0, 255)))
    assert 0.9 < (shown_red / shown_blue) / (2 * red / blue) < 1.1


@pytest.mark.slow
def test_workers_and_defaults_change_nothing(run_vitrail, tmp_path, snapshot):
    for name, more in (("a", ()), ("b", ("--workers", 2, "--seed", 0, "--option", "grid_size=3"))):
        assert run_vitrail("generate", "counting", "--out", tmp_path / name, *TINY, *more)[0] == 0
    assert snapshot(tmp_path / "a") == snapshot(tmp_path / "b")


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (("bird",), ["unknown synthetic data set 'bird'", "did you mean 'birds'"]),
        (("birds", "--option", "color=red"), ["birds has no option color", "num_classes"]),
        (("birds", "--option", "size=tiny"), ["cannot use 'tiny' for birds.size"]),
        (("birds", "--option", "size=10"), ["64 to 256", "got 10"]),
        (("birds", "--option", "size"), ["expected --option like size=64, got 'size'"]),
        (("birds", "--option", "size=[64"), ["cannot read the value of --option 'size=[64'"]),
        (("birds", "--option", "seed=3"), ["use --seed"]),
        (("counting", "--option", "class_idx=6"), ["at most 5, got 6"]),
        (("counting", "--train", 9), ["for train, or at least one for each of the 10 classes", "got 9"]),
        (("counting", "--train", 0, "--val", 0, "--test", 0), ["expected at least one image to draw"]),
        (("cifar-counting", "--option", "root=no/where"), ["expected CIFAR-10 as folders", "no/where/train", "option root"]),
    ],
)
def test_invalid_arguments_end_in_one_message_and_exit_code_2(arguments, messages, run_vitrail, tmp_path):
    code, printed, err = run_vitrail("generate", *arguments, "--out", tmp_path / "out")
    assert (code, printed) == (2, "")
    assert err.count("error:") == 1
    assert "Traceback" not in err
    for message in messages:
        assert message in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", ["--train", "--seed", "--workers"])
def test_negative_numbers_are_refused_by_the_parser(option, run_vitrail, tmp_path):
    code, _printed, err = run_vitrail("generate", "birds", "--out", tmp_path / "out", option, -1)
    assert code == 2
    assert option in err


def test_earlier_results_are_never_replaced(run_vitrail, tmp_path, snapshot, monkeypatch):
    monkeypatch.setattr("vitrail.viz.ground_truth.ground_truth_sheet", lambda _examples, path: path.touch())
    assert run_vitrail("generate", "counting", "--out", tmp_path, *TINY)[0] == 0
    before = snapshot(tmp_path)
    code, _printed, err = run_vitrail("generate", "counting", "--out", tmp_path, *TINY)
    assert code == 2
    assert f"{tmp_path} exists and is not empty; choose another --out" in err
    assert snapshot(tmp_path) == before


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stopped_run_leaves_nothing(workers, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "vitrail", "generate", "counting", "--train", "100000", "--out", str(out)]
    run = subprocess.Popen(
        [*command, "--workers", str(workers)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A suite that runs in the background has been told to ignore it, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        for _ in range(600):
            if next(tmp_path.rglob("*.png"), None):
                break
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        printed, err = run.communicate(timeout=30)
    finally:
        run.kill()
    assert (run.returncode, printed) == (130, "")
    assert err.count("stopped\n") == 1
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_list_names_the_tasks_and_their_options(run_vitrail):
    code, printed, _err = run_vitrail("list", "--json")
    assert code == 0
    assert [task["name"] for task in json.loads(printed)["synthetic"]] == ["birds", "cifar-counting", "counting"]
    code, printed, _err = run_vitrail("list")
    assert 'root="data/cifar10"' in printed

"""`vitrail explain --data`: as a user meets it, killed and started again."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image
from score_runs import draw_plainly

from vitrail.explanation import Explanation

pytest_plugins = ("tiny", "score_runs")

pytestmark = pytest.mark.usefixtures("plain_pictures")


@pytest.fixture
def data(make_photo, tmp_path):
    for i in range(5):
        make_photo(tmp_path / "data" / ("amber" if i < 2 else "blue") / f"{i}.png", seed=i)
    return tmp_path / "data"


@pytest.fixture
def explain(run_vitrail, tiny_model_file, data, tmp_path):
    """A function that runs the command on the folder with further arguments."""
    out = tmp_path / "out"
    return lambda *more: run_vitrail(
        "explain", "--data", data, "-m", tiny_model_file, "--batch-size", 2, "--out", out, "--device", "cpu", *more
    )


def killed(arguments, out, after):
    """Start the program and kill it when so many results exist; returns how many there are."""
    program = subprocess.Popen(
        [sys.executable, "-m", "vitrail", *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 60
        while len(list(out.glob("*/**/*.npz"))) < after:
            assert program.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < until, "it wrote nothing"
            time.sleep(0.005)
    finally:
        program.send_signal(signal.SIGKILL)
        program.wait()
    return len(list(out.glob("*/**/*.npz")))


def kill_and_go_on(run_vitrail, make_photo, snapshot, tmp_path, monkeypatch, kills, more=()):
    monkeypatch.setattr("vitrail.runs.explain_files.MAX_ROWS", 2)  # A killed program never gets there; drawing takes long.
    for i in range(40):
        make_photo(tmp_path / "data" / f"{i % 3}" / f"{i}.png", seed=i, size=(40, 32))
    (tmp_path / "data" / "1" / "broken.png").write_text("no photo")
    arguments = (
        "explain", "--data", tmp_path / "data", "--method", "hit,hit-rollout,random", "--model", "vitrail:hit-cifar10",
        "--batch-size", 3, "--device", "cpu", *more, "--out",
    )  # fmt: skip
    code, _out, err = run_vitrail(*arguments, tmp_path / "whole")
    assert code == 0, err
    before = 0
    for after in kills:
        found = killed([*arguments, tmp_path / "out"], tmp_path / "out", before + after)
        assert before < found < 120
        before = found
    code, printed, err = run_vitrail(*arguments, tmp_path / "out")
    assert code == 0, err
    # What is there by all methods is at most one batch less than what is there by the first one.
    already = int(re.search(r"40 images explained by hit, hit-rollout, random, (\d+) of them by an earlier run", printed)[1])
    assert already >= before // 3 - 3
    expected, got = snapshot(tmp_path / "whole"), snapshot(tmp_path / "out")
    assert got.keys() == expected.keys()
    assert [name for name in got if got[name] != expected[name]] == []
    assert len(list((tmp_path / "out").rglob("*.npz"))) == 120


@pytest.mark.slow
@pytest.mark.usefixtures("real_pictures")  # A killed program draws them.
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(run_vitrail, make_photo, snapshot, tmp_path, monkeypatch):
    kill_and_go_on(run_vitrail, make_photo, snapshot, tmp_path, monkeypatch, kills=[30])


@pytest.mark.slow
@pytest.mark.usefixtures("real_pictures")
def test_a_run_that_is_killed_again_and_again_with_processes_that_read(
    run_vitrail, make_photo, snapshot, tmp_path, monkeypatch
):
    kill_and_go_on(run_vitrail, make_photo, snapshot, tmp_path, monkeypatch, kills=[1, 2, 20, 30, 40], more=("--workers", 2))


def test_it_prints_a_summary_and_draws_heatmaps(explain, data, tmp_path, real_pictures):
    code, printed, err = explain("--method", "hit,random")
    assert code == 0, err
    assert "tiny: 5 images explained by hit, random\n" in printed
    assert float(re.search(r"completeness error of hit: (\S+)", printed)[1]) < 1e-4
    assert f"wrote images.csv, run.json, contact_sheet.png and a folder per method to {tmp_path / 'out'}" in printed
    assert "explaining 3/3" in err
    with Image.open(tmp_path / "out" / "random" / "blue" / "3.png") as picture:
        # Title, color bar and notes surround the overlay.
        height = round(448 * 24 / 20)
        assert picture.width == 448 + 24
        assert height + 60 < picture.height < height + 240
    with Image.open(tmp_path / "out" / "contact_sheet.png") as sheet:
        assert sheet.width > sheet.height / 2  # Photo, two maps and bars in five rows.
    code, printed, _err = explain("--method", "hit,random")
    assert (code, "5 images explained by hit, random, 5 of them by an earlier run" in printed) == (0, True)


def test_the_default_method_is_that_of_the_model(explain, tmp_path):
    assert explain()[0] == 0
    assert [path.name for path in sorted((tmp_path / "out").iterdir()) if path.is_dir()] == ["hit"]


@pytest.mark.slow
def test_a_run_with_other_settings_ends_in_exit_code_2(explain, tmp_path, snapshot):
    assert explain("--method", "random")[0] == 0
    before = snapshot(tmp_path / "out")
    code, printed, err = explain("--method", "random", "--method-option", "random.seed=1", "--target", "blue", "--smooth")
    assert (code, printed, err.count("error:")) == (2, "", 1)
    for part in ("random.seed: 0 there, 1 now", "target: null there, 1 now", "smoothing", "another --out", "--overwrite"):
        assert part in err
    assert snapshot(tmp_path / "out") == before
    assert explain("--method", "random", "--method-option", "random.seed=1", "--overwrite")[0] == 0


def test_unreadable_images_are_reported_every_time_and_listed(explain, data, tmp_path):
    (data / "amber" / "text.jpg").write_text("no photo")
    for _ in range(2):
        code, printed, err = explain("--method", "random")
        assert code == 0
        assert "5 images" in printed
        assert "text.jpg" in err
        assert "skipped 1 unreadable file" in err
    with (tmp_path / "out" / "unreadable.csv").open(newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == ["amber/text.jpg"]


def test_limit_and_target(explain, tmp_path):
    code, printed, _err = explain("--method", "hit", "--limit", 2, "--target", "crimson")
    assert (code, "2 images" in printed) == (0, True)
    loaded = [Explanation.load(path) for path in sorted((tmp_path / "out").rglob("*.npz"))]
    assert [(one.sources, one.targets.tolist()) for one in loaded] == [(("amber/0.png",), [2]), (("blue/2.png",), [2])]


def refused(result):
    code, printed, err = result
    assert (code, printed, err.count("error:")) == (2, "", 1), (printed, err)
    assert "Traceback" not in err
    return err


def test_contradicting_options_are_refused_before_the_run(explain, run_vitrail, data, tiny_model_file, tmp_path):
    assert "got both" in refused(explain(data / "amber" / "0.png"))
    assert "got neither" in refused(run_vitrail("explain", "-m", tiny_model_file))
    for option in ("--limit", "--workers"):
        assert "together with --data" in refused(run_vitrail("explain", data, option, 1))
    assert "no such file or folder" in refused(run_vitrail("explain", "--data", tmp_path / "no", "-m", tiny_model_file))
    assert "unknown class 'bleu'" in refused(explain("--target", "bleu"))
    assert "unknown method 'hitt'" in refused(explain("--method", "hit,hitt"))
    assert not (tmp_path / "out").exists()


def test_an_output_path_that_is_a_file(explain, tmp_path):
    (tmp_path / "out").write_text("precious")
    assert "is a file" in refused(explain("--method", "random"))
    assert "is a file" in refused(explain("--method", "random", "--overwrite"))
    assert (tmp_path / "out").read_text() == "precious"


@pytest.mark.usefixtures("real_pictures")
@pytest.mark.parametrize("command", [pytest.param("explain", marks=pytest.mark.slow), "explain --data"])
def test_names_of_any_kind(run_vitrail, make_photo, tiny_model_file, tmp_path, monkeypatch, command):
    """One command over all that a name can be: none ends the run."""
    if command == "explain --data":
        draw_plainly(monkeypatch)  # The names are in the same titles.
    names = ["=cmd|x.png", "@a.png", "a.jpg", "a.png/b.png", "n" * 251 + ".png", os.fsdecode(b"b\xe9d.png")]
    for i, name in enumerate(names):
        make_photo(tmp_path / "data" / f"{name}.png", seed=i).rename(tmp_path / "data" / name) if len(
            name
        ) < 250 else shutil.copy(tmp_path / "data" / "@a.png", tmp_path / "data" / name)
    arguments = (*command.split(), tmp_path / "data", "-m", tiny_model_file, "--out", tmp_path / "out", "--device", "cpu")
    code, _out, err = run_vitrail(*arguments)
    assert code == 0, err
    found = [source for file in (tmp_path / "out").rglob("*.npz") for source in Explanation.load(file).sources]
    assert sorted(source.removeprefix(f"{tmp_path / 'data'}/") for source in found) == sorted(names)
    if command == "explain --data":
        code, _out, err = run_vitrail(*arguments)
        assert code == 0
        assert "6 of 6 images are already explained" in err


@pytest.mark.slow
def test_images_that_could_not_be_read_are_known_again(explain, data, tmp_path):
    (data / "=broken.png").write_text("no photo")
    for before in ("", "5 of 6 images are already explained"):
        code, _out, err = explain()
        assert code == 0
        assert before in err
    assert "'=broken.png" in (tmp_path / "out" / "unreadable.csv").read_text()


@pytest.mark.parametrize("command", ["explain", "explain --data", "score", "test", "queries", "layers"])
def test_a_link_to_itself_is_reported_in_one_line(run_vitrail, tmp_path, command):
    (tmp_path / "loop.png").symlink_to("loop.png")
    out = () if command == "test" else ("--out", tmp_path / "out")
    model = "vitrail:intr-birds" if command == "queries" else "vitrail:hit-cifar10"
    code, _out, err = run_vitrail(*command.split(), tmp_path / "loop.png", "-m", model, "--device", "cpu", *out)
    assert code == 2
    assert "error: " in err
    assert "loop.png" in err

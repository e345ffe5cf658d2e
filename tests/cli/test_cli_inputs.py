"""Commands on lists, tar files and data sets by name, as a user gives them."""

import json

import pytest
from samples import CLASS_NAMES
from slow import by_default
from tar_files import encoded, write_tar

pytest_plugins = ("tiny", "score_runs")

pytestmark = pytest.mark.usefixtures("plain_pictures")


@pytest.fixture
def tars(tmp_path):
    """Two tar files with classes, in which a photo cannot be read."""
    for i in range(2):
        members = [(f"{i}-{j}.png", encoded(10 * i + j) if (i, j) != (1, 0) else b"no picture") for j in range(3)]
        write_tar(tmp_path / "tars" / f"{i}.tar", *members, *((f"{i}-{j}.cls", b"%d" % j) for j in range(3)))
    (tmp_path / "tars" / "classes.txt").write_text("".join(f"{name}\n" for name in CLASS_NAMES))
    return tmp_path / "tars"


@pytest.fixture
def listed(make_photo, tmp_path):
    """A list of two photos, one that is missing, and one that is listed twice."""
    for i in range(2):
        make_photo(tmp_path / "photos of mine" / f"{i}.png", seed=i)
    lines = ["photos of mine/0.png", "photos of mine/gone.png", "photos of mine/1.png", "photos of mine/0.png"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    return tmp_path / "list.txt"


COMMANDS = {
    "explain": ("--method", "random", "--data"),
    "score": ("--method", "random", "--protocol", "hit", "--steps", 2),
    "layers": (),
    "test": (),
}


@pytest.mark.parametrize("command", by_default("explain", "score", among=COMMANDS))
def test_tar_files(command, run_vitrail, tiny_model_file, tars, tmp_path):
    arguments = (*COMMANDS[command], tars / "{0..1}.tar", "-m", tiny_model_file, "--device", "cpu", "--out", tmp_path / "out")
    code, printed, err = run_vitrail(command, *arguments)
    assert code == 0, err
    assert "5 images" in printed
    assert "got something else" in err
    assert "waiting for images" in err
    timing = json.loads((tmp_path / "out" / "timing.json").read_text())
    assert (timing["images"], timing["processes"], timing["workers"]) == (6, 1, 0)
    assert 0 < timing["waiting_seconds"] < timing["seconds"]
    assert timing["waiting_share"] == pytest.approx(timing["waiting_seconds"] / timing["seconds"], abs=0.01)


@pytest.mark.parametrize("command", ["explain", "score", "layers"])
def test_a_list(command, run_vitrail, tiny_model_file, listed, tmp_path):
    arguments = (*COMMANDS[command], listed, "-m", tiny_model_file, "--device", "cpu", "--out", tmp_path / "out")
    code, printed, err = run_vitrail(command, *arguments)
    assert code == 0, err
    assert "2 images" in printed
    assert "skipped 1 repeated lines" in err
    assert "no such image file" in err
    assert "photos of mine/1.png" in (tmp_path / "out" / "images.csv").read_text()


def test_options_of_data_sets_need_data(run_vitrail, tiny_model_file, listed, tmp_path):
    for flags in (("--data-set", "cifar10"), ("--split", "test"), ("--data-option", "a=b"), ("--limit", 1)):
        code, out, err = run_vitrail("explain", tmp_path / "x.png", "-m", tiny_model_file, *flags)
        assert (code, out, err) == (2, "", f"error: expected {flags[0]} together with --data, got photos\n")
    code, _out, err = run_vitrail("test", listed, "-m", tiny_model_file)
    assert (code, err.count("error: expected one sub-folder of images per class")) == (2, 1)


def test_a_dry_run_of_a_list(run_vitrail, tiny_model_file, listed, tmp_path):
    code, printed, err = run_vitrail("explain", "--data", listed, "-m", tiny_model_file, "--dry-run", "--out", tmp_path / "out")
    assert code == 0, err
    assert "3 images" in printed
    assert not (tmp_path / "out").exists()

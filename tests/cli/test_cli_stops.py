"""`vitrail explain` and `vitrail score` when they are stopped, lose a reader, or fill the disk: told, and gone on with."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

pytest_plugins = ("tiny", "score_runs")

pytestmark = pytest.mark.usefixtures("plain_pictures")


@pytest.fixture
def commands(photos, tiny_model_file):
    """What each kind of run is called with, but for the folder of its results."""
    folder, shared = photos[0].parent, ("-m", tiny_model_file, "--device", "cpu", "--batch-size", 2)
    return {
        "photos": ("explain", folder, *shared),
        "folder": ("explain", "--data", folder, *shared),
        "score": ("score", folder, "--metric", "sparseness", *shared),
    }


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_photos_that_were_stopped_are_explained_again(how, commands, run_vitrail, tmp_path):
    """Stopped while the first photo is drawn."""
    program = """
        import sys, time, vitrail.runs.explain_photos, vitrail.cli.main
        def wait(*_):
            print("ready", flush=True)
            time.sleep(60)
        vitrail.runs.explain_photos.draw = wait
        vitrail.cli.main.main()
    """
    arguments = [*map(str, commands["photos"]), "--out", str(tmp_path / "out")]
    command = [sys.executable, "-c", textwrap.dedent(program), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
        process.send_signal(how)
        _out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    if how == signal.SIGTERM:
        assert (process.returncode, err.splitlines()[-1]) == (143, "stopped")
        assert not (tmp_path / "out").exists()
    else:
        assert list((tmp_path / "out").glob(".partial-*"))
    code, _out, err = run_vitrail(*arguments)
    assert code == 0, err
    assert not [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("kind", ["folder", "score"])
def test_killed_reader_is_reported_and_the_run_resumes(kind, commands, run_vitrail, monkeypatch, snapshot, tmp_path):
    from vitrail.datasets.folder import ImageFolder
    from vitrail.runs.explain_photos import PhotoReader

    before = os.getpid()
    with monkeypatch.context() as patch:
        for reader in (PhotoReader, ImageFolder):

            def killed(images, index, read=reader.__getitem__):
                if os.getpid() != before and index >= 4:
                    while not list((tmp_path / "out").rglob("[!.]*.npz")):
                        time.sleep(0.01)
                    os.kill(os.getpid(), signal.SIGKILL)
                return read(images, index)

            patch.setattr(reader, "__getitem__", killed)
        code, out, err = run_vitrail(*commands[kind], "--workers", 1, "--out", tmp_path / "out")
    assert (code, out, err.count("error: ")) == (2, "", 1), err
    assert "a process that reads images was killed" in err
    assert "start again with fewer --workers or a smaller --batch-size" in err
    assert list((tmp_path / "out").rglob("*.npz"))
    code, _out, err = run_vitrail(*commands[kind], "--out", tmp_path / "out")
    assert code == 0, err
    assert not list((tmp_path / "out").rglob(".[!.]*"))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root may mount a small disk")
@pytest.mark.usefixtures("real_pictures")
@pytest.mark.parametrize(
    ("kind", "size"),
    [
        *((kind, "12k") for kind in ("photos", "folder", "score")),
        *(pytest.param(kind, "40k", marks=pytest.mark.slow) for kind in ("photos", "folder", "score")),
    ],
)
def test_a_full_disk_is_reported(kind, size, commands, run_vitrail, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], capture_output=True, check=False
    ).returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        code, out, err = run_vitrail(*commands[kind], "--out", disk / "out")
        assert (code, out, err.count("error: cannot write")) == (2, "", 1), err
        assert "No space left" in err
        assert not list(disk.rglob(".partial-*"))
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("kind", ["folder", "score"])
def test_other_class_names_are_not_resumed(kind, commands, run_vitrail, tiny_model_file, tmp_path):
    code, _out, err = run_vitrail(*commands[kind], "--out", tmp_path / "out")
    assert code == 0, err
    renamed = tmp_path / "other" / tiny_model_file.name
    renamed.parent.mkdir()
    content = renamed.write_bytes(tiny_model_file.read_bytes().replace(b"crimson", b"scarlet", 1))
    assert content == tiny_model_file.stat().st_size
    arguments = [renamed if each == tiny_model_file else each for each in commands[kind]]
    code, _out, err = run_vitrail(*arguments, "--out", tmp_path / "out")
    assert code == 2
    assert "classes: the class names of the model differ" in err


def test_renamed_class_folder_is_not_resumed(run_vitrail, make_classes, tiny_model_file, tmp_path):
    data = make_classes(["amber", "crimson"], 2)
    arguments = ("score", data, "-m", tiny_model_file, "--device", "cpu", "--metric", "sparseness", "--out", tmp_path / "out")
    code, _out, err = run_vitrail(*arguments)
    assert code == 0, err
    (data / "crimson").rename(data / "green")
    code, _out, err = run_vitrail(*arguments)
    assert code == 2
    assert "images: the names, labels or sizes of files differ" in err

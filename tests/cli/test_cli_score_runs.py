"""A run of `vitrail score` that was stopped goes on, and writes what one that was not stopped writes."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from importlib.metadata import version

import numpy as np
import pytest
from processes import run_together
from score_files import RESULTS, list_components, results_of, rows_of
from slow import by_default

pytest_plugins = ("tiny", "score_runs")

OPTIONS = ("--protocol", "hit,diffmask", "--steps", 3, "--metric", "complexity", "--batch-size", 2)


@pytest.fixture
def whole(run_score, photos):
    """The folder of a run of three batches, and its results."""
    out, _printed, _err = run_score(photos[0].parent, *OPTIONS)
    assert len(results_of(out)) == len(RESULTS)
    return out, results_of(out)


def leave_only_parts(out):
    for name in (*RESULTS, "cost.json", "index.html", "extremes.png"):
        (out / name).unlink()


def spoil(path, how):
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "zeros inside":  # As long as before: the disk has lost the beginning of an array's numbers.
        with zipfile.ZipFile(path) as file:
            start = file.getinfo("hit.scores.npy").header_offset
        start += 30 + sum(int.from_bytes(content[start + at : start + at + 2], "little") for at in (26, 28))
        path.write_bytes(content[:start] + b"\xff" * 8 + content[start + 8 :])
    else:
        path.write_bytes(b"no array\n" * 50)


@pytest.mark.parametrize(
    "how",
    by_default("missing", "truncated", among=("missing", "empty", "truncated", "text", "zeros inside")),
)
def test_what_is_missing_or_damaged_is_measured_again(how, run_score, photos, whole, monkeypatch):
    from vitrail.explainers.hit import HiTContributions

    out, expected = whole
    leave_only_parts(out)
    spoil(out / "shards" / "000001.npz", how)
    (out / "shards" / ".partial-abcdefgh.npz").write_bytes(b"half")
    (out / ".partial-abcdefgh.json").write_bytes(b"half")
    others = {name: (out / "shards" / name).stat().st_mtime_ns for name in ("000000.npz", "000002.npz")}
    explained, attribution = [], HiTContributions.attribution

    def counted(self, images, *arguments, **options):
        explained.append(len(images))
        return attribution(self, images, *arguments, **options)

    monkeypatch.setattr(HiTContributions, "attribution", counted)
    _out, printed, err = run_score(photos[0].parent, *OPTIONS)
    assert results_of(out) == expected
    assert f"resuming in {out}" in err
    assert "5 images" in printed
    # One image for the cost, the batch of two, and all five for the sheet.
    assert explained == [1, 2, *[1] * 5]
    assert {name: (out / "shards" / name).stat().st_mtime_ns for name in others} == others
    assert not list(out.rglob(".partial-*"))


def test_a_finished_run_returns_the_same_results(run_score, photos, whole):
    out, expected = whole
    before = {path.name: path.stat().st_mtime_ns for path in (out / "shards").iterdir()}
    run_score(photos[0].parent, *OPTIONS)
    assert results_of(out) == expected
    assert {path.name: path.stat().st_mtime_ns for path in (out / "shards").iterdir()} == before


@pytest.mark.slow
def test_a_run_that_fails_half_way_resumes(run_vitrail, run_score, photos, whole, tiny_model_file, tmp_path, monkeypatch):
    """The disk is full at the second batch; what was written before is whole."""
    _whole, expected = whole
    save, saved = np.savez_compressed, []

    def fill_the_disk(path, **arrays):
        saved.append(path)
        if len(saved) == 2:
            path.write_bytes(b"PK half an arch")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(path, **arrays)

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", fill_the_disk)
        arguments = ("-m", tiny_model_file, "--device", "cpu", *OPTIONS, "-o", tmp_path / "other")
        code, out, err = run_vitrail("score", photos[0].parent, *arguments)
    assert (code, out, err.count("error:")) == (2, "", 1), err
    assert "No space left on device" in err
    files = {path.relative_to(tmp_path / "other").as_posix() for path in (tmp_path / "other").rglob("*") if path.is_file()}
    assert files == {"run.json", "shards/000000.npz"}
    json.loads((tmp_path / "other" / "run.json").read_text())
    gone_on, _printed, err = run_score(photos[0].parent, *OPTIONS, out="other")
    assert "resuming in" in err
    assert results_of(gone_on) == expected


@pytest.mark.slow
def test_batches_are_the_same_whoever_reads_them(run_score, photos, whole):
    _out, expected = whole
    out, _printed, _err = run_score(photos[0].parent, *OPTIONS, "--workers", 2, out="other")
    assert results_of(out) == expected


CHANGES = {
    "steps": (("--steps", 4), "metrics.hit.num_steps: 3 there, 4 now"),
    "batches": (("--batch-size", 3), "batch_size: 2 there, 3 now"),
    "images": (("--limit", 3), "limit: null there, 3 now"),
    "target": (("--target", "blue"), "target: null there, 1 now"),
    "methods": (("--method", "hit"), "methods: hit, random there, hit now"),
    "option of a method": (("--method-option", "random.seed=1"), "random.seed: 0 there, 1 now"),
    "precision": (("--precision", "bf16"), 'hit.precision: "full" there, "bf16" now'),
    "order of methods": (("--method", "random,hit"), "methods: hit, random there, random, hit now"),
    "protocols": (
        ("--protocol", "hit"),
        "protocols and metrics: hit, diffmask, complexity, completeness there, hit, complexity, completeness now",
    ),
}


def test_a_folder_of_another_run_is_refused_and_the_difference_named(run_vitrail, photos, whole, tiny_model_file, snapshot):
    out, _expected = whole
    before = snapshot(out)
    for options, difference in CHANGES.values():
        kept = [word for pair in zip(OPTIONS[::2], OPTIONS[1::2], strict=True) if pair[0] != options[0] for word in pair]
        arguments = ("score", photos[0].parent, "-m", tiny_model_file, "--device", "cpu", *kept, *options, "-o", out)
        code, printed, err = run_vitrail(*arguments)
        assert (code, printed, err.count("error:")) == (2, "", 1), err
        assert difference in err
        assert "--overwrite" in err
        assert snapshot(out) == before


def test_another_model_or_folder_of_images_is_another_run(run_vitrail, photos, whole, tiny_model_file, make_photo, tmp_path):
    import vitrail

    out, _expected = whole
    other = vitrail.load(tiny_model_file, device="cpu")
    other.module.head.bias.data += 0.1
    vitrail.save(other, tmp_path / "tiny.safetensors")
    for i in range(5):
        make_photo(tmp_path / "others" / f"{i}.png", seed=i)
    for data, model, word in (
        (photos[0].parent, tmp_path / "tiny.safetensors", "weights: "),
        (tmp_path / "others", tiny_model_file, "data: "),
    ):
        code, _printed, err = run_vitrail("score", data, "-m", model, "--device", "cpu", *OPTIONS, "-o", out)
        assert (code, word in err) == (2, True), err


@pytest.mark.parametrize("content", ["nothing", "{}", "no json", '{"format": "vitrail run 0", "methods": {}}'])
def test_a_folder_that_is_no_run_is_refused(content, run_vitrail, photos, tiny_model_file, tmp_path, snapshot):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "summary.json").write_text("precious")
    if content != "nothing":
        (tmp_path / "out" / "run.json").write_text(content)
    before = snapshot(tmp_path / "out")
    arguments = ("score", photos[0].parent, "-m", tiny_model_file, "--steps", 2, "-o", tmp_path / "out")
    code, printed, err = run_vitrail(*arguments)
    assert (code, printed, err.count("error:")) == (2, "", 1), err
    assert "run.json" in err
    assert "--overwrite" in err
    assert snapshot(tmp_path / "out") == before


def test_overwrite_replaces_the_results(run_score, photos, whole):
    out, _expected = whole
    run_score(photos[1], *OPTIONS, "--steps", 5, "--overwrite")
    assert [row["image"] for row in rows_of(out / "images.csv")] == [str(photos[1])] * 2
    assert [path.name for path in (out / "shards").iterdir()] == ["000000.npz"]
    assert list_components(out)["hit.scores"].shape == (2, 1, 4, 6)
    assert json.loads((out / "run.json").read_text())["num_images"] == 1


@pytest.mark.slow
def test_overwrite_leaves_no_results_of_the_run_before(run_score, photos, whole):
    out, _expected = whole
    run_score(photos[0].parent, "--metric", "complexity", "--overwrite")
    assert not (out / "curves.csv").exists()
    assert not (out / "pictures" / "hit.png").exists()


def test_results_are_never_written_among_the_images(run_vitrail, plain_pictures, make_classes, tiny_model_file, monkeypatch):
    """Either it is refused, or a run that goes on does not see its own pictures."""
    monkeypatch.chdir(make_classes(["amber", "blue"], 2))
    codes = [run_vitrail("score", ".", "-m", tiny_model_file, "--steps", 2, "--device", "cpu")[0] for _ in range(2)]
    assert codes in ([0, 0], [2, 2])


def test_unreadable_files_are_skipped_named_and_counted(run_score, photos):
    """One amid a batch, and a batch of nothing else."""
    folder = photos[0].parent
    for name in ("1b.jpg", "3b.jpg", "3c.jpg"):
        (folder / name).write_bytes(b"\xff\xd8 nonsense")
    options = ("--steps", 2, "--batch-size", 2)
    out, printed, err = run_score(folder, *options)
    assert "tiny, 5 images" in printed
    assert "skipped 3 unreadable files" in err
    assert err.count("skipped: ") == 3
    summary = json.loads((out / "summary.json").read_text())
    bad = [str(folder / name) for name in ("1b.jpg", "3b.jpg", "3c.jpg")]
    assert [entry["path"] for entry in summary["unreadable"]] == bad
    assert all(path in err for path in bad)
    assert all(path in (out / "index.html").read_text() for path in bad)
    assert [row["image"] for row in rows_of(out / "images.csv") if row["method"] == "hit"] == list(map(str, photos))
    assert list_components(out)["indices"].tolist() == [0, 1, 3, 4, 7]
    # What was skipped is remembered by a run that goes on.
    expected = results_of(out)
    (out / "shards" / "000001.npz").unlink()
    _out, _printed, err = run_score(folder, *options)
    assert "skipped 3 unreadable files" in err
    assert results_of(out) == expected


def test_nothing_readable_leaves_no_results(run_vitrail, tiny_model_file, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "bad.png").write_bytes(b"")
    code, out, err = run_vitrail("score", tmp_path / "photos", "-m", tiny_model_file, "--steps", 2, "-o", tmp_path / "out")
    assert (code, out, err.count("error:")) == (2, "", 1)
    assert "not one of 1 images could be read" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_run_that_was_killed_resumes(run_score, make_photo, tiny_model_file, tmp_path):
    """Killed without a word after the second of twenty batches."""
    for i in range(40):
        make_photo(tmp_path / "photos" / f"{i:02d}.png", seed=i)
    options = ("--protocol", "hit", "--batch-size", 2)
    command = [
        sys.executable,
        "-m",
        "vitrail",
        "score",
        tmp_path / "photos",
        "-m",
        tiny_model_file,
        "--device",
        "cpu",
        *options,
    ]
    with subprocess.Popen(
        [*map(str, command), "-o", str(tmp_path / "killed")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 200
        while not (tmp_path / "killed" / "shards" / "000001.npz").exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    done = sorted(path.name for path in (tmp_path / "killed" / "shards").glob("0*.npz"))
    assert 2 <= len(done) < 20
    assert not (tmp_path / "killed" / "summary.json").exists()
    gone_on, _printed, err = run_score(tmp_path / "photos", *options, out="killed")
    assert "resuming in" in err
    alone, _printed, _err = run_score(tmp_path / "photos", *options, out="alone")
    assert results_of(gone_on) == results_of(alone)
    assert not list(gone_on.rglob(".partial-*"))


@pytest.mark.slow
def test_two_processes_write_what_one_writes(photos, tiny_model_file, tmp_path):
    """Both of one thread a process: how many threads share a sum changes its last digits."""
    (photos[0].parent / "2b.jpg").write_bytes(b"")
    arguments = ("-m", "vitrail", "score", photos[0].parent, "-m", tiny_model_file, "--device", "cpu", *OPTIONS, "-o")
    found = []
    for processes in (1, 2):
        code, printed, err = run_together(*arguments, tmp_path / str(processes), processes=processes)
        assert code == 0, err
        assert printed.count("tiny, 5 images") == 1
        assert err.count("skipped 1 unreadable file") == 1
        found.append(results_of(tmp_path / str(processes)))
        assert len(list((tmp_path / str(processes) / "shards").glob("*.npz"))) == 3
    assert found[0] == found[1]


def test_versions_and_device_are_recorded_but_not_compared(run_score, photos):
    out, _printed, _err = run_score(photos[0].parent, *OPTIONS)
    written = json.loads((out / "run.json").read_text())
    environment = written["environment"]
    assert list(environment) == ["python", "torch", "timm", "device", "threads"]
    assert (environment["torch"], environment["device"]) == (version("torch"), "cpu")
    older = {**written, "environment": {**environment, "torch": "1.0"}}
    (out / "run.json").write_text(json.dumps(older))
    _out, _printed, err = run_score(photos[0].parent, *OPTIONS)
    assert f"resuming in {out}" in err
    del older["environment"]  # As written by earlier versions.
    (out / "run.json").write_text(json.dumps(older))
    run_score(photos[0].parent, *OPTIONS)
    assert json.loads((out / "run.json").read_text()) == written


def test_an_interrupt_says_how_much_is_done_and_how_to_resume(run_vitrail, photos, tiny_model_file, tmp_path, monkeypatch):
    from vitrail.evaluation.scoring.measuring import BatchMeasurer

    command = ("score", photos[0].parent, "-m", tiny_model_file, "--device", "cpu", *OPTIONS, "-o", tmp_path / "out")
    measure, stored = BatchMeasurer.measure_shard, tmp_path / "out" / "shards" / "000000.npz"

    def stop_at_second(*arguments, **options):
        if stored.exists():
            raise KeyboardInterrupt
        return measure(*arguments, **options)

    monkeypatch.setattr(BatchMeasurer, "measure_shard", stop_at_second)
    code, _out, err = run_vitrail(*command)
    assert code == 130
    assert err.endswith(
        f"scoring ended after 2 of 5 images; the same command (without --overwrite) resumes from {tmp_path / 'out'}\nstopped\n"
    )
    monkeypatch.undo()
    code, _out, err = run_vitrail(*command)
    assert (code, "resuming in" in err) == (0, True), err

"""What a user can mend ends in one message on standard error and exit code 2, and nothing is half-written."""

import errno
import os
import resource

import numpy as np
import pytest
from PIL import Image
from score_runs import draw_plainly

from vitrail.core.errors import OutputError
from vitrail.core.files import results_folder

pytest_plugins = ("tiny", "score_runs")


@pytest.fixture
def photo(make_photo, tmp_path):
    return make_photo(tmp_path / "good.png")


@pytest.fixture
def refused(run_vitrail, tmp_path, monkeypatch):
    """Run, expect a refusal in words, and return them."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, out_expected=False):
        code, out, err = run_vitrail(*arguments)
        assert code == 2, (code, out, err)
        assert "Traceback" not in err
        assert err.count("error:") == 1, err
        assert not out or out_expected, out
        return err

    return run


def write_truncated(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:1500])


BAD_PHOTOS = {
    "missing": (lambda path: None, "no such image file"),
    "truncated": (write_truncated, "damaged or truncated"),
    "empty": (lambda path: path.write_bytes(b""), "0 bytes"),
    "text": (lambda path: path.write_text("not a photo\n" * 50), "got something else"),
    "folder without images": (lambda path: (path.mkdir(), (path / "notes.txt").write_text("x")), "found none"),
}


@pytest.mark.parametrize("kind", BAD_PHOTOS)
def test_bad_photos_are_named_and_leave_nothing_behind(kind, refused, tiny_model_file, tmp_path):
    make, message = BAD_PHOTOS[kind]
    path = tmp_path / "bad.jpg"
    make(path)
    err = refused("explain", path, "--model", tiny_model_file, "--out", tmp_path / "out")
    assert message in err
    assert "bad.jpg" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["score", "test"])
@pytest.mark.parametrize("kind", BAD_PHOTOS)
def test_commands_on_folders_name_what_cannot_be_read(kind, command, refused, tiny_model_file, tmp_path):
    make, _message = BAD_PHOTOS[kind]
    folder = tmp_path / "data"
    (folder / "blue").mkdir(parents=True)
    make(folder / "blue" / "bad.jpg")
    err = refused(command, folder, "--model", tiny_model_file, "--out", tmp_path / "out")
    # Where no image was found at all, the folder is named; else the file.
    assert str(folder) in err
    left = {path.name for path in (tmp_path / "out").iterdir()} if (tmp_path / "out").exists() else set()
    # Scoring remembers what it was asked, and what it could not read.
    assert left <= ({"run.json", "shards"} if command == "score" else set())


@pytest.mark.parametrize("command", ["score", "test"])
def test_a_missing_data_folder(command, refused, tiny_model_file, tmp_path):
    assert "no such file or folder of images" in refused(command, tmp_path / "nowhere", "--model", tiny_model_file)


def test_test_wants_labels(refused, photo, tiny_model_file):
    assert "one sub-folder of images per class" in refused("test", photo.parent, "--model", tiny_model_file)


@pytest.mark.parametrize(
    ("model", "messages"),
    [
        ("tinm:vit_base_patch16_224", ["unknown source of models 'tinm'", "timm"]),
        ("vitrail:hit-cifar100", ["unknown bundled model 'hit-cifar100'", "hit-cifar10"]),
        ("timm:no_such_model_at_all", ["no_such_model_at_all"]),
        ("no/such/file.safetensors", ["no such model", "no/such/file.safetensors"]),
        ("notes.safetensors", ["notes.safetensors"]),
        ("empty-folder", ["model.safetensors", "empty-folder"]),
        ("", ["model"]),
    ],
    ids=["source", "bundled", "timm", "file", "text-file", "folder", "empty-name"],
)
def test_bad_models(model, messages, refused, photo, tmp_path):
    (tmp_path / "notes.safetensors").write_text("these are no weights")
    (tmp_path / "empty-folder").mkdir()
    err = refused("explain", photo, "--model", model)
    for message in messages:
        assert message in err


@pytest.mark.parametrize(
    ("option", "value", "messages"),
    [
        ("--method", "hitt", ["unknown method 'hitt'", "did you mean 'hit'"]),
        ("--target", "bleu", ["unknown class 'bleu'", "did you mean 'blue'"]),
        ("--target", "7", ["between 0 and 6", "got 7"]),
        ("--target", "-1", ["between 0 and 6", "got -1"]),
        ("--device", "toaster", ["cannot use device 'toaster'"]),
    ],
)
def test_bad_options_of_explain(option, value, messages, refused, photo, tiny_model_file, tmp_path):
    err = refused("explain", photo, "--model", tiny_model_file, option, value, "--out", tmp_path / "out")
    for message in messages:
        assert message in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "value", "messages"),
    [
        ("--method", "hit,rnadom", ["unknown method 'rnadom'", "random"]),
        ("--protocol", "hitt", ["unknown protocol 'hitt'", "hit"]),
    ],
)
def test_bad_options_of_score(option, value, messages, refused, photo, tiny_model_file, tmp_path):
    err = refused("score", photo, "--model", tiny_model_file, option, value, "--out", tmp_path / "out")
    for message in messages:
        assert message in err
    assert not (tmp_path / "out").exists()


def test_a_bad_order_names_the_choices(run_vitrail, photo, tiny_model_file, tmp_path):
    code, out, err = run_vitrail("score", photo, "--model", tiny_model_file, "--order", "best", "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    for word in ("best", "most", "least"):
        assert word in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("score", "--limit", 0),
        ("test", "--limit", 0),
        ("score", "--steps", 0),
        ("score", "--batch-size", 0),
        ("explain", "--top", 0),
        ("explain", "--nonsense"),
    ],
)
def test_options_out_of_range_are_refused_by_the_parser(arguments, run_vitrail, photo, tiny_model_file):
    command, *options = arguments
    code, out, err = run_vitrail(command, photo, "--model", tiny_model_file, *options)
    assert code == 2
    assert out == ""
    assert str(options[0]) in err


COMMANDS = {
    "explain": lambda model, photo, data, out: ("explain", photo, "--model", model, "--out", out),
    "score": lambda model, photo, data, out: ("score", data, "--model", model, "--metric", "sparseness", "--out", out),
    "test": lambda model, photo, data, out: ("test", data, "--model", model, "--out", out),
}


@pytest.fixture(params=COMMANDS)
def command(request, tiny_model_file, photo, make_photo, tmp_path):
    """A function from an output folder to the arguments of a command that would succeed."""
    data = make_photo(tmp_path / "data" / "blue" / "b.png").parent.parent
    return lambda out: COMMANDS[request.param](tiny_model_file, photo, data, out)


def test_an_output_path_that_is_a_file(command, refused, tmp_path):
    out = tmp_path / "out"
    out.write_text("precious")
    assert "is a file" in refused(*command(out))
    assert out.read_text() == "precious"


def test_an_output_path_below_a_file(command, refused, tmp_path):
    (tmp_path / "file").write_text("precious")
    assert "cannot write" in refused(*command(tmp_path / "file" / "out"))


def test_earlier_results_are_not_touched_without_overwrite(command, refused, tmp_path, snapshot):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("good.png", "scores.csv", "accuracy.json"):
        (out / name).write_text("precious")
    before = snapshot(out)
    err = refused(*command(out))
    assert "--overwrite" in err
    assert snapshot(out) == before


def test_a_bad_output_folder_is_reported_before_the_work(command, refused, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "earlier.txt").write_text("precious")

    def worked(*_args, **_options):
        pytest.fail("the model ran before the output folder was looked at")

    monkeypatch.setattr("vitrail.models.hit.HiT.patch_embed", worked)
    assert "--overwrite" in refused(*command(tmp_path / "out"))


def raise_os_error(number):
    def fail(*_args, **_options):
        raise OSError(number, os.strerror(number))

    return fail


def test_an_unwritable_output_folder(command, refused, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    for name in ("TemporaryFile", "mkdtemp", "mkstemp"):
        monkeypatch.setattr(f"vitrail.core.files.tempfile.{name}", raise_os_error(errno.EACCES))
    err = refused(*command(tmp_path / "out"))
    assert "Permission denied" in err
    assert "--out" in err


def test_an_output_folder_that_cannot_be_listed(refused, photo, tiny_model_file, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.setattr("pathlib.Path.iterdir", raise_os_error(errno.EACCES))
    assert "Permission denied" in refused("explain", photo, "--model", tiny_model_file, "--out", tmp_path / "out")


WRITERS = {
    "pictures": "PIL.Image.Image.save",
    "plots": "matplotlib.figure.Figure.savefig",
    "arrays": "numpy.savez_compressed",
    "texts": "pathlib.Path.write_text",
    "tables": "csv.writer",
    "temporary folders": "vitrail.core.files.tempfile.mkdtemp",
}
WRITES = {
    "explain": ["pictures", "plots", "arrays", "texts", "temporary folders"],
    "score": ["plots", "arrays", "texts", "tables"],
    "test": ["texts", "arrays"],
}

BY_DEFAULT = [("explain", "pictures"), ("explain", "plots"), ("explain", "temporary folders")]
BY_DEFAULT += [("score", "texts"), ("score", "tables"), ("test", "arrays")]
"""Every kind once; all others are slow tests."""


def expect_whole(before, after, name):
    """Nothing of a failed run is half there; with `--overwrite`, batches of a run and their description may be gone or new."""
    if name in ("score", "test"):
        replaced = [path for path in before if path.startswith("shards/") or path == "run.json"]
        before, after = ({path: found[path] for path in found if path not in replaced} for found in (before, after))
    assert after == before


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        pytest.param(name, kind, marks=[] if (name, kind) in BY_DEFAULT else pytest.mark.slow)
        for name, kinds in WRITES.items()
        for kind in kinds
    ],
    indirect=["command"],
)
def test_a_full_disk_leaves_earlier_results_whole_and_no_partial_files(
    kind, command, refused, run_vitrail, tmp_path, snapshot, monkeypatch
):
    if kind != "plots":
        draw_plainly(monkeypatch)
    out = tmp_path / "out"
    arguments = command(out)
    assert run_vitrail(*arguments)[0] == 0
    before = snapshot(out)
    assert before
    monkeypatch.setattr(WRITERS[kind], raise_os_error(errno.ENOSPC))
    err = refused(*arguments, "--overwrite")
    assert "No space left on device" in err
    expect_whole(before, snapshot(out), arguments[0])
    assert {entry.name for entry in out.iterdir() if entry.is_dir()} <= (
        {"score": {"shards", "pictures"}, "test": {"shards"}}.get(arguments[0], set())
    )


@pytest.mark.parametrize(
    ("command", "limit"), [("explain", 0), ("explain", 400), ("score", 0), ("score", 400), ("test", 0)], indirect=["command"]
)
def test_a_disk_that_takes_only_the_first_bytes(limit, command, refused, run_vitrail, tmp_path, snapshot, plain_pictures):
    out = tmp_path / "out"
    arguments = command(out)
    assert run_vitrail(*arguments)[0] == 0
    before = snapshot(out)
    # Python ignores SIGXFSZ: writing past the limit is an OSError (EFBIG), which a program meets as it meets a full disk.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        err = refused(*arguments, "--overwrite", out_expected=arguments[0] == "test")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot write" in err
    expect_whole(before, snapshot(out), arguments[0])


def test_results_that_cannot_all_be_moved_leave_every_file_whole(tmp_path, snapshot):
    out = tmp_path / "out"
    (out / "b.txt").mkdir(parents=True)
    (out / "a.txt").write_text("earlier")
    (out / "b.txt" / "inside").write_text("earlier")
    with pytest.raises(OutputError, match="cannot write into"), results_folder(out, overwrite=True) as folder:  # noqa: PT012
        (folder / "a.txt").write_text("new")
        (folder / "b.txt").write_text("new")
    after = snapshot(out)
    assert set(after) == {"a.txt", "b.txt/inside"}
    assert after["a.txt"] in (b"earlier", b"new")
    assert after["b.txt/inside"] == b"earlier"
    assert [path.name for path in out.iterdir() if path.is_dir()] == ["b.txt"]

import errno
import os
import re
import stat
import tempfile
from pathlib import Path

import pytest

from vitrail.adapters.folder_checks import read_folder_config
from vitrail.core.errors import CheckpointError, InvalidInputError, OutputError, VitrailError
from vitrail.core.files import atomic_write, growing_folder, output_folder, read_text, regular_file, results_folder, write_text
from vitrail.core.json_io import read_json
from vitrail.datasets.named.annotations import read_table
from vitrail.explanation import Explanation
from vitrail.models.checkpoints import read_checkpoint
from vitrail.runs.manifest import Manifest
from vitrail.training.config import read_config


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


FULL_DISK = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def raise_full_disk(*_args, **_options):
    raise FULL_DISK


def write_half(path: Path, error: BaseException) -> None:
    path.write_text("half")
    raise error


def raise_no_permission(*_args, **_options):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@pytest.fixture
def umask():
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def test_a_written_file_takes_its_name_only_at_the_end(tmp_path):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with atomic_write(path) as partial:
        partial.write_text("new")
        assert partial.parent == tmp_path
        assert partial.suffix == ".txt"
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names_in(tmp_path) == ["result.txt"]


def test_a_path_may_be_a_string(tmp_path):
    write_text(str(tmp_path / "result.txt"), "é")
    assert (tmp_path / "result.txt").read_bytes() == "é".encode()


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()], ids=repr)
def test_a_failing_block_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "result.txt"
    path.write_text("old")
    with pytest.raises(type(error)), atomic_write(path) as partial:
        write_half(partial, error)
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["result.txt"]


def test_a_failing_block_creates_no_file(tmp_path):
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "result.txt") as partial:
        partial.write_text(str(1 / 0))
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("step", ["write_text", "chmod", "replace"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / "result.txt"
    path.write_text("old")
    expected = f"cannot write {path}: No space left on device; what was there before is unchanged"
    monkeypatch.setattr(Path, step, raise_full_disk)
    with pytest.raises(OutputError, match=f"^{re.escape(expected)}$"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["result.txt"]


def test_a_full_disk_at_the_first_byte(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "mkstemp", raise_full_disk)
    with pytest.raises(OutputError, match="No space left on device"):
        write_text(tmp_path / "result.txt", "new")
    assert names_in(tmp_path) == []


def test_no_permission(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "mkstemp", raise_no_permission)
    with pytest.raises(OutputError, match="Permission denied"):
        write_text(tmp_path / "result.txt", "new")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o555)
    with pytest.raises(OutputError, match="Permission denied"):
        write_text(folder / "result.txt", "new")
    with pytest.raises(OutputError, match="Permission denied"):
        output_folder(folder)


@pytest.mark.parametrize(
    ("place", "reason"),
    [("missing/result.txt", "No such file or directory"), ("file/result.txt", "Not a directory"), ("folder", "Is a directory")],
)
def test_an_impossible_path(tmp_path, place, reason):
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=f"{re.escape(str(tmp_path / place))}: {reason}"):
        write_text(tmp_path / place, "new")
    assert names_in(tmp_path) == ["file", "folder"]


def test_a_name_as_long_as_the_file_system_allows(tmp_path):
    path = tmp_path / ("n" * 251 + ".txt")
    path.write_text("old")
    write_text(path, "new")
    assert path.read_text() == "new"


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX permissions")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600), (0o002, 0o664)])
def test_the_umask_is_respected_and_kept(tmp_path, umask, mask, mode):
    umask(mask)
    write_text(tmp_path / "result.txt", "new")
    assert stat.S_IMODE((tmp_path / "result.txt").stat().st_mode) == mode
    assert umask(0o022) == mask


def test_an_output_folder_is_made_with_its_parents(tmp_path):
    folder = output_folder(str(tmp_path / "one" / "two"))
    assert folder == tmp_path / "one" / "two"
    assert folder.is_dir()
    assert names_in(folder) == []


def test_an_output_folder_keeps_what_it_holds(tmp_path):
    (tmp_path / "result.txt").write_text("old")
    output_folder(tmp_path)
    assert names_in(tmp_path) == ["result.txt"]


def test_a_file_in_the_way_of_an_output_folder(tmp_path):
    path = tmp_path / "results"
    path.write_text("old")
    expected = f"expected a folder for the results, but {path} is a file; choose another --out"
    with pytest.raises(OutputError, match=f"^{re.escape(expected)}$"):
        output_folder(path)
    deeper = path / "deeper"
    with pytest.raises(
        OutputError, match=f"^{re.escape(f'cannot write into {deeper}: Not a directory')}; choose another --out$"
    ):
        output_folder(deeper)
    assert path.read_text() == "old"


def test_an_output_folder_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "TemporaryFile", raise_no_permission)
    with pytest.raises(
        OutputError, match=f"^{re.escape(f'cannot write into {tmp_path}: Permission denied; choose another --out')}$"
    ):
        output_folder(tmp_path)


def test_results_appear_only_at_the_end(tmp_path):
    folder = tmp_path / "one" / "results"
    with results_folder(folder) as partial:
        (partial / "deep").mkdir()
        (partial / "a.txt").write_text("a")
        (partial / "deep" / "b.txt").write_text("b")
        assert not (folder / "a.txt").exists()
    assert names_in(folder) == ["a.txt", "deep"]
    assert (folder / "deep" / "b.txt").read_text() == "b"


def test_results_never_mix_with_earlier_ones_unasked(tmp_path):
    (tmp_path / "old.txt").write_text("old")
    expected = (
        f"{tmp_path} exists and is not empty; choose another --out, or add --overwrite to replace results of the same name"
    )
    with pytest.raises(OutputError, match=f"^{re.escape(expected)}$"), results_folder(tmp_path):
        pytest.fail("the block must not run")
    assert names_in(tmp_path) == ["old.txt"]


def test_results_replace_those_of_the_same_name_where_asked(tmp_path):
    (tmp_path / "same.txt").write_text("old")
    (tmp_path / "other.txt").write_text("old")
    with results_folder(tmp_path, overwrite=True) as partial:
        (partial / "same.txt").write_text("new")
    assert names_in(tmp_path) == ["other.txt", "same.txt"]
    assert (tmp_path / "same.txt").read_text() == "new"
    assert (tmp_path / "other.txt").read_text() == "old"


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()], ids=repr)
def test_failing_results_leave_the_earlier_ones(tmp_path, error):
    (tmp_path / "same.txt").write_text("old")
    with pytest.raises(type(error)), results_folder(tmp_path, overwrite=True) as partial:
        write_half(partial / "same.txt", error)
    assert names_in(tmp_path) == ["same.txt"]
    assert (tmp_path / "same.txt").read_text() == "old"


def test_a_growing_folder_keeps_what_was_written_before_a_failure(tmp_path):
    def interrupted():
        with growing_folder(tmp_path / "a" / "b") as folder:
            (folder / "0.txt").write_text("whole")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names_in(tmp_path / "a" / "b") == ["0.txt"]
    with pytest.raises(OutputError, match="--overwrite"), growing_folder(tmp_path / "a" / "b"):
        pass
    with growing_folder(tmp_path / "a" / "b", overwrite=True) as folder:
        (folder / "1.txt").write_text("more")
    assert names_in(tmp_path / "a" / "b") == ["0.txt", "1.txt"]


def test_an_empty_growing_folder_is_removed(tmp_path):
    with pytest.raises(ValueError, match="early"), growing_folder(tmp_path / "new"):
        raise ValueError("early")
    assert not (tmp_path / "new").exists()


def test_results_on_a_full_disk(tmp_path):
    (tmp_path / "same.txt").write_text("old")
    expected = f"cannot write into {tmp_path}: No space left on device; no result there is half-written"
    with pytest.raises(OutputError, match=f"^{re.escape(expected)}$"), results_folder(tmp_path, overwrite=True) as partial:
        write_half(partial / "same.txt", FULL_DISK)
    assert names_in(tmp_path) == ["same.txt"]
    assert (tmp_path / "same.txt").read_text() == "old"


def test_a_file_in_the_way_of_results(tmp_path):
    (tmp_path / "results").write_text("old")
    with pytest.raises(OutputError, match="is a file; choose another --out"), results_folder(tmp_path / "results"):
        pytest.fail("the block must not run")


def test_an_unreadable_file_elsewhere_is_not_reported_as_an_output_error(tmp_path):
    with pytest.raises(InvalidInputError, match=r"cannot read .*photos: Permission denied"), results_folder(tmp_path / "out"):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "photos"))
    inside = str(tmp_path / "out" / "picture.png")
    with pytest.raises(OutputError, match=r"cannot write into .*out: Read-only"), results_folder(tmp_path / "out"):
        raise OSError(errno.EROFS, "Read-only file system", inside)


SPECIAL = {"a named pipe": lambda path: os.mkfifo(path), "a device": lambda path: path.symlink_to("/dev/zero")}


@pytest.fixture(params=SPECIAL)
def special(request, tmp_path):
    """A file that never ends, or whose reader waits forever."""
    path = tmp_path / "special.json"
    try:
        SPECIAL[request.param](path)
    except (AttributeError, OSError) as error:
        pytest.skip(f"cannot make {request.param} here: {error}")
    return path, request.param


def test_pipes_and_devices_are_no_files_to_read(special):
    path, kind = special
    for read in (regular_file, read_text, read_json):
        with pytest.raises(OSError, match=f"expected a regular file, got {kind}"):
            read(path)


def test_pipes_and_devices_are_reported_by_every_reader(special, tmp_path):
    path, kind = special
    message = f"expected a regular file, got {kind}"
    readers = {
        "weights": lambda: read_checkpoint(path),
        "an explanation": lambda: Explanation.load(path.with_suffix(".npz")),
        "a recipe": lambda: read_config(path),
        "a list of a data set": lambda: read_table(path, str),
    }
    for what, read in readers.items():
        with pytest.raises((VitrailError, OSError), match=message):
            pytest.fail(f"read {what}: {read()}")
    for folder, name in (("run", "run.json"), ("model", "config.json")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).symlink_to(path)
    with pytest.raises(OutputError, match=message):
        Manifest.read(tmp_path / "run")
    with pytest.raises(CheckpointError, match=message):
        read_folder_config(tmp_path / "model")


def test_regular_files_links_and_folders(tmp_path):
    (tmp_path / "a.txt").write_text("é", encoding="utf-8")
    (tmp_path / "link.txt").symlink_to(tmp_path / "a.txt")
    assert read_text(tmp_path / "link.txt") == "é"
    with pytest.raises(FileNotFoundError):
        regular_file(tmp_path / "nowhere")
    with pytest.raises(IsADirectoryError):
        regular_file(tmp_path)

"""Files of the page go when nobody needs them any more."""

import os
import threading
import time
from contextlib import nullcontext

import pytest

from vitrail.app.temporary_files import Folders, stored_bytes, temporary_folders


@pytest.fixture
def folders(tmp_path):
    made = Folders(tmp_path / "uploads", tmp_path / "downloads")
    for folder in (made.uploads / "abc", made.downloads / "own" / "deep"):
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"12345")
    (made.uploads / "broken-off").write_bytes(b"1")
    (made.downloads / "bird 1.png").write_bytes(b"12")
    return made


def below(folders):
    return {path.name for folder in vars(folders).values() for path in folder.iterdir()}


def test_what_is_old_goes_and_examples_stay(folders):
    folders.sweep(100, now=time.time() + 90)
    assert below(folders) == {"abc", "broken-off", "own", "bird 1.png"}
    folders.sweep(100, now=time.time() + 110)
    assert below(folders) == {"bird 1.png"}


def test_a_folder_is_as_old_as_what_is_newest_in_it(folders):
    now = time.time()
    os.utime(folders.downloads / "own" / "deep" / "file", (now + 500, now + 500))
    folders.sweep(100, now=now + 300)
    assert below(folders) == {"own", "bird 1.png"}
    # A copy has the time of its original, and is new all the same.
    (folders.uploads / "copy").write_bytes(b"1")
    os.utime(folders.uploads / "copy", (now - 9999, now - 9999))
    folders.sweep(100, now=now + 50)
    assert "copy" in below(folders)


def test_bytes_of_all_files(folders):
    assert stored_bytes(folders.uploads) == 6
    assert stored_bytes(folders.uploads / "gone") == 0


@pytest.mark.parametrize("end", [None, KeyboardInterrupt])
def test_temporary_folders_are_gone_also_where_somebody_still_writes(tmp_path, monkeypatch, end):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    until, writing = time.monotonic() + 0.5, threading.Event()

    def write(folder):
        while time.monotonic() < until:
            try:
                folder.mkdir(exist_ok=True)
                (folder / f"{time.monotonic_ns()}").write_bytes(b"1")
            except FileNotFoundError:
                pass  # Removed meanwhile.
            writing.set()

    ended = pytest.raises(end) if end else nullcontext()
    with ended, temporary_folders() as folders:
        assert {folders.uploads.parent, folders.downloads.parent} == set(tmp_path.iterdir())
        writer = threading.Thread(target=write, args=(folders.uploads / "late",))
        writer.start()
        assert writing.wait(5)
        if end:
            raise end
    writer.join()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_removed_is_told(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("vitrail.app.temporary_files._PAUSE", 0.001)
    with caplog.at_level("WARNING", "vitrail"), monkeypatch.context() as patch, temporary_folders() as folders:
        patch.setattr("shutil.rmtree", lambda *_, **__: None)
    assert f"cannot remove the temporary folder {folders.uploads.parent.resolve()}" in caplog.text

"""Temporary files are removed when they are old, and all at the end."""

import os
import threading
import time
from contextlib import nullcontext

import pytest

from vitrail.app.temporary_files import TemporaryFolders, stored_bytes, temporary_folders


@pytest.fixture
def folders(tmp_path):
    folders = TemporaryFolders(tmp_path / "uploads", tmp_path / "downloads")
    for folder in (folders.uploads / "abc", folders.downloads / "own" / "deep"):
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"12345")
    (folders.uploads / "aborted").write_bytes(b"1")
    (folders.downloads / "bird 1.png").write_bytes(b"12")
    return folders


def list_names(folders):
    return {path.name for folder in vars(folders).values() for path in folder.iterdir()}


def test_old_files_are_removed_and_examples_stay(folders):
    folders.remove_old(100, now=time.time() + 90)
    assert list_names(folders) == {"abc", "aborted", "own", "bird 1.png"}
    folders.remove_old(100, now=time.time() + 110)
    assert list_names(folders) == {"bird 1.png"}


def test_folder_is_as_old_as_its_newest_file(folders):
    now = time.time()
    os.utime(folders.downloads / "own" / "deep" / "file", (now + 500, now + 500))
    folders.remove_old(100, now=now + 300)
    assert list_names(folders) == {"own", "bird 1.png"}
    # Copies have the modification time of their original.
    (folders.uploads / "copy").write_bytes(b"1")
    os.utime(folders.uploads / "copy", (now - 9999, now - 9999))
    folders.remove_old(100, now=now + 50)
    assert "copy" in list_names(folders)


def test_stored_bytes_count_all_files(folders):
    assert stored_bytes(folders.uploads) == 6
    assert stored_bytes(folders.uploads / "gone") == 0


@pytest.mark.parametrize("end", [None, KeyboardInterrupt])
def test_temporary_folders_are_removed_also_while_a_thread_writes(tmp_path, monkeypatch, end):
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


def test_folder_that_cannot_be_removed_is_logged(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("vitrail.app.temporary_files._PAUSE", 0.001)
    with caplog.at_level("WARNING", "vitrail"), monkeypatch.context() as patch, temporary_folders() as folders:
        patch.setattr("shutil.rmtree", lambda *_, **__: None)
    assert f"cannot remove the temporary folder {folders.uploads.parent.resolve()}" in caplog.text

"""Locks allow one run per folder, across processes and threads; files of a killed run lock nobody out."""

import errno
import os
import signal
import subprocess
import sys
import threading

import pytest

from vitrail.core.errors import OutputError
from vitrail.core.files import MARK, growing_folder, results_folder
from vitrail.core.locking import LOCK, only_run

fcntl = pytest.importorskip("fcntl", reason="there are no such locks on this system")
pytest_plugins = ("tiny",)

HOLDER = "import sys; from vitrail.core.locking import only_run\nwith only_run(sys.argv[1]): print('held', flush=True); {work}"


@pytest.fixture
def holding():
    """Return a function that starts a process that locks a folder."""
    started = []

    def start(folder, work="sys.stdin.read()"):
        command = [sys.executable, "-c", HOLDER.format(work=work), str(folder)]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout.readline() == "held\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_another_process_is_refused_with_the_writer_named(holding, tmp_path):
    process = holding(tmp_path)
    with pytest.raises(OutputError, match=rf"another run is writing into .*\(process {process.pid} on "), only_run(tmp_path):
        pass
    assert (tmp_path / LOCK).exists()  # That of the other one.
    process.communicate("")
    with only_run(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_ends_with_the_process_also_while_its_children_live(how, holding, tmp_path):
    process = holding(tmp_path, "import os, time; os.fork() or print(os.getpid(), flush=True); time.sleep(60)")
    child = int(process.stdout.readline())
    try:
        process.send_signal(how)
        process.wait()
        with only_run(tmp_path):
            os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_forked_process_that_leaves_does_not_give_the_lock_of_its_parent_back(tmp_path):
    with only_run(tmp_path):
        child = os.fork()
        if not child:
            with only_run(tmp_path / ".."):
                pass
            os._exit(int(not (tmp_path / LOCK).exists()))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert (tmp_path / LOCK).exists()


def test_other_threads_are_refused_and_may_ask_again(tmp_path):
    found = []

    def other():
        try:
            with only_run(tmp_path):
                found.append("held")
        except OutputError as error:
            found.append(str(error))

    with only_run(tmp_path), only_run(tmp_path / ".." / tmp_path.name):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert (tmp_path / LOCK).exists()
    assert "another run is writing" in found[0]
    other()
    assert found[1] == "held"


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_warned_of_and_used(code, monkeypatch, caplog, tmp_path):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with only_run(tmp_path):
        pass
    assert "has no locks: make sure that no second run writes there" in caplog.text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", [results_folder, growing_folder])
@pytest.mark.parametrize("overwrite", [False, True])
def test_folders_of_results_are_written_by_one_run(folder, overwrite, holding, tmp_path):
    holding(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(OutputError, match="another run is writing"), folder(tmp_path, overwrite):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize("folder", [results_folder, growing_folder])
@pytest.mark.parametrize("overwrite", [False, True])
def test_only_leftovers_of_a_killed_run_are_removed(folder, overwrite, tmp_path):
    """Partial files and folders, a lock file, and files that only look like them."""
    (tmp_path / "gone").mkdir()
    gone = tmp_path / "gone"
    (gone / LOCK).touch()
    (gone / ".partial-a1b2c3d_.png").write_text("half")
    (gone / ".partial-abcdefgh").mkdir()
    (gone / ".partial-abcdefgh" / MARK).touch()
    (gone / ".partial-abcdefgh" / "half.png").touch()
    (gone / ".partial-empty_00").mkdir()
    with folder(gone, overwrite) as place:
        (place / "new.txt").write_text("new")
    assert [path.name for path in gone.iterdir()] == ["new.txt"]

    kept = tmp_path / "kept"
    (kept / ".partial-mine").mkdir(parents=True)
    (kept / ".partial-abcdefgh").mkdir()
    (kept / ".partial-abcdefgh" / "photo.png").write_text("precious")
    (kept / ".partial-notes.txt").write_text("precious")
    (tmp_path / "elsewhere").mkdir()
    (kept / ".partial-link0000").symlink_to(tmp_path / "elsewhere")
    before = sorted(path.name for path in kept.rglob("*"))
    if overwrite:
        with folder(kept, overwrite):
            pass
    else:
        with pytest.raises(OutputError, match="exists and is not empty"), folder(kept, overwrite):
            pass
    assert sorted(path.name for path in kept.rglob("*")) == before


def test_commands_refuse_the_folder_of_a_run(holding, run_vitrail, tiny_model_file, make_photo, tmp_path):
    photo = make_photo(tmp_path / "photos" / "a.png")
    commands = {
        "explain": ("explain", photo),
        "folder": ("explain", "--data", photo.parent),
        "score": ("score", photo.parent, "--steps", 2),
        "test": ("layers", photo.parent),
    }
    for name, command in commands.items():
        out = tmp_path / name
        out.mkdir()
        holding(out)
        before = [path.name for path in out.iterdir()]
        code, printed, err = run_vitrail(*command, "-m", tiny_model_file, "--device", "cpu", "--out", out)
        assert (code, printed, err.count("error: another run is writing into")) == (2, "", 1), err
        assert [path.name for path in out.iterdir()] == before
        code, _printed, err = run_vitrail(*command, "-m", tiny_model_file, "--device", "cpu", "--out", out, "--overwrite")
        assert (code, err.count("error: another run is writing into")) == (2, 1), err

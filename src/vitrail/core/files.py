"""Read regular files only, and write results atomically."""

import errno
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vitrail.core.errors import FolderTakenError, InvalidInputError, OutputError, failures_as
from vitrail.core.locking import is_lock, only_run

PARTIAL = ".partial-"
"""Prefix of the names of files that are being written."""

PARTIAL_NAME = re.compile(re.escape(PARTIAL) + r"[a-z0-9_]{8}(\.\w+)?")
"""Such names, as `tempfile` completes them."""

MARK = ".vitrail"
"""Empty file that marks vitrail's temporary folders, the only ones that are removed with their content."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG)
FULL_IN_WORDS = re.compile(
    r"No space left on device|Disk quota exceeded|os error (28|122|5|30|27)\b|PytorchStreamWriter failed|unexpected pos \d+"
)
"""Messages of libraries about full disks."""

KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


def name_kind(mode: int) -> str:
    """Return the kind of a file, in words, from its `st_mode`."""
    return KINDS.get(stat.S_IFMT(mode), "special file")


def is_file(text: str) -> bool:
    """Return whether a text is the name of a file; it may be too long for a name."""
    return os.path.isfile(text)  # noqa: PTH113 (on a text that is too long, the method of a path raises an error)


def regular_file(path: str | Path) -> Path:
    """Return the path if it is a regular file; reading a pipe or device might never end.

    Raises:
        OSError: It does not exist, or is not a regular file.
    """
    path = Path(path)
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, f"expected a regular file, got a {name_kind(mode)}", str(path))
    return path


def read_text(path: str | Path) -> str:
    """Read a text file in UTF-8.

    Raises:
        OSError: It cannot be read, or is not a regular file.
        UnicodeDecodeError: It has another encoding; a `ValueError`.
    """
    return regular_file(path).read_text(encoding="utf-8")


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary file beside `path`, renamed to `path` only when the block succeeds.

    Raises:
        OutputError: The file cannot be written (no permission, a full disk, ...); an older file stays intact.
    """
    path = Path(path)
    partial: Path | None = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=PARTIAL, suffix=path.suffix)
        partial = Path(name)
        os.close(handle)
        yield partial
        partial.chmod(0o666 & ~_umask())
        partial.replace(path)
    except Exception as error:
        reason = _explain_disk_error(error)
        if reason is None:
            raise
        raise OutputError(f"cannot write {path}: {reason}; what was there before is unchanged") from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)


def _explain_disk_error(error: BaseException) -> str | None:
    """Return why writing failed, or None if the error has another cause."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    # torch and safetensors raise their own errors, from the system's or with its message.
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in FULL:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return f"{str(error).splitlines()[0]} (is the disk full?)" if FULL_IN_WORDS.search(str(error)) else None


def discard_partials(folder: str | Path, below: Iterable[str] = ()) -> None:
    """Remove partial files that a killed program left in a folder, and anywhere below the named subfolders.

    The caller must hold the lock of the folder (`vitrail.core.locking`), because another run might be writing there.
    """
    folder = Path(folder)
    for path in [*folder.glob(f"{PARTIAL}*"), *(path for name in below for path in (folder / name).rglob(f"{PARTIAL}*"))]:
        if not is_left_over(path):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def is_left_over(path: Path) -> bool:
    """Return whether vitrail was writing a file or folder; only then may it be removed."""
    if not PARTIAL_NAME.fullmatch(path.name) or path.is_symlink():
        return False
    return path.is_file() or (path.is_dir() and ((path / MARK).is_file() or not any(path.iterdir())))


def output_folder(path: str | Path) -> Path:
    """Create a folder for results and check that it is writable.

    Raises:
        OutputError: The path is a file, or the folder is not writable.
    """
    path = Path(path)
    with failures_as(OutputError, f"cannot write into {path}", "; choose another --out"):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise OutputError(f"expected a folder for the results, but {path} is a file; choose another --out") from None
        with tempfile.TemporaryFile(dir=path):
            pass
    return path


@contextmanager
def removed_if_empty(path: str | Path) -> Iterator[None]:
    """Remove a folder again that was created inside the block and stayed empty."""
    created = not Path(path).exists()
    try:
        yield
    finally:
        if created:
            with suppress(OSError):  # Removes an empty folder only.
                Path(path).rmdir()


@contextmanager
def results_folder(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a hidden temporary folder inside `path`; its files move to `path` only when the block succeeds.

    Args:
        path: Folder of the results, created with its parents. Partial files of killed runs are removed.
        overwrite: Whether to replace files of earlier results, each atomically; other files stay.

    Raises:
        OutputError: The folder is not empty, another run is writing there, or it cannot be written.
        InvalidInputError: Inside the block, a file elsewhere could not be read.
    """
    path, partial = Path(path), None
    with growing_folder(path, overwrite):
        try:
            partial = Path(tempfile.mkdtemp(dir=path, prefix=PARTIAL))
            (partial / MARK).touch()
            yield partial
            (partial / MARK).unlink()
            for file in sorted(partial.rglob("*")):
                if file.is_file():
                    target = path / file.relative_to(partial)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    file.replace(target)
        finally:
            if partial is not None:
                shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def growing_folder(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield `path` itself, for long work whose results stay when it is interrupted; write each of them atomically.

    Args:
        path: Folder of the results, created with its parents, and removed again if it stays empty.
        overwrite: Whether the folder may contain files.

    Raises:
        OutputError: The folder is not empty, another run is writing there, or it cannot be written.
        InvalidInputError: Inside the block, a file elsewhere could not be read.
    """
    path = Path(path)
    if not overwrite:
        _expect_empty(path)
    try:
        with removed_if_empty(path), only_run(output_folder(path)):
            discard_partials(path)
            if not overwrite:  # Another run may just have ended.
                _expect_empty(path)
            yield path
    except OSError as error:
        if isinstance(error.filename, str) and not Path(error.filename).absolute().is_relative_to(path.absolute()):
            raise InvalidInputError(f"cannot read {error.filename}: {error.strerror or error}") from error
        raise OutputError(f"cannot write into {path}: {error.strerror or error}; no result there is half-written") from error


def _expect_empty(path: Path) -> None:
    with failures_as(OutputError, f"cannot read {path}", "; choose another --out"):
        empty = not path.is_dir() or all(
            is_lock(entry) or is_left_over(entry) or entry.name == MARK for entry in path.iterdir()
        )
    if not empty:
        raise FolderTakenError(
            f"{path} exists and is not empty; choose another --out, or add --overwrite to replace results of the same name"
        )


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def real_path(path: str | Path) -> Path:
    """Return the absolute path with links resolved; a link to itself stays, where `Path.resolve` would fail."""
    return Path(os.path.realpath(path))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

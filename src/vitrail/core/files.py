"""Reading regular files only, and writing results so that nothing is ever half-written."""

import errno
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vitrail.core.errors import InvalidInputError, OutputError
from vitrail.core.locking import is_lock, only_run

PARTIAL = ".partial-"
"""How the names of files begin that are being written."""

PARTIAL_NAME = re.compile(re.escape(PARTIAL) + r"[a-z0-9_]{8}(\.\w+)?")
"""As `tempfile` completes them."""

MARK = ".vitrail"
"""An empty file in a temporary folder of ours: only such a folder is removed with what is in it."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG)
FULL_IN_WORDS = re.compile(
    r"No space left on device|Disk quota exceeded|os error (28|122|5|30|27)\b|PytorchStreamWriter failed|unexpected pos \d+"
)
"""How libraries that write by themselves say it."""


SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
"""What a path may lead to beside files and folders."""


def regular_file(path: str | Path) -> Path:
    """Return the path of a file that can be read to its end: no pipe or device, which would keep a reader waiting forever.

    Raises:
        OSError: There is none, or it is something else than a regular file.
    """
    path = Path(path)
    kind = stat.S_IFMT(path.stat().st_mode)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if kind != stat.S_IFREG:
        raise OSError(errno.EINVAL, f"expected a regular file, got {SPECIAL.get(kind, 'something else')}", str(path))
    return path


def read_text(path: str | Path) -> str:
    """Read a text file in UTF-8.

    Raises:
        OSError: It cannot be read, or is no regular file.
        UnicodeDecodeError: It is in another encoding; a `ValueError`.
    """
    return regular_file(path).read_text(encoding="utf-8")


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary file beside `path`; it takes that name only when the block succeeds.

    Raises:
        OutputError: The file cannot be written (no permission, a full disk, ...); an older file of that name is whole.
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
        reason = _disk_error(error)
        if reason is None:
            raise
        raise OutputError(f"cannot write {path}: {reason}; what was there before is unchanged") from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)


def _disk_error(error: BaseException) -> str | None:
    """Why something could not be written, or None where the error is another one."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    # torch and safetensors have errors of their own, on top of the system's or with its words.
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in FULL:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return f"{str(error).splitlines()[0]} (is the disk full?)" if FULL_IN_WORDS.search(str(error)) else None


def discard_partials(folder: str | Path, below: Iterable[str] = ()) -> None:
    """Remove what a killed program left half-written in a folder, and anywhere below the named ones in it.

    The caller holds the lock of the folder (`vitrail.core.locking`), else another run may be writing it.
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
    """Whether a file or folder is one that a run of ours was writing; nothing else may be removed."""
    if not PARTIAL_NAME.fullmatch(path.name) or path.is_symlink():
        return False
    return path.is_file() or (path.is_dir() and ((path / MARK).is_file() or not any(path.iterdir())))


def output_folder(path: str | Path) -> Path:
    """Create a folder for results and make sure that it can be written to.

    Raises:
        OutputError: A file is in the way, or there is no permission.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except FileExistsError:
        raise OutputError(f"expected a folder for the results, but {path} is a file; choose another --out") from None
    except OSError as error:
        raise OutputError(f"cannot write into {path}: {error.strerror or error}; choose another --out") from error
    return path


@contextmanager
def results_folder(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a hidden temporary folder inside `path`; its files take their place only when the block succeeds.

    Args:
        path: Where the results go; created with its parents. What a killed run left half-written there is removed.
        overwrite: Whether files of earlier results may be replaced, each in one piece; others stay.

    Raises:
        OutputError: The folder holds something already, another run is writing there, a file is in the way, or it cannot be written.
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
    """Yield `path` itself, for long work whose results stay when it is interrupted; each has to be written in one piece.

    Args:
        path: Where the results go; created with its parents, and removed again if nothing came of it.
        overwrite: Whether there may be files already.

    Raises:
        OutputError: The folder holds something already, another run is writing there, a file is in the way, or it cannot be written.
        InvalidInputError: Inside the block, a file elsewhere could not be read.
    """
    path = Path(path)
    created = not path.exists()
    if not overwrite:
        _expect_empty(path)
    output_folder(path)
    try:
        with only_run(path):
            discard_partials(path)
            if not overwrite:  # Another run may have ended just now.
                _expect_empty(path)
            yield path
    except OSError as error:
        if isinstance(error.filename, str) and not Path(error.filename).absolute().is_relative_to(path.absolute()):
            raise InvalidInputError(f"cannot read {error.filename}: {error.strerror or error}") from error
        raise OutputError(f"cannot write into {path}: {error.strerror or error}; no result there is half-written") from error
    finally:
        if created:
            with suppress(OSError):  # Nothing came of it: no empty folder stays. One that holds results is not removed.
                path.rmdir()


def _expect_empty(path: Path) -> None:
    try:
        empty = not path.is_dir() or all(is_lock(each) or is_left_over(each) or each.name == MARK for each in path.iterdir())
    except OSError as error:
        raise OutputError(f"cannot read {path}: {error.strerror or error}; choose another --out") from error
    if not empty:
        raise OutputError(
            f"{path} exists and is not empty; choose another --out, or add --overwrite to replace results of the same name"
        )


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in one piece."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def real_path(path: str | Path) -> Path:
    """The absolute path without links; of a link that leads to itself the link, where `Path.resolve` fails."""
    return Path(os.path.realpath(path))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

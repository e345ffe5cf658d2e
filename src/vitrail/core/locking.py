"""One run at a time in a folder of results: a lock that ends with the process that holds it."""

import errno
import json
import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vitrail.core.errors import OutputError

logger = logging.getLogger(__name__)

LOCK = ".vitrail-lock"
"""The locked file in a folder of results; it is removed when the run ends, and means nothing where nobody holds it."""

WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)

_held: dict[int, tuple[Path, int]] = {}
"""The folder and the thread of every lock of this process, by its file."""


@contextmanager
def only_run(folder: str | Path) -> Iterator[None]:
    """Be the only run that writes into a folder while the block goes on; the folder is there already.

    The operating system gives the lock back when the process ends, however it ends. It holds among the processes of one machine, and of
    several machines where the file system passes locks on (NFS and Lustre as a rule). A file system without locks is warned of, and used.
    A thread that holds the lock may ask for it again.

    Raises:
        OutputError: Another run is writing there, or nothing can be written there.
    """
    folder = Path(folder)
    path, handle = folder / LOCK, None
    if (folder.resolve(), threading.get_ident()) in _held.values():
        yield
        return
    try:
        handle = _locked(path, folder)
        yield
    finally:
        if handle in _held:  # Not in a forked process, which has let go.
            # While it is still locked: whoever opened the file meanwhile finds out that it is gone, and makes a new one.
            with suppress(OSError):
                path.unlink(missing_ok=True)
            del _held[handle]
            os.close(handle)


def is_lock(path: Path) -> bool:
    """Whether a file is there for the lock alone."""
    return path.name == LOCK


def _locked(path: Path, folder: Path) -> int | None:
    """Open and lock the file; None where there are no locks."""
    try:
        import fcntl  # noqa: PLC0415 (not on Windows)
    except ImportError:
        _warn(folder)
        return None
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise OutputError(f"cannot write into {folder}: {error.strerror or error}; choose another --out") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _read(handle)
            os.close(handle)
            if error.errno in WITHOUT_LOCKS:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
                _warn(folder)
                return None
            raise OutputError(
                f"another run is writing into {folder}{holder}; wait until it has ended, stop it, or choose another --out"
            ) from error
        _held[handle] = folder.resolve(), threading.get_ident()
        if _is_same(handle, path):
            with suppress(OSError):  # For people only; the disk may be full.
                os.ftruncate(handle, 0)
                os.write(handle, json.dumps({"process": os.getpid(), "machine": socket.gethostname()}).encode())
            return handle
        del _held[handle]
        os.close(handle)  # The run that held it has removed the file.


def _is_same(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _read(handle: int) -> str:
    """Who holds the lock, in brackets, or nothing where that is not known."""
    try:
        holder = json.loads(os.pread(handle, 1000, 0))
        return f" (process {int(holder['process'])} on {holder['machine']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _warn(folder: Path) -> None:
    logger.warning("the file system of %s has no locks: make sure that no second run writes there", folder)


def _let_go() -> None:
    """A forked process, such as one that reads images, must not keep the lock of a parent that was killed."""
    for handle in _held:
        with suppress(OSError):
            os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)

"""Lock a results folder for one run at a time; the lock ends with the process that holds it."""

import errno
import json
import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vitrail.core.errors import FolderTakenError, OutputError, failures_as

logger = logging.getLogger(__name__)

LOCK = ".vitrail-lock"
"""Lock file of a results folder, removed when the run ends; without a holder it has no effect."""

WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)

_held: dict[int, tuple[Path, int]] = {}
"""Folder and thread of every lock that this process holds, by file handle."""


@contextmanager
def only_run(folder: str | Path) -> Iterator[None]:
    """Lock an existing folder inside the block, so that no other run writes into it.

    The operating system releases the lock when the process ends, however it ends. It works between the processes of one machine, and
    between machines if the file system supports it (NFS and Lustre usually do). On file systems without locks, a warning is logged. A
    thread that holds the lock may acquire it again.

    Raises:
        OutputError: Another run is writing there, or the folder is not writable.
    """
    folder = Path(folder)
    path, handle = folder / LOCK, None
    if (folder.resolve(), threading.get_ident()) in _held.values():
        yield
        return
    try:
        handle = _acquire(path, folder)
        yield
    finally:
        if handle in _held:  # Not in a forked process, which has released it.
            # Remove while locked: a process that opened the file meanwhile notices, and creates a new one.
            with suppress(OSError):
                path.unlink(missing_ok=True)
            del _held[handle]
            os.close(handle)


def is_lock(path: Path) -> bool:
    """Return whether a file is a lock file."""
    return path.name == LOCK


def _acquire(path: Path, folder: Path) -> int | None:
    """Open and lock the file; None if the file system has no locks."""
    try:
        import fcntl  # noqa: PLC0415 (not on Windows)
    except ImportError:
        _warn_no_locks(folder)
        return None
    while True:
        with failures_as(OutputError, f"cannot write into {folder}", "; choose another --out"):
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _describe_holder(handle)
            os.close(handle)
            if error.errno in WITHOUT_LOCKS:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
                _warn_no_locks(folder)
                return None
            raise FolderTakenError(
                f"another run is writing into {folder}{holder}; wait until it has ended, stop it, or choose another --out"
            ) from error
        _held[handle] = folder.resolve(), threading.get_ident()
        if _is_same(handle, path):
            with suppress(OSError):  # For people only; the disk may be full.
                os.ftruncate(handle, 0)
                os.write(handle, json.dumps({"process": os.getpid(), "machine": socket.gethostname()}).encode())
            return handle
        del _held[handle]
        os.close(handle)  # The previous holder has removed the file.


def _is_same(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _describe_holder(handle: int) -> str:
    """Return process and machine of the holder in parentheses, or an empty string if unknown."""
    try:
        holder = json.loads(os.pread(handle, 1000, 0))
        return f" (process {int(holder['process'])} on {holder['machine']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _warn_no_locks(folder: Path) -> None:
    logger.warning("the file system of %s has no locks: make sure that no second run writes there", folder)


def _release_in_child() -> None:
    """Release locks in a forked process, such as a data worker: it must not hold the lock of a killed parent."""
    for handle in _held:
        with suppress(OSError):
            os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release_in_child)

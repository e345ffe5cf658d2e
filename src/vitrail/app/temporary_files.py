"""Temporary files of the page: where they are, how large they are, and when they are removed."""

import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

_TRIES, _PAUSE = 20, 0.1


@dataclass(frozen=True)
class TemporaryFolders:
    """Folders that exist for as long as the page is served.

    Attributes:
        uploads: Uploaded photos, and files that Gradio serves.
        downloads: Example photos, and one folder per client that prepared files.
    """

    uploads: Path
    downloads: Path

    def stored_bytes(self) -> int:
        """Return the size of all files."""
        return stored_bytes(self.uploads) + stored_bytes(self.downloads)

    def remove_old(self, keep_seconds: int, now: float | None = None) -> None:
        """Remove what is older than some seconds, except for the example photos.

        Args:
            keep_seconds: Largest age.
            now: The time, as `time.time` returns it.
        """
        before = (time.time() if now is None else now) - keep_seconds
        # Gradio forgets the files of aborted uploads, which lie beside its folders.
        folders = [path for path in self.downloads.iterdir() if path.is_dir()]
        for path in [*self.uploads.iterdir(), *folders]:
            if _last_change(path) < before:
                _remove(path)


@contextmanager
def temporary_folders() -> Iterator[TemporaryFolders]:
    """Create the folders for the block, then remove them."""
    with tempfile.TemporaryDirectory(prefix="vitrail-serve-", ignore_cleanup_errors=True) as name:
        parent = Path(name).resolve()
        folders = TemporaryFolders(parent / "uploads", parent / "downloads")
        folders.uploads.mkdir()
        folders.downloads.mkdir()
        try:
            yield folders
        finally:
            _remove_repeatedly(parent)


def _remove_repeatedly(folder: Path) -> None:
    # A request that is still being worked on may write new files meanwhile.
    for _ in range(_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(_PAUSE)
    logger.warning("cannot remove the temporary folder %s; remove it yourself", folder)


def stored_bytes(folder: Path) -> int:
    """Return the size of all files below a folder."""
    return sum(status.st_size for status in _walk_status(folder) if stat.S_ISREG(status.st_mode))


def _last_change(path: Path) -> float:
    """Return the latest change of anything below a path; copies have the modification time of their original, so creation counts too."""
    return max((max(status.st_mtime, status.st_ctime) for status in _walk_status(path)), default=0.0)


def _walk_status(path: Path) -> Iterator[os.stat_result]:
    """Yield the status of a file, or of a folder and everything below it."""
    below = (Path(root) / name for root, folders, files in os.walk(path) for name in (*folders, *files))
    for entry in (path, *below):
        with suppress(FileNotFoundError):  # Removed meanwhile.
            yield entry.lstat()


def _remove(path: Path) -> None:
    try:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        pass  # Gradio removes old files, too.
    except OSError as error:
        logger.warning("cannot remove %s: %s", path, error)

"""The files of the page: where they lie, how large they are, and when they go."""

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
class Folders:
    """Where files lie for as long as the page is served.

    Attributes:
        uploads: Photos of visitors, and what the kit hands out.
        downloads: Example photos, and a folder for every visitor who prepared files.
    """

    uploads: Path
    downloads: Path

    def stored_bytes(self) -> int:
        """How large everything is together."""
        return stored_bytes(self.uploads) + stored_bytes(self.downloads)

    def sweep(self, keep_seconds: int, now: float | None = None) -> None:
        """Remove what is older than that; example photos stay.

        Args:
            keep_seconds: The largest age.
            now: In seconds, as `time.time` counts them.
        """
        before = (time.time() if now is None else now) - keep_seconds
        # Uploads that were broken off are files beside the folders; the kit forgets them.
        for entry in [*self.uploads.iterdir(), *(each for each in self.downloads.iterdir() if each.is_dir())]:
            if _newest(entry) < before:
                _remove(entry)


@contextmanager
def temporary_folders() -> Iterator[Folders]:
    """Folders for the time of the block; then they are gone."""
    with tempfile.TemporaryDirectory(prefix="vitrail-serve-", ignore_cleanup_errors=True) as name:
        whole = Path(name).resolve()
        folders = Folders(whole / "uploads", whole / "downloads")
        folders.uploads.mkdir()
        folders.downloads.mkdir()
        try:
            yield folders
        finally:
            _remove_whole(whole)


def _remove_whole(folder: Path) -> None:
    # A request that is still at work may write meanwhile.
    for _ in range(_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(_PAUSE)
    logger.warning("cannot remove the temporary folder %s; remove it yourself", folder)


def stored_bytes(folder: Path) -> int:
    """How large all files below a folder are together."""
    return sum(each.st_size for each in _told(folder) if stat.S_ISREG(each.st_mode))


def _newest(entry: Path) -> float:
    """When anything of it was last written, or came here: a copy has the time of its original."""
    return max((max(each.st_mtime, each.st_ctime) for each in _told(entry)), default=0.0)


def _told(entry: Path) -> Iterator[os.stat_result]:
    """What the disk tells of a file, or of a folder and all below it."""
    below = (Path(root) / name for root, folders, files in os.walk(entry) for name in (*folders, *files))
    for path in (entry, *below):
        with suppress(FileNotFoundError):  # Removed meanwhile.
            yield path.lstat()


def _remove(entry: Path) -> None:
    try:
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    except FileNotFoundError:
        pass  # The kit removes old files, too.
    except OSError as error:
        logger.warning("cannot remove %s: %s", entry, error)

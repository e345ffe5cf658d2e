"""Where results go if no `--out` is given: the next free folder, or the last one if a run with the same settings was interrupted there."""

import logging
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from vitrail.core.errors import FolderTakenError

logger = logging.getLogger("vitrail")

RUN_FILE = "run.json"
"""Of a run that can resume."""

FINISHED = ("index.html", "images.csv", "queries.json")
"""Files that runs write at their end."""


def next_free(folder: Path) -> Path:
    """Return the folder, or the first of `folder-2`, `folder-3`, ... that does not exist or is empty."""
    return next(path for path in _numbered(folder) if _is_free(path))


def last_taken(folder: Path) -> Path | None:
    """Return the one of `folder`, `folder-2`, ... with the highest number that holds something; None if all are free."""
    others = {path: path.name.removeprefix(f"{folder.name}-") for path in folder.parent.glob(f"{folder.name}-*")}
    numbered = {int(number): path for path, number in others.items() if number.isdecimal()} | {1: folder}
    return next((numbered[number] for number in sorted(numbered, reverse=True) if not _is_free(numbered[number])), None)


def run_in_free_folder(run: Callable[[Path], None], folder: Path) -> None:
    """Run a command in the next free folder; resume in the last one if a run with the same settings was interrupted there.

    The settings of `explain` leave out its methods: a run that adds some continues there, too.

    Args:
        run: Runs the command with its output folder.
        folder: The default folder of the command.
    """
    last = last_taken(folder)
    if last is not None and _is_interrupted(last):
        try:
            run(last)
        except FolderTakenError:  # A run with other settings, or one that is still running.
            logger.info("%s holds another run", last)
        else:
            return
    free = next_free(folder)
    run(free)
    if last is not None:  # Not before: a run that fails writes nothing.
        logger.info("%s exists, so the results are in %s", folder, free)


def _numbered(folder: Path) -> Iterator[Path]:
    return (folder if number == 1 else folder.with_name(f"{folder.name}-{number}") for number in count(1))


def _is_free(path: Path) -> bool:
    try:
        return not path.exists() or (path.is_dir() and not any(path.iterdir()))
    except OSError:
        return False


def _is_interrupted(folder: Path) -> bool:
    return (folder / RUN_FILE).is_file() and not any((folder / name).exists() for name in FINISHED)

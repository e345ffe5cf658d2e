"""Writing results so that nothing is ever half-written."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vitrail.errors import OutputError


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary file beside `path`; it takes that name only when the block succeeds.

    Raises:
        OutputError: The file cannot be written (no permission, a full disk, ...); an older file of that name is whole.
    """
    path = Path(path)
    partial: Path | None = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
        partial = Path(name)
        os.close(handle)
        yield partial
        partial.chmod(0o666 & ~_umask())
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}; what was there before is unchanged") from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)


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


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in one piece."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

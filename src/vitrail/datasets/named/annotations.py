"""Reading lists of images and labels: errors name the damaged file and line, and a missing file stays a FileNotFoundError."""

import errno
import math
import os
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from vitrail.core.errors import InvalidInputError, MissingExtraError
from vitrail.core.files import read_text as read_file_text
from vitrail.core.files import regular_file
from vitrail.core.json_io import parse_json
from vitrail.datasets.dataset import Box, LabeledFiles, Transform


def damaged(path: Path, problem: str) -> InvalidInputError:
    """Return the error for a file with unexpected content."""
    return InvalidInputError(f"damaged {path}: {problem}; download or extract it again")


def need(path: Path) -> Path:
    """Return the path of a file or folder that exists.

    Raises:
        FileNotFoundError: It does not exist.
    """
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return path


def official_folder(root: Path, *names: str) -> Path:
    """Return the first of the sub-folders `names`, into which the official archive extracts, or else `root` itself."""
    return next((root / name for name in names if (root / name).is_dir()), root)


def read_table(path: Path, *types: Callable[[str], Any]) -> list[tuple[Any, ...]]:
    """Read the lines of a text file as columns separated by spaces; the last column may contain spaces.

    Args:
        path: A text file.
        types: Type of every column: `int`, `float` or `str`.
    """
    rows = list[tuple[Any, ...]]()
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        cells = line.strip().split(maxsplit=len(types) - 1)
        try:
            rows.append(tuple(convert(cell) for convert, cell in zip(types, cells, strict=True)))
        except ValueError:
            raise damaged(path, f"expected {len(types)} columns in line {number}, got {line[:80]!r}") from None
    if not rows:
        raise damaged(path, "it is empty")
    return rows


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    try:
        return parse_json(_read_text(path))
    except ValueError as error:
        raise damaged(path, f"expected JSON, {error}") from None


def read_matlab(path: Path, *names: str) -> list[list[Any]]:
    """Read variables of a MATLAB file as lists.

    Raises:
        MissingExtraError: SciPy is not installed.
    """
    try:
        from scipy.io import loadmat  # noqa: PLC0415 (an extra)
    except ImportError:
        raise MissingExtraError(f"reading {path.name}, a MATLAB file,", "matlab") from None
    # Read here, so that all errors of SciPy are about the content.
    file = BytesIO(regular_file(path).read_bytes())
    try:
        content = loadmat(file, squeeze_me=True)
        return [np.atleast_1d(content[name]).tolist() for name in names]
    except Exception as error:  # OSError, ValueError, KeyError, TypeError, zlib.error, ...
        raise damaged(path, f"expected a MATLAB file with {', '.join(names)}, {error!r}") from error


def class_names_by_label(pairs: Sequence[tuple[str, int]], path: Path) -> list[str]:
    """Return class names in the order of their labels, which count from 1.

    Args:
        pairs: Class name and label of every image.
        path: The file that contains them.
    """
    names = {label: name for name, label in pairs}
    if sorted(names) != list(range(1, len(names) + 1)):
        raise damaged(path, "expected labels that count from 1 without gaps")
    return [names[label] for label in sorted(names)]


def labels_by_name(names: Sequence[str], class_names: Sequence[str], path: Path) -> list[int]:
    """Return the label of every image from its class name, which was read from `path`."""
    index = {name: label for label, name in enumerate(class_names)}
    if unknown := set(names) - set(index):
        raise damaged(path, f"it names {min(unknown)!r}, which is not in the list of classes")
    return [index[name] for name in names]


def read_per_image(path: Path, images: Sequence[int], *types: Callable[[str], Any]) -> list[tuple[Any, ...]]:
    """Read a table whose first column is the number of an image; return the other columns for every image."""
    rows = {image: row for image, *row in read_table(path, int, *types)}
    missing = [image for image in images if image not in rows]
    if missing:
        raise damaged(path, f"expected a line for every image, found none for {missing[0]} and {len(missing) - 1} others")
    return [tuple(rows[image]) for image in images]


def labeled_files(
    paths: Sequence[Path],
    labels: Sequence[int],
    class_names: Sequence[str],
    transform: Transform,
    source: Path,
    boxes: Sequence[Box | None] | None = None,
    crop_to_box: bool = False,
    trimaps: Sequence[Path] | None = None,
) -> LabeledFiles:
    """Check labels and boxes, and return the files as `LabeledFiles`.

    Args:
        source: The file that contains the labels, for error messages.
        boxes: Box around the object in every file, where known.
        crop_to_box: Whether to crop every image to its box.
        trimaps: Trimap of the object in every file, if there are any.
    """
    check_labels(labels, class_names, source)
    if not labels:
        raise damaged(source, "it lists no images of this split")
    not_finite = next((box for box in boxes or () if not all(map(math.isfinite, box or ()))), None)
    if not_finite is not None:
        raise damaged(source, f"expected boxes of finite numbers, got {not_finite}")
    return LabeledFiles(paths, labels, class_names, transform, boxes, crop_to_box, trimaps)


def check_labels(labels: Sequence[Any], class_names: Sequence[str], source: Path) -> None:
    """Refuse labels that are not indices of classes."""
    wrong = [label for label in labels if type(label) is not int or not 0 <= label < len(class_names)]
    if wrong:
        raise damaged(source, f"expected classes 0 to {len(class_names) - 1}, got {wrong[0]}")


def _read_text(path: Path) -> str:
    try:
        return read_file_text(path)
    except UnicodeDecodeError:
        raise damaged(path, "expected text in UTF-8") from None

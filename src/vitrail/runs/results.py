"""The results of every image, as files: which are there and whole."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from vitrail.core.errors import CheckpointError, OutputError
from vitrail.core.files import atomic_write, output_folder, regular_file
from vitrail.explanation import Explanation, is_description
from vitrail.viz.tables import read_csv, write_csv

IMAGES_FILE = "images.csv"
UNREADABLE_FILE = "unreadable.csv"
_END_OF_PNG = b"IEND\xaeB`\x82"


@dataclass(frozen=True)
class Found:
    """What a table says of one image and method."""

    target: int
    target_name: str
    probability: float
    logit: float
    completeness_error: float | None

    @classmethod
    def of(cls, explanation: Explanation) -> "Found":
        """Of the explanation of one image."""
        target = int(explanation.targets[0])
        return cls(
            target,
            explanation.class_name(target),
            float(explanation.probabilities[0, target]),
            float(explanation.logits[0, target]),
            explanation.completeness_error(),
        )


@dataclass(frozen=True)
class MethodResults:
    """The results of one method: per image an explanation (npz and json) and an overlay, each written in one piece.

    Attributes:
        folder: Where they are.
        method: Its name.
    """

    folder: Path
    method: str

    def file(self, label: str) -> Path:
        """The arrays of an image; the other files are beside it."""
        return self.folder / f"{label}.npz"

    def read(self, label: str, source: str) -> Explanation | None:
        """What was found in an image, or None where anything is missing, damaged, or of another image."""
        arrays = self.file(label)
        try:
            with regular_file(arrays.with_suffix(".png")).open("rb") as picture:
                picture.seek(-len(_END_OF_PNG), 2)
                if picture.read() != _END_OF_PNG:
                    return None
            explanation = Explanation.load(arrays)
        except (OSError, CheckpointError):
            return None
        return explanation if (explanation.method, explanation.sources) == (self.method, (source,)) else None

    def write(self, label: str, explanation: Explanation, picture: Image.Image) -> None:
        """Write the files of one image.

        Raises:
            OutputError: One cannot be written; the others are whole.
        """
        arrays = self.file(label)
        if not arrays.parent.is_dir():
            output_folder(arrays.parent)
        explanation.save(arrays)
        with atomic_write(arrays.with_suffix(".png")) as partial:
            picture.save(partial)


def write_table(
    folder: Path,
    photos: Sequence[tuple[str, str]],
    results: Sequence[MethodResults],
    found: Mapping[str, Mapping[int, Found]],
) -> None:
    """Write a line per image that was explained: the class and its logit, and per method the file and the completeness error.

    Args:
        folder: Where to write, above the results.
        photos: Label and source of every image.
        results: Those of every method.
        found: Per method, what it found in the images by their place in `photos`.
    """
    exact = {each.method for each in results if any(f.completeness_error is not None for f in found[each.method].values())}
    head = ["image", "target", "target_name", "probability", "logit"]
    for each in results:
        head += [f"{each.method}_file", *([f"{each.method}_completeness_error"] if each.method in exact else [])]
    rows = list[list[Any]]()
    for index, (label, source) in enumerate(photos):
        first = next((found[each.method][index] for each in results if index in found[each.method]), None)
        if first is None:
            continue
        row = [source, first.target, first.target_name, f"{first.probability:.6g}", f"{first.logit:.6g}"]
        for each in results:
            one = found[each.method].get(index)
            row.append(each.file(label).relative_to(folder).as_posix() if one else "")
            if each.method in exact:
                error = one.completeness_error if one else None
                row.append("" if error is None else f"{error:.3g}")
        rows.append(row)
    write_csv(folder / IMAGES_FILE, head, rows)


def read_unreadable(folder: Path) -> set[str]:
    """The images that could not be read before; none where nothing is recorded."""
    try:
        return {row.get("image", "") for row in read_csv(regular_file(folder / UNREADABLE_FILE))}
    except (OSError, csv.Error):
        return set()


def write_unreadable(folder: Path, rows: Sequence[tuple[str, str]]) -> None:
    """Record the images that could not be read, and why."""
    if rows:
        write_csv(folder / UNREADABLE_FILE, ["image", "reason"], rows)
        return
    try:
        (folder / UNREADABLE_FILE).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot remove {folder / UNREADABLE_FILE}: {error.strerror or error}; choose another --out"
        ) from error


def remove_results(folder: Path) -> None:
    """Remove what `MethodResults` wrote, and nothing else."""
    for arrays in folder.rglob("*.npz"):
        if is_description(arrays.with_suffix(".json")):
            for suffix in (".png", ".npz", ".json"):
                arrays.with_suffix(suffix).unlink(missing_ok=True)

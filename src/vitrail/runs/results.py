"""Results per image as files: write them, and find out which are there and complete."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from vitrail.core.csv_io import read_csv, write_csv
from vitrail.core.errors import CheckpointError, ImageError, OutputError, failures_as
from vitrail.core.files import atomic_write, output_folder, regular_file
from vitrail.core.json_io import read_json
from vitrail.core.outputs import has_probabilities
from vitrail.datasets.dataset import Unreadable
from vitrail.explanation import FORMAT, Explanation

IMAGES_FILE = "images.csv"
UNREADABLE_FILE = "unreadable.csv"
END_OF_PNG = b"IEND\xaeB`\x82"


@dataclass(frozen=True)
class ImageResult:
    """The numbers of one image and method in images.csv; None where the network gives none."""

    target: int
    target_name: str
    probability: float | None
    logit: float | None
    completeness_error: float | None

    @classmethod
    def from_explanation(cls, explanation: Explanation) -> "ImageResult":
        """Take the numbers from the explanation of one image."""
        target = int(explanation.targets[0])
        return cls(
            target,
            explanation.target_name(),
            float(explanation.probabilities[0, target]) if has_probabilities(explanation.output) else None,
            None if explanation.output == "embedding" else float(explanation.logits[0, target]),
            explanation.completeness_error(),
        )


@dataclass(frozen=True)
class MethodResults:
    """The results of one method: per image an explanation (npz and json) and an overlay, each written atomically.

    Attributes:
        folder: Folder of the results.
        method: Name of the method.
    """

    folder: Path
    method: str

    def file(self, label: str) -> Path:
        """Return the path of an image's arrays; the other files lie beside it."""
        return self.folder / f"{label}.npz"

    def read(self, label: str, source: str) -> Explanation | None:
        """Read the explanation of an image; return None if a file is missing, damaged, or of another image."""
        arrays = self.file(label)
        try:
            with regular_file(arrays.with_suffix(".png")).open("rb") as picture:
                picture.seek(-len(END_OF_PNG), 2)
                if picture.read() != END_OF_PNG:
                    return None
            explanation = Explanation.load(arrays)
        except (OSError, CheckpointError):
            return None
        return explanation if (explanation.method, explanation.sources) == (self.method, (source,)) else None

    def write(self, label: str, explanation: Explanation, picture: Image.Image) -> None:
        """Write the files of one image.

        Raises:
            OutputError: A file cannot be written; those before it are complete.
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
    methods: Sequence[MethodResults],
    results: Mapping[str, Mapping[int, ImageResult]],
) -> None:
    """Write images.csv: one row per explained image with class, logit, and per method the file and the completeness error.

    Args:
        photos: Label and source of every image.
        results: By method, the numbers of each image, by index in `photos`.
    """
    complete = {
        method.method
        for method in methods
        if any(result.completeness_error is not None for result in results[method.method].values())
    }
    head = ["image", "target", "target_name", "probability", "logit"]
    for method in methods:
        head.append(f"{method.method}_file")
        head += [f"{method.method}_completeness_error"] if method.method in complete else []
    rows = list[list[Any]]()
    for index, (label, source) in enumerate(photos):
        first = next((results[method.method][index] for method in methods if index in results[method.method]), None)
        if first is None:
            continue
        numbers = ["" if value is None else f"{value:.6g}" for value in (first.probability, first.logit)]
        row = [source, first.target, first.target_name, *numbers]
        for method in methods:
            result = results[method.method].get(index)
            row.append(method.file(label).relative_to(folder).as_posix() if result else "")
            if method.method in complete:
                error = result.completeness_error if result else None
                row.append("" if error is None else f"{error:.3g}")
        rows.append(row)
    write_csv(folder / IMAGES_FILE, head, rows)


def read_unreadable(folder: Path) -> set[str]:
    """Return the images that an earlier run could not read; none if there is no record."""
    try:
        return {row.get("image", "") for row in read_csv(regular_file(folder / UNREADABLE_FILE))}
    except (OSError, csv.Error):
        return set()


def write_unreadable(folder: Path, rows: Sequence[tuple[str, str]]) -> None:
    """Write unreadable.csv: the images that could not be read, with the reasons; remove it if there are none."""
    path = folder / UNREADABLE_FILE
    if rows:
        write_csv(path, ["image", "reason"], rows)
        return
    with failures_as(OutputError, f"cannot remove {path}", "; choose another --out"):
        path.unlink(missing_ok=True)


def expect_readable(num_read: int, num_images: int, unreadable: Sequence[Unreadable]) -> None:
    """Refuse images of which none could be read.

    Raises:
        ImageError: Not a single image could be read.
    """
    if not num_read:
        raise ImageError(f"not one of {num_images} images could be read; the first: {unreadable[0].reason}")


def remove_results(folder: Path) -> None:
    """Remove the files that `MethodResults` wrote, and nothing else."""
    for arrays in folder.rglob("*.npz"):
        if _is_description(arrays.with_suffix(".json")):
            for suffix in (".png", ".npz", ".json"):
                arrays.with_suffix(suffix).unlink(missing_ok=True)


def _is_description(path: Path) -> bool:
    """Return whether a file is the .json that `Explanation.save` writes beside its arrays."""
    try:
        description = read_json(path)
    except (OSError, ValueError):
        return False
    return isinstance(description, dict) and description.get("format") == FORMAT

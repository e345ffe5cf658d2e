"""Read the explanations of a finished run by image, lazily."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

from vitrail.core.csv_io import read_csv
from vitrail.core.errors import CheckpointError, UnknownNameError
from vitrail.core.files import regular_file
from vitrail.core.json_io import read_json
from vitrail.core.registry import unknown_name
from vitrail.explanation import Explanation
from vitrail.runs.explanation_shards import read_explanations
from vitrail.runs.manifest import RUN_FILE, Manifest
from vitrail.runs.parquet_shards import read_rows
from vitrail.runs.results import IMAGES_FILE
from vitrail.runs.shards import FOLDER

MODEL_FILE = "model.json"
"""Name, class names and meaning of outputs of the model, for runs whose explanations lie in shards."""


@dataclass(frozen=True)
class ExplanationRun:
    """The explanations of a run, by method: `run["rollout"][31415]`, `run["rollout"]["cats/7.jpg"]`.

    Attributes:
        folder: The run directory.
        manifest: What was asked.
    """

    folder: Path
    manifest: Manifest

    @cached_property
    def rows(self) -> list[dict[str, str]]:
        """The rows of images.csv, one per explained image."""
        try:
            return read_csv(regular_file(self.folder / IMAGES_FILE))
        except (OSError, csv.Error) as error:
            raise CheckpointError(
                f"cannot read {self.folder / IMAGES_FILE}: {error}; run the same `vitrail explain` again to finish the run"
            ) from error

    @cached_property
    def images(self) -> list[str]:
        """File of every explained image, relative to the data."""
        return [row["image"] for row in self.rows]

    @cached_property
    def index(self) -> dict[str, int]:
        """Index of every image by its file."""
        return {name: index for index, name in enumerate(self.images)}

    @cached_property
    def names(self) -> dict[str, Any]:
        """Model, class names and output, as `Explanation` takes them."""
        described = read_json(self.folder / MODEL_FILE)
        return described | {"class_names": tuple(described["class_names"])}

    @property
    def in_shards(self) -> bool:
        """Whether explanations lie in shards, or in files of their own."""
        return "file_format" in self.manifest.settings

    @property
    def is_parquet(self) -> bool:
        """Whether shards are Parquet files."""
        return bool(self.manifest.settings.get("file_format") == "parquet")

    def __getitem__(self, method: str) -> "MethodExplanations":
        if method not in self.manifest.methods:
            raise unknown_name("method of this run", method, list(self.manifest.methods))
        return MethodExplanations(self, method)

    def __iter__(self) -> Iterator[str]:
        return iter(self.manifest.methods)

    def __len__(self) -> int:
        return len(self.manifest.methods)


@dataclass(frozen=True)
class MethodExplanations:
    """The explanations of all images by one method; each is read when it is asked for."""

    run: ExplanationRun
    method: str

    def __len__(self) -> int:
        return len(self.run.images)

    @overload
    def __getitem__(self, image: int | str) -> Explanation: ...
    @overload
    def __getitem__(self, image: slice) -> list[Explanation]: ...
    def __getitem__(self, image: int | str | slice) -> Explanation | list[Explanation]:
        """Return the explanation of an image, by index or by file name.

        Raises:
            IndexError: There is no such index.
            UnknownNameError: There is no such file in the run.
            CheckpointError: The result is damaged or missing.
        """
        if isinstance(image, slice):
            return [self[index] for index in range(*image.indices(len(self)))]
        if isinstance(image, str):
            if image not in self.run.index:
                raise UnknownNameError(f"no image {image!r} in {self.run.folder}; expected a file as images.csv names it")
            image = self.run.index[image]
        row = self.run.rows[image]
        if not self.run.in_shards:
            return Explanation.load(self.run.folder / row[f"{self.method}_file"])
        return next(self._read_shard(row["shard"], int(row["row"])))

    def __iter__(self) -> Iterator[Explanation]:
        """Read all explanations in order; a shard is opened once."""
        if not self.run.in_shards:
            yield from (self[index] for index in range(len(self)))
            return
        for name in dict.fromkeys(row["shard"] for row in self.run.rows):
            yield from self._read_shard(name)

    def _read_shard(self, name: str, row: int | None = None) -> Iterator[Explanation]:
        read = read_rows if self.run.is_parquet else read_explanations
        return read(self.run.folder / FOLDER / name, self.method, self.run.names, row)


def open_run(path: str | Path) -> ExplanationRun:
    """Open the run directory of `vitrail explain --data`, to read its explanations by image.

    Args:
        path: The run directory.

    Raises:
        CheckpointError: There is no finished run of explanations.

    Example:
        >>> import vitrail
        >>> run = vitrail.open_run("vitrail-out")  # doctest: +SKIP
        >>> run["rollout"]["cats/7.jpg"].relevance.shape  # doctest: +SKIP
    """
    folder = Path(path)
    manifest = Manifest.read(folder)
    if manifest is None or not manifest.methods or not (folder / IMAGES_FILE).exists():
        raise CheckpointError(
            f"expected the folder of a finished `vitrail explain --data` ({RUN_FILE} and {IMAGES_FILE}), got {folder}"
        )
    return ExplanationRun(folder, manifest)

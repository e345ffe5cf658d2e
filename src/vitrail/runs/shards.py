"""The results of one batch of images as a file: runs resume from shards, and processes exchange them."""

import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from vitrail.core.errors import OutputError
from vitrail.core.files import atomic_write, output_folder, regular_file
from vitrail.core.json_io import json_text, parse_json
from vitrail.datasets.dataset import Unreadable

FOLDER = "shards"

S = TypeVar("S", bound="Shard")


@dataclass(frozen=True, eq=False)
class Shard:
    """Abstract: what a run keeps of one batch. The fields of a subclass are arrays, stored under their names.

    Attributes:
        unreadable: Files of the batch that were skipped.
    """

    unreadable: tuple[Unreadable, ...] = field(default=(), kw_only=True)

    @property
    def num_images(self) -> int:
        """Number of images that were read."""
        indices: Sized = self.indices  # type: ignore[attr-defined]  # Which all kinds of shards but one have.
        return len(indices)

    def to_arrays(self) -> dict[str, Any]:
        """Return the arrays to store, by name."""
        return {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "unreadable"}

    @classmethod
    def from_arrays(cls: type[S], arrays: Mapping[str, Any], unreadable: tuple[Unreadable, ...]) -> S:
        """Restore a shard from its arrays."""
        return cls(
            **{entry.name: arrays[entry.name] for entry in fields(cls) if entry.name != "unreadable"}, unreadable=unreadable
        )

    def without_bulk(self: S) -> S:
        """Return what stays in memory during a run; the rest is read from the file again."""
        return self


@dataclass(frozen=True)
class ShardStore(Generic[S]):
    """The shards of a run, in a folder that all processes share.

    Attributes:
        folder: The run directory.
        key: Identifies the run; shards with another key do not count.
        kind: Class of the shards.
    """

    suffix: ClassVar[str] = ".npz"
    """End of the names of its files."""

    folder: Path
    key: str
    kind: type[S]

    def file(self, number: int) -> Path:
        """Return the path of a batch's shard."""
        return self.folder / FOLDER / f"{number:06d}{self.suffix}"

    def load_finished(self, num_shards: int) -> dict[int, S]:
        """Load the shards that are there, without their bulk, by number."""
        output_folder(self.folder / FOLDER)
        shards = ((number, self.load(number)) for number in range(num_shards))
        return {number: shard.without_bulk() for number, shard in shards if shard is not None}

    def save(self, number: int, shard: S) -> None:
        """Write a shard atomically.

        Raises:
            OutputError: It cannot be written.
        """
        arrays = shard.to_arrays()
        arrays["key"] = np.array(self.key)
        # File names need not be UTF-8; JSON escapes what is not.
        arrays["unreadable"] = np.array(json_text(shard.unreadable))
        with atomic_write(self.file(number)) as partial:
            np.savez_compressed(partial, **arrays)

    def load(self, number: int) -> S | None:
        """Read a shard; return None if it is missing, damaged, or of another run: its batch has to be computed again."""
        try:
            with np.load(regular_file(self.file(number)), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            if str(arrays.pop("key")) != self.key:
                return None
            unreadable = tuple(Unreadable(*entry) for entry in parse_json(str(arrays.pop("unreadable"))))
            return self.kind.from_arrays(arrays, unreadable)
        except (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
            return None  # An archive can be damaged in many ways.

    def read(self, number: int) -> S:
        """Read a shard that this or another process has written.

        Raises:
            OutputError: It is not there.
        """
        shard = self.load(number)
        if shard is None:
            raise OutputError(
                f"expected {self.file(number)}, written by another process; give all processes an --out that they share"
            )
        return shard

    def read_all(self, num_shards: int) -> Iterator[S]:
        """Read all shards with their bulk, one after the other."""
        return (self.read(number) for number in range(num_shards))


def remove_shards(folder: Path) -> None:
    """Remove all shards of a run directory, of whatever run."""
    for path in (folder / FOLDER).glob("[0-9]" * 6 + ".*"):
        path.unlink()


def list_unreadable(shards: Sequence[Shard]) -> list[Unreadable]:
    """Return the files that were skipped, in the order of the images."""
    return [file for shard in shards for file in shard.unreadable]

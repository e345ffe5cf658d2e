"""The results of one batch of images as a file: runs resume from these, and processes exchange them."""

import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vitrail.core.errors import InvalidInputError
from vitrail.core.files import atomic_write, regular_file
from vitrail.core.json_io import json_text, parse_json
from vitrail.datasets.dataset import Unreadable

FOLDER = "parts"

ARRAYS = {"places": "indices", "targets": "targets", "values": "values", "seconds": "seconds"}
"""Names of arrays in a file, and the attributes they hold."""


@dataclass(frozen=True, eq=False)
class CurveShard:
    """The curves of a protocol: points, and the scores of image and baseline."""

    fractions: Float[np.ndarray, " points"]
    scores: Float[np.ndarray, "methods images curves points"]
    ends: Float[np.ndarray, "methods images curves 2"]


@dataclass(frozen=True, eq=False)
class Shard:
    """The results of one batch of images.

    Attributes:
        indices: Indices of the images in the data set, ascending.
        targets: Explained class of every image.
        values: One number per method, image and column; NaN where it is undefined.
        seconds: Time of the explanations, per method.
        curves: Curves by protocol.
        effect: In the first batch, if precision is reduced: the mean difference in magnitude that this makes, per column.
        unreadable: Files of the batch that were skipped.
    """

    indices: Int[np.ndarray, " images"]
    targets: Int[np.ndarray, " images"]
    values: Float[np.ndarray, "methods images columns"]
    seconds: Float[np.ndarray, " methods"]
    curves: Mapping[str, CurveShard] = field(default_factory=dict)
    effect: Float[np.ndarray, " columns"] | None = None
    unreadable: tuple[Unreadable, ...] = ()

    def save(self, path: Path, key: str = "") -> None:
        """Write the shard atomically, with the key of its run."""
        arrays: dict[str, Any] = {name: getattr(self, attribute) for name, attribute in ARRAYS.items()}
        if self.effect is not None:
            arrays["effect"] = self.effect
        for protocol, curves in self.curves.items():
            arrays |= {f"{protocol}.{name}": getattr(curves, name) for name in ("fractions", "scores", "ends")}
        arrays["key"] = np.array(key)
        # File names need not be UTF-8; JSON escapes what is not.
        arrays["unreadable"] = np.array(json_text(self.unreadable))
        with atomic_write(path) as partial:
            np.savez_compressed(partial, **arrays)

    @classmethod
    def load(cls, path: Path, with_curves: bool = True, key: str = "") -> "Shard | None":
        """Read a shard; return None if it is missing, damaged, or of another run: its batch has to be measured again.

        Args:
            path: The file.
            with_curves: Whether to keep the curves, which take most of the memory; they are read in any case, to verify the file.
            key: The key of the run.
        """
        try:
            with np.load(regular_file(path), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            if str(arrays["key"]) != key:
                return None
            protocols = [name.removesuffix(".fractions") for name in arrays if name.endswith(".fractions") and with_curves]
            return cls(
                **{attribute: arrays[name] for name, attribute in ARRAYS.items()},
                curves={
                    protocol: CurveShard(*(arrays[f"{protocol}.{name}"] for name in ("fractions", "scores", "ends")))
                    for protocol in protocols
                },
                effect=arrays.get("effect"),
                unreadable=tuple(Unreadable(*entry) for entry in parse_json(str(arrays["unreadable"]))),
            )
        except (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
            return None  # An archive can be damaged in many ways.

    def without_curves(self) -> "Shard":
        """Return the shard without its curves, which take most of the memory."""
        return replace(self, curves={})


def expect_one_grid(protocol: str, fractions: Iterable[Float[np.ndarray, " points"]]) -> None:
    """Refuse curves with different points, which cannot be averaged.

    Raises:
        InvalidInputError: The curves come from relevance maps of several grids, and their points are counted in cells.
    """
    first, *others = fractions
    if not all(np.array_equal(first, other) for other in others):
        raise InvalidInputError(
            f"expected maps of one grid for {protocol}, whose points are counted in cells, got several grids; score these methods or "
            "images separately, or use a protocol with a number of steps or with shares"
        )


def shard_file(folder: Path, number: int) -> Path:
    """Return the path of a batch's results."""
    return folder / FOLDER / f"{number:06d}.npz"

"""What is known of one batch of images, as a file: what makes a run resumable, and as good on many processes as on one."""

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


@dataclass(frozen=True, eq=False)
class CurveShard:
    """The curves of a protocol: points, and the scores of image and baseline."""

    fractions: Float[np.ndarray, " points"]
    scores: Float[np.ndarray, "methods images curves points"]
    ends: Float[np.ndarray, "methods images curves 2"]


@dataclass(frozen=True, eq=False)
class Shard:
    """What was measured of the images of one batch.

    Attributes:
        places: Of its images in the set, rising.
        targets: The explained class of every image.
        values: A number per method, image and column; NaN where it is undefined.
        seconds: Per method, what its explanations took.
        curves: By protocol.
        effect: Of the first batch, where precision is reduced: per column the mean difference that this makes, in magnitude.
        unreadable: Files of the batch that were left out.
    """

    places: Int[np.ndarray, " images"]
    targets: Int[np.ndarray, " images"]
    values: Float[np.ndarray, "methods images columns"]
    seconds: Float[np.ndarray, " methods"]
    curves: Mapping[str, CurveShard] = field(default_factory=dict)
    effect: Float[np.ndarray, " columns"] | None = None
    unreadable: tuple[Unreadable, ...] = ()

    def save(self, path: Path, key: str = "") -> None:
        """Write it in one piece; the key tells the run that it belongs to."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in ("places", "targets", "values", "seconds")}
        if self.effect is not None:
            arrays["effect"] = self.effect
        for protocol, curves in self.curves.items():
            arrays |= {f"{protocol}.{name}": getattr(curves, name) for name in ("fractions", "scores", "ends")}
        arrays["key"] = np.array(key)
        # Names of files need not be UTF-8; JSON escapes what is not.
        arrays["unreadable"] = np.array(json_text(self.unreadable))
        with atomic_write(path) as partial:
            np.savez_compressed(partial, **arrays)

    @classmethod
    def load(cls, path: Path, with_curves: bool = True, key: str = "") -> "Shard | None":
        """Read what `save` wrote, or None where it is missing, damaged, or of another run: then the batch is to be measured again.

        Args:
            path: The file.
            with_curves: Whether to keep the curves, which are nearly all of it; they are read in any case, to see that they are whole.
            key: Of the run.
        """
        try:
            with np.load(regular_file(path), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            if str(arrays["key"]) != key:
                return None
            protocols = [name.removesuffix(".fractions") for name in arrays if name.endswith(".fractions") and with_curves]
            return cls(
                **{name: arrays[name] for name in ("places", "targets", "values", "seconds")},
                curves={
                    name: CurveShard(*(arrays[f"{name}.{each}"] for each in ("fractions", "scores", "ends")))
                    for name in protocols
                },
                effect=arrays.get("effect"),
                unreadable=tuple(Unreadable(*entry) for entry in parse_json(str(arrays["unreadable"]))),
            )
        except (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error):
            return None  # An archive can be damaged in many ways.

    def without_curves(self) -> "Shard":
        """The same, and little to keep."""
        return replace(self, curves={})


def expect_one_grid(protocol: str, fractions: Iterable[Float[np.ndarray, " points"]]) -> None:
    """Refuse curves whose points lie elsewhere: a mean over them would be of nothing.

    Raises:
        InvalidInputError: They are of maps of several grids, where points are counted in cells.
    """
    first, *others = fractions
    if not all(np.array_equal(first, other) for other in others):
        raise InvalidInputError(
            f"expected maps of one grid for {protocol}, whose points are counted in cells, got maps of several; score their methods or "
            "images apart, or by a protocol with steps or shares"
        )


def shard_file(folder: Path, number: int) -> Path:
    """Where the results of a batch are."""
    return folder / FOLDER / f"{number:06d}.npz"

"""The scores of one batch of images, as a shard of a scoring run."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vitrail.core.errors import InvalidInputError
from vitrail.datasets.dataset import Unreadable
from vitrail.runs.shards import Shard

ARRAYS = ("indices", "targets", "values", "seconds")
CURVES = ("fractions", "scores", "ends")


@dataclass(frozen=True, eq=False)
class CurveShard:
    """The curves of a protocol: points, and the scores of image and baseline."""

    fractions: Float[np.ndarray, " points"]
    scores: Float[np.ndarray, "methods images curves points"]
    ends: Float[np.ndarray, "methods images curves 2"]


@dataclass(frozen=True, eq=False)
class ScoreShard(Shard):
    """The scores of one batch of images.

    Attributes:
        indices: Indices of the images in the data set, ascending.
        targets: Explained class of every image.
        values: One number per method, image and column; NaN where it is undefined. None without the bulk.
        seconds: Time of the explanations, per method.
        curves: Curves by protocol.
        effect: In the first batch, if precision is reduced: the mean difference in magnitude that this makes, per column.
    """

    indices: Int[np.ndarray, " images"]
    targets: Int[np.ndarray, " images"]
    values: Float[np.ndarray, "methods rows columns"]
    seconds: Float[np.ndarray, " methods"]
    curves: Mapping[str, CurveShard] = field(default_factory=dict)
    effect: Float[np.ndarray, " columns"] | None = None

    def to_arrays(self) -> dict[str, Any]:
        arrays = {name: getattr(self, name) for name in ARRAYS}
        if self.effect is not None:
            arrays["effect"] = self.effect
        for protocol, curves in self.curves.items():
            arrays |= {f"{protocol}.{name}": getattr(curves, name) for name in CURVES}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any], unreadable: tuple[Unreadable, ...]) -> "ScoreShard":
        protocols = [name.removesuffix(".fractions") for name in arrays if name.endswith(".fractions")]
        return cls(
            **{name: arrays[name] for name in ARRAYS},
            curves={protocol: CurveShard(*(arrays[f"{protocol}.{name}"] for name in CURVES)) for protocol in protocols},
            effect=arrays.get("effect"),
            unreadable=unreadable,
        )

    def without_bulk(self) -> "ScoreShard":
        # They take most of the memory. A copy, since a view would keep them.
        return replace(self, values=self.values[:, :0].copy(), curves={})


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

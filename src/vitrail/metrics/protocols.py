"""Protocols by name: frozen descriptions of what is removed, in which steps, and what is measured."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.errors import InvalidInputError
from vitrail.registry import Registry
from vitrail.types import Baseline, Images

Order = Literal["most", "least"]
Score = Literal["probability", "logit"]

BASELINES: Registry[Callable[[Images], Baseline]] = Registry("baseline")
"""What replaces removed content: from normalised images to as many images, or to one that serves all."""


@BASELINES.register("zero")
def zero_baseline(images: Images) -> Baseline:
    """Zero after normalisation: the mean colour of the training data. Often called "black"."""
    return torch.zeros_like(images[:1])


@BASELINES.register("blur")
def blur_baseline(images: Images) -> Baseline:
    """The normalised image blurred by an 11x11 Gaussian of sigma 5, padded with zeros.

    Source: Petsiuk et al. 2018 (RISE), arXiv:1806.07421; their kernel folds the tails beyond 11 pixels back inside.
    """
    channels = images.shape[1]
    across = _folded_gaussian(11, 5.0).to(images).expand(channels, 1, 1, -1)
    blurred = nn.functional.conv2d(images, across, padding=(0, 5), groups=channels)
    return nn.functional.conv2d(blurred, across.mT, padding=(5, 0), groups=channels)


def _folded_gaussian(size: int, sigma: float) -> Float[Tensor, " size"]:
    """A Gaussian of radius 4 sigma, reflected at the ends of `size` cells until it lies inside; sums to 1."""
    offsets = torch.arange(-int(4 * sigma), int(4 * sigma) + 1, dtype=torch.float64)
    weights = torch.exp(-(offsets**2) / (2 * sigma**2))
    at = (offsets.long() + size // 2) % (2 * size)
    inside = torch.where(at < size, at, 2 * size - 1 - at)
    return torch.zeros(size, dtype=torch.float64).index_add(0, inside, weights / weights.sum())


@dataclass(frozen=True)
class Protocol:
    """An insertion/deletion protocol.

    Attributes:
        description: One line for lists.
        source: Paper or published code.
        num_steps: Steps of the curve; it has one point more.
        baselines: Names in `BASELINES`; every one gives an insertion and a deletion curve.
        score: Softmax probability or logit of the explained class.
        order: "most": the most relevant cell changes first; "least": the least relevant.
    """

    description: str
    source: str
    num_steps: int = 196
    baselines: tuple[str, ...] = ("zero", "blur")
    score: Score = "probability"
    order: Order = "most"

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise InvalidInputError(f"expected at least 1 step, got {self.num_steps}")
        for name in self.baselines:
            BASELINES[name]
        if self.score not in ("probability", "logit") or self.order not in ("most", "least"):
            raise InvalidInputError(
                f"expected score 'probability' or 'logit' and order 'most' or 'least', got {self.score!r} and {self.order!r}"
            )

    def better(self, direction: str) -> str:
        """Whether a "higher" or a "lower" area speaks for the map, for "insertion" or "deletion"."""
        return "higher" if (direction == "insertion") == (self.order == "most") else "lower"

    def changed(self, **fields: Any) -> "Protocol":
        """The same protocol with other fields; None keeps a field as it is."""
        return replace(self, **{name: value for name, value in fields.items() if value is not None})


PROTOCOLS: Registry[Protocol] = Registry("protocol")
"""Published protocols, so that tables can be compared."""

PROTOCOLS.register("hit")(
    Protocol(
        description="insertion and deletion on the map's own grid, 196 steps, zero and blur, probability, trapezoid on [0, 1]",
        source="Jeanneret et al. 2025, arXiv:2502.17196, and its published evaluation",
    )
)

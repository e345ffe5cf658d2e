"""Protocols by name: frozen descriptions of what is removed, in which steps, and what is measured."""

from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from vitrail.baselines import BASELINES
from vitrail.errors import InvalidInputError
from vitrail.registry import Registry, unknown_name

Score = Literal["probability", "logit", "kl"]
Order = Literal["most", "least"]
Direction = Literal["insertion", "deletion"]


@dataclass(frozen=True)
class Curve:
    """One curve of a protocol.

    Attributes:
        baseline: Name in `vitrail.baselines`.
        score: Softmax probability or logit of the explained class; or "kl", the divergence KL(image || changed image) between
            the probabilities of all classes, in nats.
        order: "most": the most relevant cell changes first; "least": the least relevant.
        direction: "insertion": from the baseline to the image; "deletion": from the image to the baseline.
    """

    baseline: str
    score: Score = "probability"
    order: Order = "most"
    direction: Direction = "deletion"

    @property
    def name(self) -> str:
        """Direction and baseline, then what is unusual: `insertion_zero`, `deletion_noise_least`, `deletion_noise_least_kl`."""
        unusual = [word for word, usual in ((self.order, "most"), (self.score, "probability")) if word != usual]
        return "_".join([self.direction, self.baseline, *unusual])

    @property
    def better(self) -> Literal["higher", "lower"]:
        """Whether a higher or a lower area speaks for the map."""
        # What matters has come, or has not yet gone: then the score should be near the image's, where KL is low.
        near_the_image = (self.direction == "insertion") == (self.order == "most")
        return "higher" if near_the_image == (self.score != "kl") else "lower"

    @property
    def normalised(self) -> bool:
        """Whether there is a normalised area: KL is a distance from the image already, and has no level to rise to."""
        return self.score != "kl"


@dataclass(frozen=True)
class Protocol:
    """An insertion/deletion protocol. Every baseline gives a curve for every score, order and direction.

    Attributes:
        description: One line for lists.
        source: Paper or published code.
        num_steps: Steps of a curve, which has one point more; or None.
        cells_per_step: Cells that change at a step, on any grid, the last step taking what is left; or None. One of the two is given.
        baselines: Names in `vitrail.baselines`.
        scores: What is measured: "probability", "logit", "kl"; see `Curve`.
        orders: Which cells change first: "most" relevant, "least" relevant.
        directions: "insertion", "deletion".
    """

    description: str
    source: str
    num_steps: int | None = None
    cells_per_step: int | None = None
    baselines: tuple[str, ...] = ("zero", "blur")
    scores: tuple[Score, ...] = ("probability",)
    orders: tuple[Order, ...] = ("most",)
    directions: tuple[Direction, ...] = ("insertion", "deletion")

    def __post_init__(self) -> None:
        if (self.num_steps is None) == (self.cells_per_step is None):
            raise InvalidInputError(
                f"expected either num_steps or cells_per_step, got num_steps={self.num_steps} and cells_per_step={self.cells_per_step}"
            )
        for count, what in ((self.num_steps, "step"), (self.cells_per_step, "cell per step")):
            if count is not None and count < 1:
                raise InvalidInputError(f"expected at least 1 {what}, got {count}")
        known = {
            "baseline": list(BASELINES),
            "score": get_args(Score),
            "order": get_args(Order),
            "direction": get_args(Direction),
        }
        for kind, choices in known.items():
            chosen = getattr(self, f"{kind}s")
            if isinstance(chosen, str) or not chosen or len(set(chosen)) < len(chosen):
                raise InvalidInputError(
                    f"expected {kind}s as a tuple of {', '.join(choices)}, each at most once, got {chosen!r}"
                )
            for name in chosen:
                if name not in choices:
                    raise unknown_name(kind, name, list(choices))

    @property
    def curves(self) -> tuple[Curve, ...]:
        """What is measured, in the order of all arrays and tables: by baseline, then score, then order, then direction."""
        return tuple(Curve(*each) for each in product(self.baselines, self.scores, self.orders, self.directions))

    def thresholds(self, num_cells: int) -> Float[Tensor, " s"]:
        """At every point of a curve, the number of cells that have changed; may be fractional. On the CPU."""
        if self.cells_per_step is not None:
            counts = torch.arange(-(-num_cells // self.cells_per_step) + 1) * self.cells_per_step
            return counts.clamp(max=num_cells).float()
        num_points = self.num_steps + 1  # type: ignore[operator]  # one of the two is given
        # The published thresholds are float32; rounding them the same way keeps whole numbers whole.
        return torch.linspace(0, num_cells, num_points, dtype=torch.float64).float()

    def fractions(self, num_cells: int, like: Tensor) -> Float[Tensor, " s"]:
        """The same as a share of all cells, with type and device of `like`."""
        if self.cells_per_step is not None:
            return self.thresholds(num_cells).to(like) / num_cells
        num_points = self.num_steps + 1  # type: ignore[operator]  # one of the two is given
        return torch.linspace(0, 1, num_points, dtype=like.dtype, device=like.device)

    def changed(self, **fields: Any) -> "Protocol":
        """The same protocol with other fields; None keeps a field as it is, and num_steps and cells_per_step replace each other."""
        given = {name: value for name, value in fields.items() if value is not None}
        for one, other in (("num_steps", "cells_per_step"), ("cells_per_step", "num_steps")):
            if one in given:
                given.setdefault(other, None)
        return replace(self, **given)


PROTOCOLS: Registry[Protocol] = Registry("protocol")
"""Published protocols, so that tables can be compared."""

PROTOCOLS.register("hit")(
    Protocol(
        description="insertion and deletion on the map's own grid, 196 steps, zero and blur, probability, trapezoid on [0, 1]",
        source="Jeanneret et al. 2025, arXiv:2502.17196, and its published evaluation",
        num_steps=196,
    )
)

PROTOCOLS.register("diffmask")(
    Protocol(
        description="deletion, 7 cells a step, most relevant first (positive) and least (negative), noise, probability and KL",
        source="Nalmpantis et al. 2023, arXiv:2304.06391, and its published evaluation",
        cells_per_step=7,
        baselines=("noise",),
        scores=("probability", "kl"),
        orders=("most", "least"),
        directions=("deletion",),
    )
)

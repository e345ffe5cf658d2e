"""Protocols by name: frozen descriptions of what is removed, in which steps, and what is measured."""

from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from vitrail.core.baselines import baseline_names
from vitrail.core.errors import InvalidInputError
from vitrail.core.registry import Registry, unknown_name

Score = Literal["probability", "logit", "top1", "kl"]
Order = Literal["most", "least"]
Direction = Literal["insertion", "deletion"]
Unit = Literal["cells", "pixels"]
Axis = Literal["share", "percent", "mean"]

REMOVED = "removed"
"""In place of a baseline: patches are taken out, and nothing takes their place."""


@dataclass(frozen=True)
class Curve:
    """One curve of a protocol.

    Attributes:
        baseline: Name that `Classifier.baseline` takes; or "removed", where patches are taken out of the network's tokens.
        score: Probability or logit of the explained class; "top1", 1 where that class is the most probable one, else 0, and of a
            network of a single logit 1 where its probability is at least 0.5; or "kl", the divergence KL(image || changed image)
            between the probabilities of all classes, in nats.
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
    def normalized(self) -> bool:
        """Whether there is a normalized area.

        KL is a distance from the image already, top-1 has no level between 0 and 1, and where patches are taken out, no baseline
        says what an empty image is worth.
        """
        return self.score in ("probability", "logit") and self.baseline != REMOVED


@dataclass(frozen=True)
class Protocol:
    """An insertion/deletion protocol. Every baseline gives a curve for every score, order and direction, if not said otherwise.

    Exactly one of `num_steps`, `cells_per_step` and `shares` is given.

    Attributes:
        description: One line for lists.
        source: Paper or published code.
        num_steps: Steps of a curve, which has one point more.
        cells_per_step: Cells that change at a step, on any grid, the last step taking what is left.
        shares: Shares of the cells (pixels) that have changed at the points of a curve, rising, in [0, 1]; counts are rounded down.
        unit: "cells": whole cells of the map's own grid change; "pixels": pixels of the enlarged map, one by one.
        smooth: Of pixels: whether the map is enlarged smoothly (bilinear), or every cell's pixels change one after the other.
        axis: What areas are taken over: "share", from 0 to 1; "percent", from 0 to 100; "mean": over the points there are,
            divided by their span.
        from_zero: Whether the area of a deletion begins with a point at (0, 0), as one published code has it.
        baselines: Names that `Classifier.baseline` takes; or "removed".
        scores: What is measured: "probability", "logit", "top1", "kl"; see `Curve`.
        orders: Which cells change first: "most" relevant, "least" relevant.
        directions: "insertion", "deletion".
        without: Curves that are left out, by direction and baseline: "insertion_zero".
    """

    description: str
    source: str
    num_steps: int | None = None
    cells_per_step: int | None = None
    shares: tuple[float, ...] | None = None
    unit: Unit = "cells"
    smooth: bool = False
    axis: Axis = "share"
    from_zero: bool = False
    baselines: tuple[str, ...] = ("zero", "blur")
    scores: tuple[Score, ...] = ("probability",)
    orders: tuple[Order, ...] = ("most",)
    directions: tuple[Direction, ...] = ("insertion", "deletion")
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if sum(self._paces().values()) != 1:
            raise InvalidInputError(
                f"expected one of num_steps, cells_per_step and shares, got num_steps={self.num_steps}, "
                f"cells_per_step={self.cells_per_step} and shares={self.shares}"
            )
        for count, what in ((self.num_steps, "step"), (self.cells_per_step, "cell per step")):
            if count is not None and (not isinstance(count, int) or count < 1):
                raise InvalidInputError(f"expected at least 1 {what}, got {count!r}")
        shares = self.shares or (0.0, 1.0)
        if len(shares) < 2 or list(shares) != sorted(set(shares)) or shares[0] < 0 or shares[-1] > 1:
            raise InvalidInputError(f"expected at least two shares, rising, between 0 and 1, got {self.shares}")
        known = {
            "baseline": [*baseline_names(), REMOVED],
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
        for kind, value, allowed in (("unit", self.unit, get_args(Unit)), ("axis", self.axis, get_args(Axis))):
            if value not in allowed:
                raise unknown_name(kind, value, list(allowed))
        if self.unit == "pixels" and REMOVED in self.baselines:
            raise InvalidInputError("expected cells as the unit where patches are removed, got pixels")
        if unknown := set(self.without) - {f"{side}_{base}" for side in self.directions for base in self.baselines}:
            raise InvalidInputError(
                f"expected without as directions and baselines of the protocol, got {', '.join(sorted(unknown))}"
            )
        if idle := [name for name in self.baselines if not self.list_directions(name)]:
            raise InvalidInputError(f"expected a curve of every baseline, got none of {', '.join(idle)}; leave it out")

    @property
    def curves(self) -> tuple[Curve, ...]:
        """What is measured, in the order of all arrays and tables: by baseline, then score, then order, then direction."""
        every = (Curve(*each) for each in product(self.baselines, self.scores, self.orders, self.directions))
        return tuple(curve for curve in every if f"{curve.direction}_{curve.baseline}" not in self.without)

    def list_directions(self, baseline: str) -> tuple[Direction, ...]:
        """The directions in which a baseline is measured."""
        return tuple(side for side in self.directions if f"{side}_{baseline}" not in self.without)

    @property
    def largest_auc(self) -> float:
        """The area under a curve that is 1 everywhere."""
        return 100.0 if self.axis == "percent" else 1.0

    @property
    def has_ends(self) -> bool:
        """Whether a curve begins where nothing has changed, and ends where everything has."""
        return self.shares is None or (self.shares[0], self.shares[-1]) == (0, 1)

    def thresholds(self, num_cells: int) -> Float[Tensor, " s"]:
        """At every point of a curve, the number of cells (pixels) that have changed; may be fractional. On the CPU."""
        if self.shares is not None:
            # As the published codes have it, with the rounding of their products.
            return torch.tensor([int(share * num_cells) for share in self.shares], dtype=torch.float32, device="cpu")
        if self.cells_per_step is not None:
            counts = torch.arange(-(-num_cells // self.cells_per_step) + 1, device="cpu") * self.cells_per_step
            return counts.clamp(max=num_cells).float()
        num_points = self.num_steps + 1  # type: ignore[operator]  # one of the three is given
        # The published thresholds are float32; rounding them the same way keeps whole numbers whole.
        return torch.linspace(0, num_cells, num_points, dtype=torch.float64, device="cpu").float()

    def fractions(self, num_cells: int, like: Tensor) -> Float[Tensor, " s"]:
        """The same as a share of all cells, with type and device of `like`."""
        if self.shares is not None:
            return torch.tensor(self.shares, dtype=like.dtype, device=like.device)
        if self.cells_per_step is not None:
            return self.thresholds(num_cells).to(like) / num_cells
        num_points = self.num_steps + 1  # type: ignore[operator]  # one of the three is given
        return torch.linspace(0, 1, num_points, dtype=like.dtype, device=like.device)

    def changed(self, **fields: Any) -> "Protocol":
        """The same protocol with other fields; None keeps a field as it is, and another pace replaces the one there is."""
        given = {name: value for name, value in fields.items() if value is not None}
        if given.keys() & self._paces().keys():
            given = {name: given.get(name) for name in self._paces()} | given
        return replace(self, **given)

    def _paces(self) -> dict[str, bool]:
        """The ways to say at how many cells a curve has its points, and whether each is given."""
        return {name: getattr(self, name) is not None for name in ("num_steps", "cells_per_step", "shares")}


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

PROTOCOLS.register("mutex")(
    Protocol(
        description="1, 5, 10, 20 ... 100 % of the pixels of the enlarged map, zero, strong blur, noise and mean, probability, percent",
        source="MUTEX 2025, doi:10.1007/s00521-025-11591-x, and its published evaluation",
        shares=(0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0),
        unit="pixels",
        axis="percent",
        from_zero=True,
        baselines=("zero", "strong-blur", "normal-noise", "mean"),
    )
)

PROTOCOLS.register("chefer")(
    Protocol(
        description="10, 20 ... 90 % of the pixels of the smoothly enlarged map turn black, most relevant first (positive) and least "
        "(negative), top-1 hit rate, mean over the points",
        source="Chefer et al. 2021, arXiv:2012.09838, section 4.2, and its published evaluation",
        shares=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        unit="pixels",
        smooth=True,
        axis="mean",
        baselines=("black",),
        scores=("top1",),
        orders=("most", "least"),
        directions=("deletion",),
    )
)

PROTOCOLS.register("rise")(
    Protocol(
        description="224 steps of pixels of the smoothly enlarged map, insertion into the blurred image, deletion to zero, probability",
        source="Petsiuk et al. 2018, arXiv:1806.07421, and its published evaluation",
        num_steps=224,
        unit="pixels",
        smooth=True,
        without=("insertion_zero", "deletion_blur"),
    )
)

PROTOCOLS.register("tokens")(
    Protocol(
        description="20 steps, patches taken out of the ViT's tokens and put back in, at least one left, probability: no baseline",
        source="vitrail; patches are taken out as by MUTEX 2025, doi:10.1007/s00521-025-11591-x",
        num_steps=20,
        baselines=("removed",),
    )
)

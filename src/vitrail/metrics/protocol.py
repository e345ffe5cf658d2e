"""Insertion/deletion protocols: what is removed, in which steps, and what is measured."""

from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from vitrail.core.baselines import baseline_names
from vitrail.core.errors import InvalidInputError
from vitrail.core.ranking import Order
from vitrail.core.registry import unknown_name

Score = Literal["probability", "logit", "top1", "kl"]
Direction = Literal["insertion", "deletion"]
Unit = Literal["cells", "pixels"]
Axis = Literal["share", "percent", "mean"]

REMOVED = "removed"
"""Instead of a baseline: patch tokens are removed, and nothing replaces them."""

IMPUTED = "imputed"
"""Instead of a baseline: removed pixels are filled from the remaining ones, by `vitrail.core.imputation`."""


@dataclass(frozen=True)
class Curve:
    """One curve of a protocol.

    Attributes:
        baseline: Name of a baseline for `Classifier.baseline`; "imputed", which fills in removed pixels from the remaining ones; or
            "removed", which removes patch tokens from the network.
        score: "probability" or "logit" of the explained class (the value itself, for outputs without probabilities); "top1": 1 if that
            class is predicted, else 0 (for a network with a single logit: 1 if its probability is at least 0.5); "kl": KL(image ||
            changed image) over all classes, in nats. The last two are for classifiers only.
        order: "most" changes the most relevant cells first, "least" the least relevant ones.
        direction: "insertion" goes from the baseline to the image, "deletion" from the image to the baseline.
    """

    baseline: str
    score: Score = "probability"
    order: Order = "most"
    direction: Direction = "deletion"

    @property
    def name(self) -> str:
        """Direction and baseline, then order and score unless they are the usual ones: `insertion_zero`, `deletion_noise_least_kl`."""
        unusual = [word for word, usual in ((self.order, "most"), (self.score, "probability")) if word != usual]
        return "_".join([self.direction, self.baseline, *unusual])

    @property
    def better(self) -> Literal["higher", "lower"]:
        """Whether a higher or a lower AUC is better."""
        # While the relevant cells are present, the score should stay near the image's (and KL near 0).
        near_the_image = (self.direction == "insertion") == (self.order == "most")
        return "higher" if near_the_image == (self.score != "kl") else "lower"

    @property
    def normalized(self) -> bool:
        """Whether the curve can be normalized.

        KL already is a distance from the image, top-1 is 0 or 1, and without a baseline there is no score of an empty image.
        """
        return self.score in ("probability", "logit") and self.baseline != REMOVED


@dataclass(frozen=True)
class Protocol:
    """An insertion/deletion protocol: one curve for every baseline, score, order and direction.

    Exactly one of `num_steps`, `cells_per_step` and `shares` must be set.

    Attributes:
        description: One line for listings.
        source: Paper or published code.
        num_steps: Number of steps; a curve has one point more.
        cells_per_step: Number of cells that change per step, on any grid; the last step takes the remaining ones.
        shares: Share of the cells (pixels) changed at every point, ascending, in [0, 1]; counts are rounded down.
        unit: "cells" changes whole cells of the map's grid; "pixels" changes single pixels of the enlarged map.
        smooth: For pixels: enlarge the map bilinearly; otherwise all pixels of a cell have its value.
        axis: Range of the x-axis for the AUC: "share", 0 to 1; "percent", 0 to 100; "mean" divides by the span of the points.
        from_zero: Start the AUC of deletion curves at (0, 0), as the published code of MUTEX does.
        baselines: Names of baselines for `Classifier.baseline`; "imputed" or "removed".
        scores: Any of "probability", "logit", "top1", "kl"; see `Curve`.
        orders: Any of "most" and "least" relevant first.
        directions: Any of "insertion" and "deletion".
        without: Curves to leave out, by direction and baseline: "insertion_zero".
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
        if sum(self._step_rules().values()) != 1:
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
            "baseline": [*baseline_names(), IMPUTED, REMOVED],
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
            raise InvalidInputError("expected the unit cells for the baseline removed, got pixels")
        if unknown := set(self.without) - {
            f"{direction}_{baseline}" for direction in self.directions for baseline in self.baselines
        }:
            raise InvalidInputError(
                f"expected without as directions and baselines of the protocol (insertion_zero), got {', '.join(sorted(unknown))}"
            )
        if unused := [name for name in self.baselines if not self.list_directions(name)]:
            raise InvalidInputError(f"expected a curve for every baseline, got none for {', '.join(unused)}; leave it out")

    @property
    def curves(self) -> tuple[Curve, ...]:
        """All curves, in the order of all arrays and tables: by baseline, then score, then order, then direction."""
        combinations = product(self.baselines, self.scores, self.orders, self.directions)
        curves = (Curve(*combination) for combination in combinations)
        return tuple(curve for curve in curves if f"{curve.direction}_{curve.baseline}" not in self.without)

    def list_directions(self, baseline: str) -> tuple[Direction, ...]:
        """List the directions that are measured with a baseline."""
        return tuple(direction for direction in self.directions if f"{direction}_{baseline}" not in self.without)

    @property
    def largest_auc(self) -> float:
        """The AUC of a curve that is 1 everywhere."""
        return 100.0 if self.axis == "percent" else 1.0

    @property
    def has_ends(self) -> bool:
        """Whether curves include the points where nothing and where everything has changed."""
        return self.shares is None or (self.shares[0], self.shares[-1]) == (0, 1)

    def thresholds(self, num_cells: int) -> Float[Tensor, " s"]:
        """Return the number of changed cells (pixels) at every point, possibly fractional, on the CPU."""
        if self.shares is not None:
            # Truncated like in the published codes, including the rounding of the products.
            return torch.tensor([int(share * num_cells) for share in self.shares], dtype=torch.float32, device="cpu")
        if self.cells_per_step is not None:
            counts = torch.arange(-(-num_cells // self.cells_per_step) + 1, device="cpu") * self.cells_per_step
            return counts.clamp(max=num_cells).float()
        num_points = self.num_steps + 1  # type: ignore[operator]  # one of the three is set
        # The published thresholds are float32; the same rounding keeps whole numbers whole.
        return torch.linspace(0, num_cells, num_points, dtype=torch.float64, device="cpu").float()

    def fractions(self, num_cells: int, like: Tensor) -> Float[Tensor, " s"]:
        """Return the share of changed cells at every point, with dtype and device of `like`."""
        if self.shares is not None:
            return torch.tensor(self.shares, dtype=like.dtype, device=like.device)
        if self.cells_per_step is not None:
            return self.thresholds(num_cells).to(like) / num_cells
        num_points = self.num_steps + 1  # type: ignore[operator]  # one of the three is set
        return torch.linspace(0, 1, num_points, dtype=like.dtype, device=like.device)

    def changed(self, **fields: Any) -> "Protocol":
        """Return a copy with other fields.

        None keeps a field; `num_steps`, `cells_per_step` and `shares` replace each other, and curves are left out `without` baselines
        that are no longer measured.
        """
        given = {name: value for name, value in fields.items() if value is not None}
        if "baselines" in given:
            kept = tuple(curve for curve in self.without if curve.split("_", 1)[1] in given["baselines"])
            given = {"without": kept} | given
        if given.keys() & self._step_rules().keys():
            given = {name: given.get(name) for name in self._step_rules()} | given
        return replace(self, **given)

    def _step_rules(self) -> dict[str, bool]:
        """The three ways to define the points of a curve, and whether each is set."""
        return {name: getattr(self, name) is not None for name in ("num_steps", "cells_per_step", "shares")}

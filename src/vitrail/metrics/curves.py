"""The curves of a protocol, their areas and their names."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vitrail.core.registry import unknown_name
from vitrail.metrics.protocols import Protocol
from vitrail.metrics.undefined import mean_of_defined

SMALLEST_SPAN = 0.01
"""Share of a curve's range by which the scores of image and baseline have to differ, for a normalized curve to mean anything."""


@dataclass(frozen=True)
class Curves:
    """Curves of some images, by name: `curves["insertion_zero"]` has shape (b, s).

    Attributes:
        protocol: What was measured.
        fractions: Share of the cells (pixels) that have changed, at every point.
        scores: Per image and curve; the curves are those of `protocol.curves`, in that order.
        ends: Per image and curve, the score of the image as it is, and that of the baseline; NaN where there is no baseline.
    """

    protocol: Protocol
    fractions: Float[Tensor, " s"]
    scores: Float[Tensor, "b curves s"]
    ends: Float[Tensor, "b curves 2"]

    @property
    def names(self) -> tuple[str, ...]:
        """A name for every curve."""
        return tuple(curve.name for curve in self.protocol.curves)

    def __getitem__(self, name: str) -> Float[Tensor, "b s"]:
        if name not in self.names:
            raise unknown_name("curve", name, list(self.names))
        return self.scores[:, self.names.index(name)]

    def mean(self) -> Float[Tensor, "curves s"]:
        """The mean curve over images; those of which a point is undefined are left out."""
        return mean_of_defined(self.scores, self._defined(self.scores).expand_as(self.scores))

    def auc(self) -> Float[Tensor, "b curves"]:
        """Area under the raw curve, by trapezoids, over the protocol's `axis`."""
        area = torch.trapezoid(self.scores, self.fractions)
        if self.protocol.from_zero:
            # A triangle from (0, 0) to the first point.
            deletes = torch.tensor([curve.direction == "deletion" for curve in self.protocol.curves], device=area.device)
            area = area + deletes * self.fractions[0] * self.scores[..., 0] / 2
        if self.protocol.axis == "mean":
            return area / (self.fractions[-1] - self.fractions[0])
        return area * 100 if self.protocol.axis == "percent" else area

    def normalized(self) -> "Curves":
        """The same between baseline and image: `(score - baseline's) / (image's - baseline's)`.

        NaN where the two are equal or nearly so: where they differ by less than `SMALLEST_SPAN` of the range of the curve and the
        two. And for a curve that has no such form (`Curve.normalized`).
        """
        clean, empty = self.ends.unsqueeze(2).unbind(-1)
        whole = torch.cat([self.scores, self.ends], -1)
        least = (SMALLEST_SPAN * (whole.amax(-1, keepdim=True) - whole.amin(-1, keepdim=True))).clamp_min(1e-12)
        has_form = torch.tensor([[curve.normalized] for curve in self.protocol.curves], device=clean.device)
        span = (clean - empty).masked_fill(~has_form | ((clean - empty).abs() < least), torch.nan)
        ends = torch.tensor([1.0, 0.0]).to(self.ends) + 0 * span
        return replace(self, scores=(self.scores - empty) / span, ends=ends)

    def normalized_auc(self) -> Float[Tensor, "b curves"]:
        """Area under the normalized curves."""
        return self.normalized().auc()

    def mean_normalized_auc(self) -> Float[Tensor, " curves"]:
        """`normalized_auc` of the mean curve: images whose clean score is hardly above the baseline's do not dominate it."""
        return self.averaged().normalized_auc()[0]

    def averaged(self) -> "Curves":
        """The mean over images, as the curves of one; what is undefined is left out, see `mean`."""
        ends = mean_of_defined(self.ends, self._defined(self.scores).expand_as(self.ends))
        return replace(self, scores=self.mean().unsqueeze(0), ends=ends.unsqueeze(0))

    def num_undefined(self) -> dict[str, int]:
        """Of how many images an area is undefined, by the names of `areas`; those that are defined everywhere are left out."""
        counts = {name: int((~areas.isfinite()).sum()) for name, areas in self.areas().items()}
        return {name: count for name, count in counts.items() if count}

    def areas(self) -> dict[str, Float[Tensor, " b"]]:
        """Every area of every image by name: `insertion_zero`, ..., then those that exist with `normalized_` in front."""
        return self._named(self.auc(), self.normalized_auc())

    def summary(self) -> dict[str, float]:
        """Area under every mean curve, by the names of `areas`."""
        areas = self.auc()
        means = self._named(mean_of_defined(areas, areas.isfinite()), self.mean_normalized_auc())
        return {name: float(area) for name, area in means.items()}

    @staticmethod
    def _defined(scores: Float[Tensor, "b curves s"]) -> Bool[Tensor, "b curves 1"]:
        return scores.isfinite().all(-1, keepdim=True)

    def _named(self, raw: Float[Tensor, "*b curves"], normalized: Float[Tensor, "*b curves"]) -> dict[str, Tensor]:
        named = {curve.name: raw[..., i] for i, curve in enumerate(self.protocol.curves)}
        relative = ((curve, normalized[..., i]) for i, curve in enumerate(self.protocol.curves))
        return named | {f"normalized_{curve.name}": areas for curve, areas in relative if curve.normalized}

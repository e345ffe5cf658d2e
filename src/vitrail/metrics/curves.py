"""The curves of a protocol, their areas and their names."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vitrail.metrics.protocols import Protocol
from vitrail.registry import unknown_name


@dataclass(frozen=True)
class Curves:
    """Curves of some images, by name: `curves["insertion_zero"]` has shape (b, s).

    Attributes:
        protocol: What was measured.
        fractions: Share of the cells that have changed, at every point, from 0 to 1.
        scores: Per image and curve; the curves are those of `protocol.curves`, in that order.
    """

    protocol: Protocol
    fractions: Float[Tensor, " s"]
    scores: Float[Tensor, "b curves s"]

    @property
    def names(self) -> tuple[str, ...]:
        """A name for every curve."""
        return tuple(curve.name for curve in self.protocol.curves)

    def __getitem__(self, name: str) -> Float[Tensor, "b s"]:
        if name not in self.names:
            raise unknown_name("curve", name, list(self.names))
        return self.scores[:, self.names.index(name)]

    def mean(self) -> Float[Tensor, "curves s"]:
        """The mean curve over images."""
        return self.scores.mean(0)

    def auc(self) -> Float[Tensor, "b curves"]:
        """Area under the raw curve, by trapezoids, over [0, 1]."""
        return torch.trapezoid(self.scores, self.fractions)

    def normalised_auc(self) -> Float[Tensor, "b curves"]:
        """Area under `(score - baseline score) / (clean score - baseline score)`.

        NaN where the two are equal, and where a curve has no normalised area (`Curve.normalised`).
        """
        clean, empty = self._ends()
        undefined = (clean - empty).abs() < 1e-12
        undefined |= torch.tensor([not curve.normalised for curve in self.protocol.curves], device=undefined.device)
        return (self.auc() - empty) / (clean - empty).masked_fill(undefined, torch.nan)

    def mean_normalised_auc(self) -> Float[Tensor, " curves"]:
        """`normalised_auc` of the mean curve: images whose clean score is hardly above the baseline's do not dominate it."""
        return Curves(self.protocol, self.fractions, self.mean().unsqueeze(0)).normalised_auc()[0]

    def areas(self) -> dict[str, Float[Tensor, " b"]]:
        """Every area of every image by name: `insertion_zero`, ..., then those that exist with `normalised_` in front."""
        return self._named(self.auc(), self.normalised_auc())

    def summary(self) -> dict[str, float]:
        """Area under every mean curve, by the names of `areas`."""
        means = self._named(self.auc().mean(0), self.mean_normalised_auc())
        return {name: float(area) for name, area in means.items()}

    def _named(self, raw: Float[Tensor, "*b curves"], normalised: Float[Tensor, "*b curves"]) -> dict[str, Tensor]:
        named = {curve.name: raw[..., i] for i, curve in enumerate(self.protocol.curves)}
        relative = ((curve, normalised[..., i]) for i, curve in enumerate(self.protocol.curves))
        return named | {f"normalised_{curve.name}": areas for curve, areas in relative if curve.normalised}

    def _ends(self) -> tuple[Float[Tensor, "b curves"], Float[Tensor, "b curves"]]:
        """Per curve the score of the image and that of the baseline.

        Each is taken where nothing has changed yet: deletion starts at the image, insertion at the baseline. Where one of the
        two was not measured, the other ends there.
        """
        # (b, baselines and scores and orders, directions, s)
        directions = self.protocol.directions
        scores = self.scores.unflatten(1, (-1, len(directions)))
        ends = []
        for start in ("deletion", "insertion"):
            found = scores[:, :, directions.index(start), 0] if start in directions else scores[:, :, 0, -1]
            ends.append(found.repeat_interleave(len(directions), 1))
        return ends[0], ends[1]

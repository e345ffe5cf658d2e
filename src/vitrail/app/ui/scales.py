"""Color scales that several heatmaps share, so that the same color is the same number."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from vitrail.app.explain_request import ExplainResult
from vitrail.viz.overlay import Palette, heatmap

LEGEND_STEPS = 64


class Scale(NamedTuple):
    """The range of numbers that a color scale covers.

    Attributes:
        low: Number that is transparent in unsigned heatmaps; minus `high` in signed ones.
        high: Number that gets the full color.
        signed: Whether negative numbers have a color of their own.
    """

    low: float
    high: float
    signed: bool

    @classmethod
    def of(cls, relevance: Iterable[Tensor], signed: bool | None = None) -> "Scale":
        """Fit a scale to all given tensors; None looks for negative numbers."""
        numbers = torch.cat([values.flatten().float() for values in relevance])
        if bool((numbers < 0).any()) if signed is None else signed:
            largest = float(numbers.abs().max())
            return cls(-largest, largest, True)
        return cls(float(numbers.min()), float(numbers.max()), False)

    def draw(self, relevance: Tensor, palette: Palette = "color") -> Image.Image:
        """Draw a heatmap with one pixel per cell."""
        rows, cols = relevance.shape
        return heatmap(relevance, (cols, rows), "nearest", self.high, self.signed, self.low, palette)

    def draw_legend(self, palette: Palette = "color") -> Image.Image:
        """Draw the colors from low to high over gray, as they look over a photo."""
        strip = self.draw(torch.linspace(self.low, self.high, LEGEND_STEPS)[None], palette)
        return Image.alpha_composite(Image.new("RGBA", strip.size, "gray"), strip).convert("RGB")


def share_scales(sides: Sequence[ExplainResult]) -> dict[str, Scale]:
    """Fit one scale per method to the relevance of all sides; numbers of different methods have different units."""
    return {
        method: Scale.of(
            [side.explanations[method].relevance[0] for side in sides],
            any(side.explanations[method].signed for side in sides),
        )
        for method in sides[0].explanations
    }

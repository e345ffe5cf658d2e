"""One scale of colors for all maps that are to be compared."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from vitrail.viz.overlay import Palette, heatmap

LEGEND_STEPS = 64


class Scale(NamedTuple):
    """What the colors mean: the same color is the same number in every map of one scale.

    Attributes:
        low: Transparent where nothing is negative; of signed maps minus `high`.
        high: What gets the full color.
        signed: Whether numbers can speak against the class.
    """

    low: float
    high: float
    signed: bool

    @classmethod
    def of(cls, maps: Iterable[Tensor], signed: bool | None = None) -> "Scale":
        """The scale that fits all of some maps."""
        numbers = torch.cat([each.flatten().float() for each in maps])
        if bool((numbers < 0).any()) if signed is None else signed:
            most = float(numbers.abs().max())
            return cls(-most, most, True)
        return cls(float(numbers.min()), float(numbers.max()), False)

    def colors(self, relevance: Tensor, palette: Palette = "color") -> Image.Image:
        """A map in colors, a pixel a cell, transparent where it says nothing."""
        rows, cols = relevance.shape
        return heatmap(relevance, (cols, rows), "nearest", self.high, self.signed, self.low, palette)

    def legend(self, palette: Palette = "color") -> Image.Image:
        """The colors from low to high, over gray, as over a photo."""
        strip = self.colors(torch.linspace(self.low, self.high, LEGEND_STEPS)[None], palette)
        return Image.alpha_composite(Image.new("RGBA", strip.size, "gray"), strip).convert("RGB")

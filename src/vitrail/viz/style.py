"""How the picture of an explanation looks."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Literal, get_args

from vitrail.core.errors import InvalidInputError
from vitrail.core.registry import unknown_name
from vitrail.viz.palettes import Palette, check_palette
from vitrail.viz.smoothing import Smoothing, choose_smoothing

Kind = Literal["overlay", "heatmap", "masked", "side-by-side", "error"]
"""What is drawn: the heatmap over the photo, the heatmap alone, the strongest cells of the photo, the photo beside the overlay, or the
standard error of every cell."""


@dataclass(frozen=True)
class Style:
    """How the picture of an explanation looks.

    Attributes:
        kind: What is drawn; None: an overlay, or a heatmap where there is no photo.
        smoothing: How cells are enlarged.
        palette: Colors of the heatmap.
        clip: Percentile of relevance that gets the full color, above 0, so that a few strong cells do not hide the rest; None: the maximum.
        scale: Relevance that gets the full color, the same in several pictures, so that their colors mean the same; None: the largest of
            each.
        share: The strongest cells that together hold this share of the relevance are outlined, or kept by the kind "masked"; None: no
            outline.
        side: Shorter side of the photo in the picture, in pixels.

    Raises:
        UnknownNameError: No such kind, smoothing or palette.
        InvalidInputError: A number outside of its range, or the kind "masked" without a share.
    """

    kind: Kind | None = None
    smoothing: Smoothing = "auto"
    palette: Palette = "color"
    clip: int | float | None = None
    scale: int | float | None = None
    share: int | float | None = 0.5
    side: int = 448

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> "Style":
        """Create a style from what a user gives.

        Raises:
            InvalidInputError: There is no such option, or as for the class.
        """
        if unknown := sorted(options.keys() - cls.__dataclass_fields__.keys()):
            raise InvalidInputError(
                f"expected options of a picture ({', '.join(cls.__dataclass_fields__)}), got {', '.join(map(repr, unknown))}"
            )
        return cls(**options)

    def __post_init__(self) -> None:
        if self.kind is not None and self.kind not in get_args(Kind):
            raise unknown_name("kind", self.kind, list(get_args(Kind)))
        choose_smoothing((1, 1), self.smoothing)
        check_palette(self.palette)
        if self.clip is not None and not 0 < self.clip <= 100:
            raise InvalidInputError(f"expected a percentile above 0 and up to 100 for clip, got {self.clip}")
        if self.scale is not None and not 0 < self.scale < inf:
            raise InvalidInputError(f"expected a scale above 0, got {self.scale}")
        if self.scale is not None and self.clip is not None:
            raise InvalidInputError(
                "expected either a scale or a clip, got both: each says which relevance gets the full color"
            )
        if self.share is not None and not 0 < self.share <= 1:
            raise InvalidInputError(f"expected a share above 0 and up to 1 of the relevance, got {self.share}")
        if self.kind == "masked" and self.share is None:
            raise InvalidInputError(
                "expected the share of the relevance that the kind 'masked' keeps, got None; give e.g. share=0.5"
            )
        if not 16 <= self.side <= 4096:
            raise InvalidInputError(f"expected a side of 16 to 4096 pixels, got {self.side}")


DEFAULT_STYLE = Style()

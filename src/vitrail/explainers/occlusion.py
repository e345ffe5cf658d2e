"""Occlusion: the drop of the logit when a window of patches is replaced by a baseline."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, final

import torch
from jaxtyping import Bool
from torch import Tensor

from vitrail.core.errors import InvalidInputError
from vitrail.core.float32 import at_least_float32, matmul_float32
from vitrail.core.outputs import select_targets
from vitrail.core.types import Images
from vitrail.explainers._presence import PresenceExplainer
from vitrail.explainers.base import EXPLAINERS, Attribution, ChooseTargets


@EXPLAINERS.register("occlusion")
@final
@dataclass(frozen=True, eq=False)
class Occlusion(PresenceExplainer):
    """The drop of the target logit when a window is replaced by a baseline, averaged over the windows that cover a patch.

    Args:
        model: Any classifier.
        window: Side of the window in patches; it moves by one patch.
        baseline: Name in `vitrail.core.baselines`.

    Source: Zeiler & Fergus 2014, section 2.1, arXiv:1311.2901.

    Differs: windows lie on the patch grid; measures the logit instead of the probability.
    """

    window: int = 1
    baseline: str = "zero"

    paper: ClassVar[str] = "Zeiler & Fergus 2014, arXiv:1311.2901"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window < 1:
            raise InvalidInputError(f"expected a window of at least 1 patch, got {self.window}")

    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        grid_size = self.model.grid_size(images)
        covered = _list_windows(self.window, grid_size, images.device)
        stepped, targets = self.masked_logits(images, ~covered, self.baseline, choose)
        scores = at_least_float32(select_targets(stepped, targets))
        drops = scores[:, :1] - scores[:, 1:]
        weights = covered.to(drops) / covered.sum(0)
        return Attribution(stepped[:, 0], targets, matmul_float32(drops, weights).unflatten(1, grid_size))


def _list_windows(side: int, grid_size: tuple[int, int], device: torch.device) -> Bool[Tensor, "windows n"]:
    """List all windows inside the grid; True = covered."""
    rows, cols = grid_size
    height, width = min(side, rows), min(side, cols)
    count = partial(torch.arange, device=device)
    tops, lefts = torch.meshgrid(count(rows - height + 1), count(cols - width + 1), indexing="ij")
    row, col = count(rows)[None, :, None], count(cols)[None, None, :]
    top, left = tops.reshape(-1, 1, 1), lefts.reshape(-1, 1, 1)
    return ((row >= top) & (row < top + height) & (col >= left) & (col < left + width)).flatten(1)

"""Occlusion: what the model loses when a window of patches is replaced."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, final

import torch
from jaxtyping import Bool
from torch import Tensor

from vitrail.adapters import Check
from vitrail.core.baselines import check_baseline
from vitrail.core.errors import InvalidInputError
from vitrail.core.types import Images
from vitrail.explainers._precision import at_least_single, product
from vitrail.explainers.base import EXPLAINERS, Attribution, ChooseTargets, OwnPassExplainer


@EXPLAINERS.register("occlusion")
@final
@dataclass(frozen=True, eq=False)
class Occlusion(OwnPassExplainer):
    """The target logit's loss when a window is replaced by a baseline, averaged over the windows that cover a patch.

    Args:
        model: Any classifier.
        window: Side of the window, in patches; it moves by one patch.
        baseline: Name in `vitrail.core.baselines`.

    Source: Zeiler & Fergus 2014, section 2.1, arXiv:1311.2901.

    Differs: on the grid of patches, and the logit is measured, not the probability.
    """

    window: int = 1
    baseline: str = "zero"

    paper: ClassVar[str] = "Zeiler & Fergus 2014, arXiv:1311.2901"
    needs_model: ClassVar[str] = "any"
    relies_on: ClassVar[tuple[Check, ...]] = ("parts",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_baseline(self.baseline)
        if self.window < 1:
            raise InvalidInputError(f"expected a window of at least 1 patch, got {self.window}")

    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        grid_size = self.model.grid_size(images)
        covered = _windows(self.window, grid_size, images.device)
        # The whole image goes along as one more step: its logits and the others come by the same path.
        keep = torch.cat([torch.ones_like(covered[:1]), ~covered]).expand(len(images), -1, -1)
        found = self.model.perturbed_logits(images, self.model.baseline(self.baseline, images), keep)
        logits = found[:, 0]
        targets = choose(logits)
        scores = found.gather(2, targets[:, None, None].expand(-1, found.shape[1], 1)).squeeze(2)
        losses = at_least_single(scores[:, :1]) - at_least_single(scores[:, 1:])
        weights = covered.to(losses) / covered.sum(0)
        return Attribution(logits, targets, product(losses, weights).unflatten(1, grid_size))


def _windows(side: int, grid_size: tuple[int, int], device: torch.device) -> Bool[Tensor, "windows n"]:
    """Every window that lies inside the grid, True where it covers."""
    rows, cols = grid_size
    height, width = min(side, rows), min(side, cols)
    count = partial(torch.arange, device=device)
    tops, lefts = torch.meshgrid(count(rows - height + 1), count(cols - width + 1), indexing="ij")
    row, col = count(rows)[None, :, None], count(cols)[None, None, :]
    top, left = tops.reshape(-1, 1, 1), lefts.reshape(-1, 1, 1)
    return ((row >= top) & (row < top + height) & (col >= left) & (col < left + width)).flatten(1)

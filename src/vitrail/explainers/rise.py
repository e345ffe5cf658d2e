"""RISE: random masks, weighted by the target's probability under each mask."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vitrail.core.errors import InvalidInputError
from vitrail.core.float32 import matmul_float32
from vitrail.core.outputs import select_targets
from vitrail.core.types import Images, Relevance
from vitrail.explainers._presence import PresenceExplainer
from vitrail.explainers.base import EXPLAINERS, Attribution, ChooseTargets


@EXPLAINERS.register("rise")
@final
@dataclass(frozen=True, eq=False)
class Rise(PresenceExplainer):
    """The target's probability under random masks, summed over the masks that keep a patch, over the expected number of them.

    For outputs without probabilities (`Classifier.output` "none"), the value itself takes the place of the probability.

    Args:
        model: Any classifier.
        num_masks: Number of masks; all images share them.
        cells: Masks are drawn on a grid of `cells` x `cells`, then enlarged and shifted at random.
        keep_probability: Probability of keeping a cell.
        baseline: Name in `vitrail.core.baselines`.
        seed: Seed of the masks.

    Source: Petsiuk et al. 2018, section 3, arXiv:1806.07421.

    Differs: binary masks on the patch grid, without smooth borders; 512 masks by default, not 4,000 or 8,000.
    """

    num_masks: int = 512
    cells: int = 7
    keep_probability: float = 0.5
    baseline: str = "zero"
    seed: int = 0

    paper: ClassVar[str] = "Petsiuk et al. 2018, arXiv:1806.07421"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_masks < 1 or self.cells < 1 or not 0 < self.keep_probability < 1:
            raise InvalidInputError(
                f"expected num_masks and cells of at least 1 and 0 < keep_probability < 1, got {self.num_masks}, {self.cells} and "
                f"{self.keep_probability}"
            )

    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        grid_size = self.model.grid_size(images)
        masks = self.masks(grid_size).to(images.device)
        stepped, targets = self.masked_logits(images, masks, self.baseline, choose)
        probabilities = select_targets(self.model.probabilities(stepped[:, 1:]), targets)
        relevance = matmul_float32(probabilities, masks.to(probabilities)) / (
            self.num_masks * self.keep_probability
        )  # equation 6
        return Attribution(
            stepped[:, 0],
            targets,
            relevance.unflatten(1, grid_size),
            standard_error=self._error(probabilities, masks, grid_size),
        )

    def _error(
        self, probabilities: Float[Tensor, "b s"], masks: Bool[Tensor, "s n"], grid_size: tuple[int, int]
    ) -> Relevance | None:
        """Return the standard error of the mean over masks; None for a single mask."""
        if self.num_masks < 2:
            return None
        terms = masks.to(probabilities)
        sums, squares = matmul_float32(probabilities, terms), matmul_float32(probabilities**2, terms)
        variance = (squares - sums**2 / self.num_masks).clamp_min(0) / (self.num_masks - 1)
        return ((variance / self.num_masks).sqrt() / self.keep_probability).unflatten(1, grid_size)

    def masks(self, grid_size: tuple[int, int]) -> Bool[Tensor, "s n"]:
        """Draw the masks for a grid; True = kept. Drawn on the CPU, so that all devices get the same masks."""
        generator = torch.Generator().manual_seed(self.seed)
        shape = (self.num_masks, self.cells + 1, self.cells + 1)
        small = torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu") < self.keep_probability
        index = torch.arange(self.num_masks, device="cpu")[:, None, None]
        positions = []
        for side in grid_size:
            enlarged = -(-side // self.cells)
            shift = torch.randint(enlarged, (self.num_masks, 1), generator=generator, device="cpu")
            positions.append((torch.arange(side, device="cpu") + shift) // enlarged)
        return small[index, positions[0][:, :, None], positions[1][:, None, :]].flatten(1)

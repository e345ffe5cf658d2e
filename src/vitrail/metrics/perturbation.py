"""Insertion and deletion: does the score follow the patches that the map calls relevant?"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchmetrics import Metric

from vitrail.adapters import Classifier
from vitrail.baselines import BASELINES
from vitrail.errors import InvalidInputError
from vitrail.explanation import Explanation
from vitrail.metrics.protocols import Order, Protocol
from vitrail.types import Images, Keep, Relevance

DIRECTIONS = ("insertion", "deletion")


@dataclass(frozen=True)
class Curves:
    """Insertion and deletion curves of some images.

    Attributes:
        protocol: What was measured.
        fractions: Share of the cells that have changed, at every point, from 0 to 1.
        scores: Per image, baseline and direction (insertion, deletion).
    """

    protocol: Protocol
    fractions: Float[Tensor, " s"]
    scores: Float[Tensor, "b baselines 2 s"]

    def auc(self) -> Float[Tensor, "b baselines 2"]:
        """Area under the raw curve, by trapezoids, over [0, 1]."""
        return torch.trapezoid(self.scores, self.fractions)

    def normalised_auc(self) -> Float[Tensor, "b baselines 2"]:
        """Area under `(score - baseline score) / (clean score - baseline score)`; NaN where the two are equal."""
        clean, empty = self.scores[:, :, 1, :1], self.scores[:, :, 0, :1]
        span = (clean - empty).masked_fill((clean - empty).abs() < 1e-12, torch.nan)
        return (self.auc() - empty) / span

    def mean_normalised_auc(self) -> Float[Tensor, "baselines 2"]:
        """`normalised_auc` of the mean curve: images whose clean score is hardly above the baseline's do not dominate it."""
        return Curves(self.protocol, self.fractions, self.mean().unsqueeze(0)).normalised_auc()[0]

    def summary(self) -> dict[str, float]:
        """Area under every mean curve: `insertion_zero`, `deletion_zero`, ..., and the same with `normalised_` in front."""
        return {
            f"{prefix}{direction}_{baseline}": float(values[i, j])
            for prefix, values in (("", self.auc().mean(0)), ("normalised_", self.mean_normalised_auc()))
            for i, baseline in enumerate(self.protocol.baselines)
            for j, direction in enumerate(DIRECTIONS)
        }

    def mean(self) -> Float[Tensor, "baselines 2 s"]:
        """The mean curve over images."""
        return self.scores.mean(0)


def change_ranks(relevance: Relevance, order: Order = "most") -> Int[Tensor, "b n"]:
    """When every cell changes: 0 first. Equal relevance changes in the order of the cells, row by row.

    Differs: the published code sorts unstably, so tied maps give different curves from run to run.
    """
    if not torch.isfinite(relevance).all():
        raise InvalidInputError("expected finite relevance, got NaN or infinite values")
    sorted_cells = relevance.flatten(1).argsort(dim=1, descending=order == "most", stable=True)
    return sorted_cells.argsort(dim=1)


def changed_cells(ranks: Int[Tensor, "b n"], num_steps: int) -> Bool[Tensor, "b s n"]:
    """Which cells have changed at each of the `num_steps + 1` points of a curve.

    A cell has changed when its rank lies below the threshold; thresholds are evenly spaced and may be fractional.
    """
    # On the CPU, since MPS knows no float64.
    thresholds = torch.linspace(0, ranks.shape[1], num_steps + 1, dtype=torch.float64)
    # The published thresholds are float32; rounding them the same way keeps whole numbers whole.
    return ranks.unsqueeze(1) < thresholds.float().to(ranks.device)[:, None]


def to_patches(cells: Bool[Tensor, "b s cells"], grid: tuple[int, int], patch_grid: tuple[int, int]) -> Keep:
    """Spread a mask over a map's own cells onto the patches under them.

    Raises:
        InvalidInputError: The map's cells are no blocks of patches.
    """
    if grid == patch_grid:
        return cells
    if patch_grid[0] % grid[0] or patch_grid[1] % grid[1]:
        raise InvalidInputError(
            f"expected a map whose cells are blocks of the {patch_grid[0]}x{patch_grid[1]} patches, got a {grid[0]}x{grid[1]} map"
        )
    blocks = cells.unflatten(2, grid).repeat_interleave(patch_grid[0] // grid[0], 2)
    return blocks.repeat_interleave(patch_grid[1] // grid[1], 3).flatten(2)


def perturbation_curves(classifier: Classifier, images: Images, explanation: Explanation, protocol: Protocol) -> Curves:
    """Measure insertion and deletion curves of a batch.

    Insertion starts from the baseline and brings in the image's cells; deletion starts from the image and takes them out.

    Args:
        classifier: The explained model.
        images: The explained images.
        explanation: Their relevance and targets.
        protocol: What to measure.

    Source: Petsiuk et al. 2018 (RISE), arXiv:1806.07421.
    """
    if len(explanation) != len(images):
        raise InvalidInputError(f"expected an explanation of {len(images)} images, got one of {len(explanation)}")
    ranks = change_ranks(explanation.relevance.to(images.device), protocol.order)
    grid = (explanation.relevance.shape[1], explanation.relevance.shape[2])
    changed = to_patches(changed_cells(ranks, protocol.num_steps), grid, classifier.grid_size(images))
    # Both directions in one call: an adapter may share work between them.
    keep = torch.cat([changed, ~changed], dim=1)
    targets = explanation.targets.to(images.device)[:, None, None].expand(-1, keep.shape[1], 1)
    scores = []
    with classifier.inspecting(), torch.no_grad():
        for name in protocol.baselines:
            logits = classifier.perturbed_logits(images, BASELINES[name](images), keep)
            # Half precision is for networks: areas are sums of hundreds of scores.
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            score = logits if protocol.score == "logit" else logits.softmax(-1)
            scores.append(score.gather(2, targets).squeeze(2).unflatten(1, (2, -1)))
    stacked = torch.stack(scores, 1)
    fractions = torch.linspace(0, 1, protocol.num_steps + 1, dtype=stacked.dtype, device=stacked.device)
    return Curves(protocol, fractions, stacked)


class InsertionDeletion(Metric):
    """Insertion and deletion AUC over a data set; reduces over processes by itself.

    Insertion: higher is better; deletion: lower is better. Probabilities lie in [0, 1].

    Args:
        protocol: What to measure.

    Source: Petsiuk et al. 2018 (RISE), arXiv:1806.07421.
    """

    full_state_update = False
    higher_is_better = None  # One of the two directions each.
    scores: list[Tensor]

    def __init__(self, protocol: Protocol, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.protocol = protocol
        self.add_state("scores", default=[], dist_reduce_fx="cat")

    def update(self, classifier: Classifier, images: Images, explanation: Explanation) -> None:
        """Measure a batch."""
        self.scores.append(perturbation_curves(classifier, images, explanation, self.protocol).scores)

    def curves(self) -> Curves:
        """All curves so far.

        Raises:
            InvalidInputError: Nothing was measured yet.
        """
        if not len(self.scores):
            raise InvalidInputError("expected at least one measured image, got none")
        scores = torch.cat(list(self.scores)) if isinstance(self.scores, list) else self.scores
        fractions = torch.linspace(0, 1, self.protocol.num_steps + 1, dtype=scores.dtype, device=scores.device)
        return Curves(self.protocol, fractions, scores)

    def compute(self) -> dict[str, float]:
        """`Curves.summary` of all images so far."""
        return self.curves().summary()

"""Insertion and deletion: does the score follow the patches that the map calls relevant?"""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchmetrics import Metric

from vitrail.adapters import Classifier
from vitrail.errors import InvalidInputError
from vitrail.explanation import Explanation
from vitrail.metrics.curves import Curves
from vitrail.metrics.protocols import Order, Protocol
from vitrail.metrics.scores import measure
from vitrail.types import Images, Keep, Relevance


def change_ranks(relevance: Relevance, order: Order = "most") -> Int[Tensor, "b n"]:
    """When every cell changes: 0 first. Equal relevance changes in the order of the cells, row by row.

    Differs: the published code sorts unstably, so tied maps give different curves from run to run.
    """
    if not torch.isfinite(relevance).all():
        raise InvalidInputError("expected finite relevance, got NaN or infinite values")
    sorted_cells = relevance.flatten(1).argsort(dim=1, descending=order == "most", stable=True)
    return sorted_cells.argsort(dim=1)


def changed_cells(ranks: Int[Tensor, "b n"], thresholds: Float[Tensor, " s"]) -> Bool[Tensor, "b s n"]:
    """Which cells have changed at each point of a curve: those whose rank lies below its threshold."""
    return ranks.unsqueeze(1) < thresholds.to(ranks.device)[:, None]


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
    """Measure the curves of a batch.

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
    relevance, targets = explanation.relevance.to(images.device), explanation.targets.to(images.device)
    grid, patch_grid = (relevance.shape[1], relevance.shape[2]), classifier.grid_size(images)
    thresholds = protocol.thresholds(grid[0] * grid[1])
    steps = []
    for order in protocol.orders:
        changed = to_patches(changed_cells(change_ranks(relevance, order), thresholds), grid, patch_grid)
        steps += [changed if direction == "insertion" else ~changed for direction in protocol.directions]
    # All orders and directions in one call: an adapter may share work between them.
    keep = torch.cat(steps, dim=1)
    # The image itself is where deletion starts, else where insertion ends.
    clean = (protocol.directions.index("deletion"), 0) if "deletion" in protocol.directions else (0, -1)
    measured = []
    with classifier.inspecting(), torch.no_grad():
        for name in protocol.baselines:
            logits = classifier.perturbed_logits(images, classifier.baseline(name, images), keep)
            # Half precision is for networks: areas are sums of hundreds of scores.
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).unflatten(1, (len(steps), -1))
            measured += [measure(logits, logits[:, clean[0], clean[1]], targets, score) for score in protocol.scores]
    scores = torch.cat(measured, 1)
    return Curves(protocol, protocol.fractions(grid[0] * grid[1], scores), scores)


class InsertionDeletion(Metric):
    """Areas under the curves of a protocol, over a data set; reduces over processes by itself.

    Which are better high and which low, `Curve.better` tells.

    Args:
        protocol: What to measure.

    Source: Petsiuk et al. 2018 (RISE), arXiv:1806.07421.
    """

    full_state_update = False
    higher_is_better = None  # One or the other, by curve.
    scores: list[Tensor]
    num_cells: Tensor

    def __init__(self, protocol: Protocol, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.protocol = protocol
        # Before the scores: where processes met other grids, that is to be said before their curves are put together.
        self.add_state("num_cells", default=torch.tensor(0), dist_reduce_fx=_one_grid)
        self.add_state("scores", default=[], dist_reduce_fx="cat")

    def update(self, classifier: Classifier, images: Images, explanation: Explanation) -> None:
        """Measure a batch.

        Raises:
            InvalidInputError: Its curves have other points than those before.
        """
        if self.protocol.cells_per_step is not None:
            num_cells = self.num_cells.new_tensor(explanation.relevance[0].numel())
            self.num_cells = _one_grid(torch.stack([self.num_cells, num_cells]))
        self.scores.append(perturbation_curves(classifier, images, explanation, self.protocol).scores)

    def curves(self) -> Curves:
        """All curves so far.

        Raises:
            InvalidInputError: Nothing was measured yet.
        """
        if not len(self.scores):
            raise InvalidInputError("expected at least one measured image, got none")
        scores = torch.cat(list(self.scores)) if isinstance(self.scores, list) else self.scores
        return Curves(self.protocol, self.protocol.fractions(int(self.num_cells), scores), scores)

    def compute(self) -> dict[str, float]:
        """`Curves.summary` of all images so far."""
        return self.curves().summary()


def _one_grid(num_cells: Int[Tensor, " some"]) -> Int[Tensor, ""]:
    """The number of cells that all agree on; 0 where nothing was measured, or any grid will do."""
    seen = num_cells[num_cells > 0].unique()
    if len(seen) > 1:
        raise InvalidInputError(
            f"expected maps of one grid, got some of {seen[0]} and some of {seen[1]} cells, whose curves have other points; "
            "score them apart, or by a protocol with num_steps"
        )
    return num_cells.amax()

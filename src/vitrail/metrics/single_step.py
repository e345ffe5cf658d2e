"""Single step: change of the confidence when only the most relevant cells are kept, or when they are removed."""

from typing import Any, ClassVar, final

import torch

from vitrail.core.baselines import check_baseline
from vitrail.core.errors import InvalidInputError
from vitrail.core.outputs import has_probabilities
from vitrail.core.ranking import rank_cells
from vitrail.explanation import Explanation
from vitrail.metrics.base import METRICS, ExplainFunction, ImageMetric, Measure, Measurements, MetricBatch
from vitrail.metrics.subsets import check_share, clean_scores, count_cells_of_share, logits_without_cells, target_scores


@METRICS.register("single-step")
@final
class SingleStep(ImageMetric):
    """Average drop, increase in confidence and average drop in deletion.

    All compare the probability p of the explained class with that for a changed image; their means over a data set are the published
    numbers, as shares instead of per cent. Drops are NaN if p is 0. Costs two forward passes.

    Args:
        baseline: Name of the baseline that replaces removed cells.
        share: Share of the cells, the most relevant ones, that are kept or removed; at least one cell, and never all of several.
            Ties are taken row by row.

    Raises:
        InvalidInputError: An option outside its range.

    Source: Average Drop % and % Increase in Confidence: Chattopadhay et al. 2018 (Grad-CAM++), arXiv:1710.11063;
        average drop in deletion: Jung and Oh 2021 (LIFT-CAM), arXiv:2102.05228.

    Differs: keeps or replaces whole cells, so that maps of any sign and scale are compared at the same number of cells; the papers
        multiply every pixel by the map scaled to [0, 1], or by one minus it. If removal increases the probability, the drop in
        deletion is 0 instead of negative.
    """

    paper: ClassVar[str] = "Chattopadhay et al. 2018, arXiv:1710.11063; Jung and Oh 2021, arXiv:2102.05228"
    measures = (
        Measure("drop", "lower", 0.0, 1.0, "relative drop of the probability when only the most relevant cells are kept"),
        Measure("increase", "higher", 0.0, 1.0, "1 if the probability is then higher than for the image, else 0"),
        Measure(
            "drop_in_deletion", "higher", 0.0, 1.0, "relative drop of the probability when the most relevant cells are removed"
        ),
    )

    def __init__(self, *, baseline: str = "zero", share: float = 0.5, **kwargs: Any) -> None:
        check_baseline(baseline)
        check_share("share", share)
        super().__init__(**kwargs)
        self.baseline, self.share = baseline, share

    def measure(self, batch: MetricBatch, explanation: Explanation, explainer: ExplainFunction | None = None) -> Measurements:
        if not has_probabilities(batch.classifier.output):
            raise InvalidInputError(
                f"expected a classifier for single-step, which compares probabilities, got {batch.classifier.name} with output "
                f"{batch.classifier.output!r}; choose insertion and deletion curves"
            )
        ranks = rank_cells(explanation.relevance)
        relevant = ranks < count_cells_of_share(self.share, ranks.shape[1])
        logits = logits_without_cells(batch, torch.stack([~relevant, relevant], 1), explanation.grid, self.baseline)
        changed = target_scores(batch, logits, explanation.targets, "probability")
        clean = clean_scores(batch, explanation.targets, "probability")
        drop, drop_in_deletion = ((clean - changed).clamp_min(0) / clean).unbind(1)
        increase = (changed > clean)[:, 0].to(drop).where(changed[:, 0].isfinite(), torch.nan)
        return torch.stack([drop, increase, drop_in_deletion], 1)

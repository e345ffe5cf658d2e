"""Single step: what is left of the confidence when the most relevant cells are all that is kept, or all that is removed?"""

from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from vitrail.core.baselines import check_baseline
from vitrail.explanation import Explanation
from vitrail.metrics.base import METRICS, Again, ImageMetric, Measure, View
from vitrail.metrics.steps import change_ranks
from vitrail.metrics.subsets import cells_of_share, check_share, clean_scores, logits_without, target_scores


@METRICS.register("single-step")
@final
class SingleStep(ImageMetric):
    """Average drop, increase in confidence and average drop in deletion.

    All compare the explained class's probability p on the image with that on a changed image; their means over a data set are
    the published numbers, as shares instead of per cent. Drops are NaN where p is 0. Costs two forward passes.

    Args:
        baseline: What replaces removed cells, by name.
        share: Share of the cells, the most relevant ones, that are kept or removed: at least one, and where there are two,
            never all. Equal relevance is taken row by row.

    Raises:
        InvalidInputError: An option that cannot be used.

    Source: Average Drop % and % Increase in Confidence: Chattopadhay et al. 2018 (Grad-CAM++), arXiv:1710.11063;
        average drop in deletion: Jung and Oh 2021 (LIFT-CAM), arXiv:2102.05228.

    Differs: There every pixel is multiplied by the map, brought to [0, 1], or by one less it. Here cells are kept whole or
        replaced: maps of any sign and scale are compared at the same number of cells. Where removal raises the probability,
        the drop in deletion is 0; there it is negative.
    """

    measures = (
        Measure("drop", "lower", 0.0, 1.0, "share of the probability that is lost when the most relevant cells alone are kept"),
        Measure("increase", "higher", 0.0, 1.0, "1 where the probability is then above the image's, else 0"),
        Measure(
            "drop_in_deletion", "higher", 0.0, 1.0, "share of the probability lost when the most relevant cells are removed"
        ),
    )

    def __init__(self, *, baseline: str = "zero", share: float = 0.5, **kwargs: Any) -> None:
        check_baseline(baseline)
        check_share("share", share)
        super().__init__(**kwargs)
        self.baseline, self.share = baseline, share

    def measure(self, view: View, explanation: Explanation, again: Again | None = None) -> Float[Tensor, "b measures"]:
        ranks = change_ranks(explanation.relevance)
        relevant = ranks < cells_of_share(self.share, ranks.shape[1])
        logits = logits_without(view, torch.stack([~relevant, relevant], 1), explanation.grid, self.baseline)
        changed = target_scores(view, logits, explanation.targets, "probability")
        clean = clean_scores(view, explanation.targets, "probability")
        drop, drop_in_deletion = ((clean - changed).clamp_min(0) / clean).unbind(1)
        increase = (changed > clean)[:, 0].to(drop).where(changed[:, 0].isfinite(), torch.nan)
        return torch.stack([drop, increase, drop_in_deletion], 1)

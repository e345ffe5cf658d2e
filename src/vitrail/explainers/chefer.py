"""Generic attention explainability (Chefer et al.): attention times its gradient, accumulated over the blocks."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch

from vitrail.adapters import Check
from vitrail.core.types import Images
from vitrail.explainers._attention import check_starting_block, propagate_row, to_grid, unpool_keys
from vitrail.explainers._gradients import target_gradients
from vitrail.explainers.base import EXPLAINERS, Attribution, ChooseTargets, Explainer


@EXPLAINERS.register("chefer")
@final
@dataclass(frozen=True, eq=False)
class GenericAttention(Explainer):
    """The positive part of attention times the gradient of the target logit, averaged over heads, accumulated over blocks.

    Args:
        model: Any ViT.
        starting_block: First block to use; relevance of earlier blocks is left out.

    Source: Chefer et al. 2021 (GenAtt), equations 5 and 6, arXiv:2103.15679.

    Differs: only one row of the relevancy matrix is computed. Its identity part is left out: it carries no information, and would
    add a constant to every patch if the head averages patches. No layer-wise relevance propagation.
    """

    starting_block: int = 0

    paper: ClassVar[str] = "Chefer et al. 2021, arXiv:2103.15679"
    needs_gradients: ClassVar[bool] = True
    relies_on: ClassVar[tuple[Check, ...]] = ("attention", "pooling_weights", "gradients")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_starting_block(self.starting_block, len(self.vit.blocks))

    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        grid_size, num_prefix_tokens = self.vit.grid_size(images), self.vit.num_prefix_tokens
        with self.vit.record(attentions=True, blocks=slice(self.starting_block, None)) as trace:
            logits = self.vit.logits(images.requires_grad_())
        targets = choose(logits)
        gradients = target_gradients(logits, targets, trace.attentions)
        # The identity's row (what the head reads) is kept apart from the sum, which may be smaller than the identity's rounding.
        start = self.vit.pooling_weights(num_prefix_tokens + grid_size[0] * grid_size[1]).to(logits).expand(len(images), -1)
        row = torch.zeros_like(start)
        for weights, gradient in zip(reversed(trace.attentions), reversed(gradients), strict=True):
            relevancy = (weights.detach() * gradient).clamp_min(0).mean(1)  # equation 5
            row = row + propagate_row(start + row, unpool_keys(relevancy, self.vit, grid_size))  # equation 6
        return Attribution(logits, targets, to_grid(row, self.vit, grid_size))

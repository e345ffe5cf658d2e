"""Generic attention explainability: attention weighted by the target's gradient, accumulated through the blocks."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch

from vitrail.adapters import Check
from vitrail.core.types import Images
from vitrail.explainers._attention import follow, on_grid, spread_keys
from vitrail.explainers._gradients import target_gradients
from vitrail.explainers.base import EXPLAINERS, Attribution, ChooseTargets, OwnPassExplainer


@EXPLAINERS.register("chefer")
@final
@dataclass(frozen=True, eq=False)
class GenericAttention(OwnPassExplainer):
    """Attention times the target logit's gradient, positive part, averaged over heads, accumulated over blocks.

    Source: Chefer et al. 2021 (GenAtt), equations 5 and 6, arXiv:2103.15679.

    Differs: one row of the relevancy matrix is computed, not the matrix; its identity part, which tells nothing, is left out, so
    that a head that averages patches does not add the same constant to each. No rules of layer-wise relevance propagation.
    """

    paper: ClassVar[str] = "Chefer et al. 2021, arXiv:2103.15679"
    needs_gradients: ClassVar[bool] = True
    relies_on: ClassVar[tuple[Check, ...]] = ("attention", "pooling_weights", "gradients")

    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        grid_size, num_prefix_tokens = self.vit.grid_size(images), self.vit.num_prefix_tokens
        with self.vit.record(attentions=True) as trace:
            logits = self.vit.logits(images.requires_grad_())
        targets = choose(logits)
        gradients = target_gradients(logits, targets, trace.attentions)
        # What the head reads is the identity's row; what is added to it is kept apart, since it may be smaller than its rounding.
        start = self.vit.pooling_weights(num_prefix_tokens + grid_size[0] * grid_size[1]).to(logits).expand(len(images), -1)
        row = torch.zeros_like(start)
        for weights, gradient in zip(reversed(trace.attentions), reversed(gradients), strict=True):
            relevancy = (weights.detach() * gradient).clamp_min(0).mean(1)  # equation 5
            row = row + follow(start + row, spread_keys(relevancy, num_prefix_tokens, grid_size))  # equation 6
        return Attribution(logits, targets, on_grid(row, num_prefix_tokens, grid_size))

"""Raw attention of one block, from the tokens that the head reads."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from vitrail.adapters import Check
from vitrail.core.errors import InvalidInputError
from vitrail.core.float32 import at_least_float32
from vitrail.core.types import Attentions, Images, Relevance
from vitrail.explainers._attention import HeadFusion, check_block, fuse_heads, propagate_row, to_grid
from vitrail.explainers.base import EXPLAINERS, Attribution, ChooseTargets, Explainer


@EXPLAINERS.register("attention")
@final
@dataclass(frozen=True, eq=False)
class RawAttention(Explainer):
    """Attention of one block from the tokens that the head reads to every patch. The map is the same for every class.

    Args:
        model: Any ViT.
        block: Index of the block; -1 is the last.
        head_fusion: How to fuse the heads: mean, maximum or minimum.
        head: Index of a single head to show instead; None fuses all.
        mass: Show only the most attended patches, which together hold this share of the attention to patches; 1 shows all. The published
            code draws them with 0.6.

    Source: Dosovitskiy et al. 2021, arXiv:2010.11929; Caron et al. 2021 (DINO), figure 1, arXiv:2104.14294.

    Differs: heads are fused by default, not drawn one by one; patches within `mass` keep their own attention, where the published code
    draws a mask; if the head of the network averages patches, their rows of attention are averaged.
    """

    block: int = -1
    head_fusion: HeadFusion = "mean"
    head: int | None = None
    mass: float = 1.0

    paper: ClassVar[str] = "Caron et al. 2021, arXiv:2104.14294"
    needs_class: ClassVar[bool] = False
    relies_on: ClassVar[tuple[Check, ...]] = ("attention", "pooling_weights")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_block(self.block, len(self.vit.blocks))
        if not 0 < self.mass <= 1:
            raise InvalidInputError(f"expected a mass above 0, up to 1, got {self.mass}")

    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        only = slice(self.block, self.block + 1 or None)
        with self.vit.record(attentions=self._fuse, blocks=only) as trace:
            logits = self.vit.logits(images)
        [matrix] = trace.attentions
        row = self.vit.pooling_weights(matrix.shape[2]).to(matrix).expand(len(matrix), -1)
        relevance = to_grid(propagate_row(row, matrix), self.vit, self.vit.grid_size(images))
        return Attribution(logits, choose(logits), _keep_mass(relevance, self.mass))

    def _fuse(self, weights: Attentions) -> Float[Tensor, "b q k"]:
        if self.head is None:
            return fuse_heads(weights, self.head_fusion)
        num_heads = weights.shape[1]
        if not -num_heads <= self.head < num_heads:
            raise InvalidInputError(f"expected a head of {num_heads} (negative ones from the end), got {self.head}")
        return weights[:, self.head]


def _keep_mass(relevance: Relevance, mass: float) -> Relevance:
    """Set the least attended patches to zero, as long as the others hold the share `mass` of all attention."""
    values = at_least_float32(relevance).flatten(1)
    ascending, order = values.sort(dim=1)
    dropped = ascending.cumsum(1) <= (1 - mass) * values.sum(1, keepdim=True)
    return relevance * ~torch.zeros_like(dropped).scatter(1, order, dropped).view_as(relevance)

"""Attention rollout: the product of the attention matrices of all blocks, with residual connections."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from vitrail.adapters import Check
from vitrail.core.errors import InvalidInputError
from vitrail.core.float32 import at_least_float32
from vitrail.core.types import Attentions, Images
from vitrail.explainers._attention import (
    HeadFusion,
    check_starting_block,
    fuse_heads,
    propagate_row_residual,
    to_grid,
    unpool_keys,
)
from vitrail.explainers.base import EXPLAINERS, Attribution, ChooseTargets, Explainer


@EXPLAINERS.register("rollout")
@final
@dataclass(frozen=True, eq=False)
class AttentionRollout(Explainer):
    """Multiply (attention + identity) / 2 over all blocks, up to the tokens that the head reads. The map is the same for every class.

    Args:
        model: Any ViT.
        head_fusion: How to fuse the heads: mean, maximum or minimum.
        discard_ratio: Share of the smallest attention weights of every block that are set to zero; the class token's weight for
            itself is kept.
        starting_block: First block of the product.

    Source: Abnar & Zuidema 2020, section 3, arXiv:2005.00928; discarding as in Gildenblat 2020 (vit-explain).

    Differs: discards nothing by default, and discards the smallest weights of every image separately. The map is not divided by
    its maximum. Only one row of the product is computed.
    """

    head_fusion: HeadFusion = "mean"
    discard_ratio: float = 0.0
    starting_block: int = 0

    paper: ClassVar[str] = "Abnar & Zuidema 2020, arXiv:2005.00928"
    needs_class: ClassVar[bool] = False
    relies_on: ClassVar[tuple[Check, ...]] = ("attention", "pooling_weights")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.discard_ratio < 1:
            raise InvalidInputError(f"expected 0 <= discard_ratio < 1, got {self.discard_ratio}")
        check_starting_block(self.starting_block, len(self.vit.blocks))

    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        grid_size, num_prefix_tokens = self.vit.grid_size(images), self.vit.num_prefix_tokens

        def transition(weights: Attentions) -> Tensor:
            fused = self._discard(fuse_heads(at_least_float32(weights), self.head_fusion))
            return _add_residual(unpool_keys(fused, self.vit, grid_size))

        with self.vit.record(attentions=transition, blocks=slice(self.starting_block, None)) as trace:
            logits = self.vit.logits(images)
        num_tokens = num_prefix_tokens + grid_size[0] * grid_size[1]
        row = self.vit.pooling_weights(num_tokens).to(trace.attentions[0]).expand(len(images), -1)
        for matrix in reversed(trace.attentions):
            row = propagate_row_residual(row, matrix)
        return Attribution(logits, choose(logits), to_grid(row, self.vit, grid_size))

    def _discard(self, matrix: Float[Tensor, "b q k"]) -> Float[Tensor, "b q k"]:
        """Set the smallest weights of every image to zero."""
        flat = matrix.flatten(1)
        count = int(flat.shape[1] * self.discard_ratio)
        if not count:
            return matrix
        smallest = flat.argsort(dim=1, stable=True)[:, :count]
        discarded = torch.zeros_like(flat, dtype=torch.bool).scatter(1, smallest, True)
        discarded[:, 0] &= not self.vit.num_prefix_tokens  # the class token's weight for itself
        return flat.masked_fill(discarded, 0).view_as(matrix)


def _add_residual(matrix: Float[Tensor, "b q t"]) -> Float[Tensor, "b q t"]:
    """Average attention with the identity, and normalize the rows."""
    mixed = (matrix + torch.eye(*matrix.shape[1:], device=matrix.device).to(matrix)) / 2
    return mixed / mixed.sum(-1, keepdim=True)

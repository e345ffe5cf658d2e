"""Attention rollout: attention multiplied through the blocks, residual connections included."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from vitrail.adapters import Check
from vitrail.core.errors import InvalidInputError
from vitrail.core.types import Attentions, Images
from vitrail.explainers._attention import HeadFusion, follow_residual, fuse_heads, on_grid, spread_keys
from vitrail.explainers._precision import at_least_single
from vitrail.explainers.base import EXPLAINERS, Attribution, ChooseTargets, OwnPassExplainer


@EXPLAINERS.register("rollout")
@final
@dataclass(frozen=True, eq=False)
class AttentionRollout(OwnPassExplainer):
    """Attention of all blocks, half of it the residual stream, multiplied up to what the head reads. The same for every class.

    Args:
        model: Any ViT.
        head_fusion: What becomes of the heads.
        discard_ratio: Share of every block's smallest attention weights that are set to zero; a class token's weight for itself
            stays.

    Source: Abnar & Zuidema 2020, section 3, arXiv:2005.00928; the discarding after Gildenblat 2020 (vit-explain).

    Differs: nothing is discarded unless asked, and every image loses its own smallest weights. The map is not divided by its
    maximum. One row of the product is computed, not the product.
    """

    head_fusion: HeadFusion = "mean"
    discard_ratio: float = 0.0

    paper: ClassVar[str] = "Abnar & Zuidema 2020, arXiv:2005.00928"
    relies_on: ClassVar[tuple[Check, ...]] = ("attention", "pooling_weights")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.discard_ratio < 1:
            raise InvalidInputError(f"expected 0 <= discard_ratio < 1, got {self.discard_ratio}")

    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        grid_size, num_prefix_tokens = self.vit.grid_size(images), self.vit.num_prefix_tokens

        def mixed(weights: Attentions) -> Tensor:
            fused = self._discard(fuse_heads(at_least_single(weights), self.head_fusion))
            return _with_residual(spread_keys(fused, num_prefix_tokens, grid_size))

        with self.vit.record(attentions=mixed) as trace:
            logits = self.vit.logits(images)
        num_tokens = num_prefix_tokens + grid_size[0] * grid_size[1]
        row = self.vit.pooling_weights(num_tokens).to(trace.attentions[0]).expand(len(images), -1)
        for matrix in reversed(trace.attentions):
            row = follow_residual(row, matrix)
        return Attribution(logits, choose(logits), on_grid(row, num_prefix_tokens, grid_size))

    def _discard(self, matrix: Float[Tensor, "b q k"]) -> Float[Tensor, "b q k"]:
        flat = matrix.flatten(1)
        count = int(flat.shape[1] * self.discard_ratio)
        if not count:
            return matrix
        smallest = flat.argsort(dim=1, stable=True)[:, :count]
        lost = torch.zeros_like(flat, dtype=torch.bool).scatter(1, smallest, True)
        lost[:, 0] &= not self.vit.num_prefix_tokens  # A class token's weight for itself.
        return flat.masked_fill(lost, 0).view_as(matrix)


def _with_residual(matrix: Float[Tensor, "b q t"]) -> Float[Tensor, "b q t"]:
    mixed = (matrix + torch.eye(*matrix.shape[1:], device=matrix.device).to(matrix)) / 2
    return mixed / mixed.sum(-1, keepdim=True)

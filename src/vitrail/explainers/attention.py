"""Raw attention of one block, from the tokens that the head reads."""

from dataclasses import dataclass
from typing import ClassVar, final

from vitrail.adapters import Check
from vitrail.core.types import Images
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

    Source: Dosovitskiy et al. 2021, arXiv:2010.11929; Caron et al. 2021 (DINO), figure 1, arXiv:2104.14294.

    Differs: heads are fused, not drawn one by one; if the head averages patches, their rows of attention are averaged.
    """

    block: int = -1
    head_fusion: HeadFusion = "mean"

    paper: ClassVar[str] = "Caron et al. 2021, arXiv:2104.14294"
    needs_class: ClassVar[bool] = False
    relies_on: ClassVar[tuple[Check, ...]] = ("attention", "pooling_weights")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_block(self.block, len(self.vit.blocks))

    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        only = slice(self.block, self.block + 1 or None)
        with self.vit.record(attentions=lambda weights: fuse_heads(weights, self.head_fusion), blocks=only) as trace:
            logits = self.vit.logits(images)
        [matrix] = trace.attentions
        row = self.vit.pooling_weights(matrix.shape[2]).to(matrix).expand(len(matrix), -1)
        relevance = to_grid(propagate_row(row, matrix), self.vit.num_prefix_tokens, self.vit.grid_size(images))
        return Attribution(logits, choose(logits), relevance)

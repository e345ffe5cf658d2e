"""Adapters of timm's networks whose positions are added to the tokens."""

from contextlib import AbstractContextManager
from typing import ClassVar, final

from jaxtyping import Float
from timm.layers import Attention, AttentionRope
from timm.models.cait import Cait, TalkingHeadAttn
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import EvaAttention
from timm.models.vision_transformer import ParallelScalingBlock, VisionTransformer
from torch import Tensor, nn

from vitrail.adapters.pooling import class_token_weights, uniform_weights
from vitrail.adapters.timm.adapters import TimmAdapter
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.types import Logits, Patches, Tokens


@final
class TimmViTAdapter(TimmAdapter):
    """timm's `VisionTransformer` and its distilled variant, whose positions are added to the tokens."""

    networks: ClassVar[tuple[type[nn.Module], ...]] = (VisionTransformer, VisionTransformerDistilled)
    attentions: ClassVar[tuple[type[nn.Module], ...]] = (Attention, AttentionRope, EvaAttention, ParallelScalingBlock)
    needs_positions: ClassVar[bool] = False

    @property
    def prefix_tokens(self) -> Float[Tensor, "p d"]:
        # The distilled variant drops registers.
        others = "dist_token" if hasattr(self.vit, "dist_token") else "reg_token"
        return self._stack_prefix_tokens(self.vit, "cls_token", others)

    def assemble(self, patches: Patches, grid_size: tuple[int, int]) -> Tokens:
        # timm has no public function for this step, which differs between its models.
        return self.vit._pos_embed(self._restore_grid(patches, grid_size))

    def pooling_weights(self, num_tokens: int) -> Float[Tensor, " t"]:
        if hasattr(self.vit, "dist_token"):
            return class_token_weights(num_tokens, 2, self.embedding_weight)
        return super().pooling_weights(num_tokens)


@final
class TimmCaitAdapter(TimmAdapter):
    """timm's `Cait`: patches attend to each other, then a class token pools them by attention.

    The class token belongs to the head, like other attention pooling. Heads are mixed after the softmax, with a bias by which every patch
    reads every other one, whatever the weights: methods that read attention are refused.
    """

    networks: ClassVar[tuple[type[nn.Module], ...]] = (Cait,)
    attentions: ClassVar[tuple[type[nn.Module], ...]] = (TalkingHeadAttn,)
    needs_positions: ClassVar[bool] = False

    @property
    def num_prefix_tokens(self) -> int:
        return 0

    @property
    def prefix_tokens(self) -> Float[Tensor, "p d"]:
        return self._stack_prefix_tokens(self.vit)

    def assemble(self, patches: Patches, grid_size: tuple[int, int]) -> Tokens:
        return self.vit.pos_drop(patches + self.vit.pos_embed)

    def head(self, tokens: Tokens) -> Logits:
        return super().head(self.vit.forward_cls(tokens))

    def pooling_weights(self, num_tokens: int) -> Float[Tensor, " t"]:
        return uniform_weights(num_tokens, self.embedding_weight)

    def compared_attention(self) -> AbstractContextManager[None] | None:
        raise UnsupportedModelError(
            "it mixes its heads after the softmax, with a bias by which every patch reads every other one; choose a method that needs no "
            "attention, such as input-x-gradient, grad-cam or occlusion"
        )

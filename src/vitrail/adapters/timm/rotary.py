"""Adapters of timm's networks whose attention rotates queries and keys by position."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from timm.layers import Attention, AttentionRope
from timm.models.deepseek_vit import DeepseekVitClassifier
from timm.models.eva import Eva, EvaAttention
from timm.models.naflexvit import NaFlexEmbeds, NaFlexVit
from timm.models.qwen3_vit import Qwen3VitClassifier
from torch import Tensor, nn

from vitrail.adapters.pooling import uniform_weights
from vitrail.adapters.timm.adapters import TimmAdapter
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.hooks import attributes
from vitrail.core.types import Images, Kept, Logits, Patches, Tokens


class TimmRotaryAdapter(TimmAdapter):
    """Abstract: a family whose attention may rotate queries and keys by position."""

    attentions: ClassVar[tuple[type[nn.Module], ...]] = (Attention, AttentionRope, EvaAttention)
    mixed: ClassVar[str] = "rope_mixed"
    """Name of the attribute that tells whether every block and head has its own angles."""

    @contextmanager
    def position_arguments(self, grid_size: tuple[int, int], kept: Kept | None) -> Iterator[list[dict[str, Any]]]:
        num_blocks = len(self.vit.blocks)
        if self.vit.rope is None:
            yield [{}] * num_blocks
            return
        angles = self.vit.rope.get_embed(shape=list(grid_size))
        if getattr(self.vit, self.mixed, False):  # (l, h, n, d)
            chosen = angles if kept is None else angles[:, :, kept].transpose(1, 2)  # (l, b, h, m, d)
            yield [{"rope": chosen[index]} for index in range(num_blocks)]
        else:  # (n, d)
            chosen = angles if kept is None else angles[kept].unsqueeze(1)  # (b, 1, m, d)
            yield [{"rope": chosen}] * num_blocks


@final
class TimmEvaAdapter(TimmRotaryAdapter):
    """timm's `Eva` (EVA, EVA-02, DINOv3, Perception Encoder, rotary ViTs)."""

    networks: ClassVar[tuple[type[nn.Module], ...]] = (Eva,)

    def assemble(self, patches: Patches, grid_size: tuple[int, int]) -> Tokens:
        return self.vit._pos_embed(self._restore_grid(patches, grid_size))[0]


@final
class TimmNaFlexAdapter(TimmRotaryAdapter):
    """timm's `NaFlexVit`, run on images of any size as batches of one size."""

    networks: ClassVar[tuple[type[nn.Module], ...]] = (NaFlexVit,)
    embeddings: ClassVar[tuple[type[nn.Module], ...]] = (NaFlexEmbeds,)
    mixed: ClassVar[str] = "rope_is_mixed"

    @property
    def embedding(self) -> Any:
        return self.vit.embeds

    @property
    def embedding_weight(self) -> Tensor:
        return next(self.embedding.proj.parameters())

    @property
    def num_channels(self) -> int:
        return int(self.embedding.in_chans)

    @property
    def prefix_tokens(self) -> Float[Tensor, "p d"]:
        return self._stack_prefix_tokens(self.embedding, "cls_token", "reg_token")

    def patch_embed(self, images: Images) -> Patches:
        self.grid_size(images)
        with attributes([self.embedding], pos_embed_type="none"):
            return self.embedding(images)[0][:, self.num_prefix_tokens :]

    def assemble(self, patches: Patches, grid_size: tuple[int, int]) -> Tokens:
        embeds, patches = self.embedding, patches.clone()  # timm adds positions in place.
        if embeds.pos_embed_type == "learned":
            embeds._apply_learned_pos_embed(patches, grid_size=grid_size)
        elif embeds.pos_embed_type == "factorized":
            embeds._apply_factorized_pos_embed(patches, grid_size=grid_size)
        return embeds.pos_drop(torch.cat([self.prefix_tokens.expand(len(patches), -1, -1), patches], 1))


@final
class TimmEncoderAdapter(TimmRotaryAdapter):
    """timm's classifiers on the vision encoders of language models (Qwen3-VL, DeepSeek): the mean of rotary tokens."""

    networks: ClassVar[tuple[type[nn.Module], ...]] = (Qwen3VitClassifier, DeepseekVitClassifier)

    @property
    def vit(self) -> Any:
        return self.module.encoder

    def refuse_options(self) -> None:
        if self.vit.global_pool:
            raise UnsupportedModelError(
                f"expected patches that reach the classifier one by one, got a {type(self.module).__name__} that merges neighbors "
                f"(encoder_pool={self.vit.global_pool!r}); create it with encoder_pool=''"
            )

    def assemble(self, patches: Patches, grid_size: tuple[int, int]) -> Tokens:
        return self.vit._pos_embed(patches.unflatten(1, grid_size))[0]

    def head(self, tokens: Tokens) -> Logits:
        network: Any = self.module
        # Qwen3's encoder has no final norm.
        tokens = getattr(self.vit, "norm", nn.Identity())(tokens)
        return self._to_logits(network.forward_head(tokens), len(tokens))

    def pooling_weights(self, num_tokens: int) -> Float[Tensor, " t"]:
        return uniform_weights(num_tokens, self.embedding_weight)

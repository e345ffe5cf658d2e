"""Adapters of timm's networks whose attention scores have a bias by the relative position of two patches."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar, final

import torch
from timm.models.beit import Attention, Beit
from timm.models.vision_transformer_relpos import RelPosAttention, VisionTransformerRelPos
from torch import Tensor, nn

from vitrail.adapters.pooling import select_kept_pairs
from vitrail.adapters.timm.adapters import TimmAdapter
from vitrail.core.hooks import replaced_methods
from vitrail.core.types import Kept, Patches, Tokens


class TimmBiasAdapter(TimmAdapter):
    """Abstract: a family whose attention scores have a bias by the relative position of two patches."""

    bias: ClassVar[str]
    """Name of the method that computes the bias of a block."""
    shared_argument: ClassVar[str]
    """Name of the blocks' argument for a bias that they share."""

    @abstractmethod
    def shared_bias(self) -> Tensor | None:
        """Return the bias that all blocks share, if they share one."""

    @abstractmethod
    def owners(self) -> list[Any]:
        """Return the parts that have a bias of their own."""

    @contextmanager
    def position_arguments(self, grid_size: tuple[int, int], kept: Kept | None) -> Iterator[list[dict[str, Any]]]:
        def select(bias: Tensor) -> Tensor:
            return bias if kept is None else select_kept_pairs(bias, kept, self.num_prefix_tokens)

        shared, owners = self.shared_bias(), [] if kept is None else self.owners()
        biases = [(owner, partial(select, getattr(owner, self.bias)())) for owner in owners]
        with replaced_methods(self.bias, biases):
            yield [{self.shared_argument: None if shared is None else select(shared)}] * len(self.vit.blocks)


@final
class TimmBeitAdapter(TimmBiasAdapter):
    """timm's `Beit`."""

    networks: ClassVar[tuple[type[nn.Module], ...]] = (Beit,)
    attentions: ClassVar[tuple[type[nn.Module], ...]] = (Attention,)
    bias: ClassVar[str] = "_get_rel_pos_bias"
    shared_argument: ClassVar[str] = "shared_rel_pos_bias"

    def assemble(self, patches: Patches, grid_size: tuple[int, int]) -> Tokens:
        tokens = torch.cat([self.vit.cls_token.expand(len(patches), -1, -1), patches], 1)
        return self.vit.pos_drop(tokens if self.vit.pos_embed is None else tokens + self.vit.pos_embed)

    def shared_bias(self) -> Tensor | None:
        return None if self.vit.rel_pos_bias is None else self.vit.rel_pos_bias()

    def owners(self) -> list[Any]:
        attentions = self.find_attentions(self.blocks)
        return [attention for attention in attentions if attention.relative_position_bias_table is not None]


@final
class TimmRelPosAdapter(TimmBiasAdapter):
    """timm's `VisionTransformerRelPos`, whose tokens carry no positions."""

    networks: ClassVar[tuple[type[nn.Module], ...]] = (VisionTransformerRelPos,)
    attentions: ClassVar[tuple[type[nn.Module], ...]] = (RelPosAttention,)
    bias: ClassVar[str] = "get_bias"
    shared_argument: ClassVar[str] = "shared_rel_pos"

    def assemble(self, patches: Patches, grid_size: tuple[int, int]) -> Tokens:
        return torch.cat([self.prefix_tokens.expand(len(patches), -1, -1), patches], 1)

    def shared_bias(self) -> Tensor | None:
        return None if self.vit.shared_rel_pos is None else self.vit.shared_rel_pos.get_bias()

    def owners(self) -> list[Any]:
        parts = [attention.rel_pos for attention in self.find_attentions(self.blocks)]
        return [part for part in parts if part is not None]

"""Adapters of timm's Vision Transformers: with learned, rotary (EVA, DINOv3) and relative (BEiT) positions."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.adapters.base import ViTAdapter
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.image_checks import expect_channels, expect_multiple, expect_size, first_convolution
from vitrail.adapters.pooling import (
    class_token_weights,
    expect_kept,
    patch_mean_weights,
    select_kept_pairs,
    uniform_weights,
)
from vitrail.adapters.recording import BlockIntercept
from vitrail.adapters.timm.attention import compare_with_class_forward
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.hooks import attributes, forward_hooks, original, replaced_methods
from vitrail.core.types import Images, Kept, Logits, Patches, Tokens


class TimmAdapter(ViTAdapter):
    """Abstract: the common parts of timm's families: patch embedding, blocks, a final norm and a head."""

    needs_positions: ClassVar[bool] = True
    """Whether attention depends on the positions of patches beyond their tokens."""

    @property
    def vit(self) -> Any:
        """The network, untyped because timm has no types."""
        return self.module

    @property
    def num_prefix_tokens(self) -> int:
        return int(self.vit.num_prefix_tokens)

    @property
    def prefix_tokens(self) -> Float[Tensor, "p d"]:
        # The distilled variant drops registers, and a BEiT has none.
        others = getattr(self.vit, "dist_token" if hasattr(self.vit, "dist_token") else "reg_token", None)
        rows = [tokens[0] for tokens in (self.vit.cls_token, others) if tokens is not None]
        return torch.cat(rows) if rows else first_convolution(self.vit.patch_embed).weight.new_empty(0, self.vit.embed_dim)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return [original(block) for block in self.vit.blocks]

    def logits(self, images: Images) -> Logits:
        # Images whose size is not a multiple of the patch size can be classified, but not explained.
        self._expect_fitting(images, for_heatmap=False)
        return Classifier.logits(self, images)

    def grid_size(self, images: Images) -> tuple[int, int]:
        self._expect_fitting(images)
        rows, cols = self.vit.patch_embed.dynamic_feat_size((images.shape[2], images.shape[3]))
        return rows, cols

    def _expect_fitting(self, images: Images, for_heatmap: bool = True) -> None:
        """Refuse images that the network does not take or, for a heatmap, whose size is not a multiple of the patch size."""
        embed, size = self.vit.patch_embed, (images.shape[2], images.shape[3])
        expect_channels(images, first_convolution(embed).in_channels, self.name)
        fixed = embed.strict_img_size and embed.img_size is not None
        if fixed:
            expect_size(size, tuple(embed.img_size), self.name, "img_size=(height, width) or dynamic_img_size=True")
        if for_heatmap or not (fixed or embed.dynamic_img_pad):
            expect_multiple(size, tuple(embed.patch_size), self.name)

    def patch_embed(self, images: Images) -> Patches:
        self.grid_size(images)
        patches = self.vit.patch_embed(images)
        return patches.flatten(1, 2) if patches.ndim == 4 else patches

    def forward_tokens(self, tokens: Tokens, grid_size: tuple[int, int], kept: Kept | None = None) -> Logits:
        if self.needs_positions:
            expect_kept(tokens, self.num_prefix_tokens, grid_size, kept, self.name)
        tokens = self.prepare_tokens(tokens)
        with self.position_arguments(grid_size, kept) as arguments:
            for block, options in zip(self.blocks, arguments, strict=True):
                tokens = block(tokens, **options)
        return self.head(tokens)

    def head(self, tokens: Tokens) -> Logits:
        return self._to_logits(self.vit.forward_head(self.vit.norm(tokens)), len(tokens))

    def pooling_weights(self, num_tokens: int) -> Float[Tensor, " t"]:
        pooling, like = self.vit.global_pool, first_convolution(self.vit.patch_embed).weight
        if "max" in pooling:
            raise UnsupportedModelError(
                f"the head of {self.name} pools by maxima (global_pool={pooling!r}), which read other tokens in every image; choose a "
                "method that does not use pooling weights, such as occlusion, input-x-gradient or mutex"
            )
        if pooling == "token":
            return class_token_weights(num_tokens, 1, like)
        # Eva's attention pooling reads all tokens; VisionTransformer's and the mean read what `pool_include_prefix` says.
        if getattr(self.vit, "pool_include_prefix", pooling == "map"):
            return uniform_weights(num_tokens, like)
        return patch_mean_weights(num_tokens, self.num_prefix_tokens, like)

    @contextmanager
    def inspecting(self) -> Iterator[None]:
        # Checkpointing runs blocks twice, and its reentrant variant has no gradients with respect to inner tensors.
        with super().inspecting(), attributes([self.module], grad_checkpointing=False):
            yield

    @contextmanager
    def show_attention(self, blocks: Sequence[nn.Module], intercept: BlockIntercept) -> Iterator[None]:
        attentions = self._find_attentions(blocks)
        hooks = [
            (attention.attn_drop, _make_hook(block, intercept)) for block, attention in zip(blocks, attentions, strict=True)
        ]
        with (
            attributes(attentions, fused_attn=False),
            attributes([self.module], grad_checkpointing=False),
            forward_hooks(hooks),
        ):
            yield

    def compared_attention(self) -> AbstractContextManager[None] | None:
        replaced = [attention for attention in self._find_attentions(self.blocks) if "forward" in vars(attention)]
        return compare_with_class_forward(replaced) if replaced else None

    def _find_attentions(self, blocks: Sequence[nn.Module]) -> list[Any]:
        # A parallel block is its own attention.
        return [original(getattr(block, "attn", block)) for block in blocks]

    def prepare_tokens(self, tokens: Tokens) -> Tokens:
        """Apply the network's steps between `assemble` and the first block."""
        return self.vit.norm_pre(tokens)

    @abstractmethod
    def position_arguments(self, grid_size: tuple[int, int], kept: Kept | None) -> Any:
        """Return a context manager that yields, per block, the arguments that give attention the positions of the patches."""

    def _restore_grid(self, patches: Patches, grid_size: tuple[int, int]) -> Tensor:
        """Return patches in the layout that the network's own steps expect: a grid if the image size may change."""
        return patches.unflatten(1, grid_size) if self.vit.dynamic_img_size else patches


@final
class TimmViTAdapter(TimmAdapter):
    """timm's `VisionTransformer` and its distilled variant, whose positions are added to the tokens."""

    needs_positions: ClassVar[bool] = False

    def assemble(self, patches: Patches, grid_size: tuple[int, int]) -> Tokens:
        # timm has no public function for this step, which differs between its models.
        return self.vit._pos_embed(self._restore_grid(patches, grid_size))

    @contextmanager
    def position_arguments(self, grid_size: tuple[int, int], kept: Kept | None) -> Iterator[list[dict[str, Any]]]:
        yield [{} for _ in self.vit.blocks]

    def pooling_weights(self, num_tokens: int) -> Float[Tensor, " t"]:
        if hasattr(self.vit, "dist_token"):
            return class_token_weights(num_tokens, 2, first_convolution(self.vit.patch_embed).weight)
        return super().pooling_weights(num_tokens)


@final
class TimmEvaAdapter(TimmAdapter):
    """timm's `Eva` (EVA, EVA-02, DINOv3, rotary ViTs), whose attention rotates queries and keys by position."""

    def assemble(self, patches: Patches, grid_size: tuple[int, int]) -> Tokens:
        return self.vit._pos_embed(self._restore_grid(patches, grid_size))[0]

    @contextmanager
    def position_arguments(self, grid_size: tuple[int, int], kept: Kept | None) -> Iterator[list[dict[str, Any]]]:
        num_blocks = len(self.vit.blocks)
        if self.vit.rope is None:
            yield [{}] * num_blocks
            return
        angles = self.vit.rope.get_embed(shape=list(grid_size))
        if self.vit.rope_mixed:  # (l, h, n, d): every block and head has its own angles
            chosen = angles if kept is None else angles[:, :, kept].transpose(1, 2)  # (l, b, h, m, d)
            yield [{"rope": chosen[index]} for index in range(num_blocks)]
        else:  # (n, d)
            chosen = angles if kept is None else angles[kept].unsqueeze(1)  # (b, 1, m, d)
            yield [{"rope": chosen}] * num_blocks


@final
class TimmBeitAdapter(TimmAdapter):
    """timm's `Beit`, whose attention scores have a bias by the relative position of two patches."""

    def assemble(self, patches: Patches, grid_size: tuple[int, int]) -> Tokens:
        tokens = torch.cat([self.vit.cls_token.expand(len(patches), -1, -1), patches], 1)
        return self.vit.pos_drop(tokens if self.vit.pos_embed is None else tokens + self.vit.pos_embed)

    def prepare_tokens(self, tokens: Tokens) -> Tokens:
        return tokens

    @contextmanager
    def position_arguments(self, grid_size: tuple[int, int], kept: Kept | None) -> Iterator[list[dict[str, Any]]]:
        shared = self.vit.rel_pos_bias() if self.vit.rel_pos_bias is not None else None
        arguments = {"shared_rel_pos_bias": shared if shared is None or kept is None else select_kept_pairs(shared, kept)}
        with ExitStack() as stack:
            biased = [block.attn for block in self.vit.blocks if block.attn.relative_position_bias_table is not None]
            if kept is not None:
                biases = [(attention, _select_kept_bias(attention._get_rel_pos_bias(), kept)) for attention in biased]
                stack.enter_context(replaced_methods("_get_rel_pos_bias", biases))
            yield [arguments] * len(self.vit.blocks)


def _make_hook(block: nn.Module, intercept: BlockIntercept) -> Callable[..., Tensor]:
    return lambda _, inputs, weights: intercept(block, weights)


def _select_kept_bias(bias: Tensor, kept: Kept) -> Any:
    return lambda: select_kept_pairs(bias, kept)

"""The common parts of the adapters of timm's Vision Transformers."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from timm.layers import PatchEmbed
from torch import Tensor, nn

from vitrail.adapters.base import ViTAdapter
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.image_checks import expect_channels, expect_multiple, expect_size, first_convolution
from vitrail.adapters.pooling import class_token_weights, expect_kept, patch_mean_weights, uniform_weights
from vitrail.adapters.recording import BlockIntercept, intercept_outputs
from vitrail.adapters.timm.attention import compare_with_class_forward
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.hooks import attributes, original
from vitrail.core.types import Images, Kept, Logits, Patches, Tokens


class TimmAdapter(ViTAdapter):
    """Abstract: a family of timm's Vision Transformers: patch embedding, blocks, a final norm and a head.

    A family is one class here and one entry in `vitrail.adapters.timm.adapting.FAMILIES`.
    """

    networks: ClassVar[tuple[type[nn.Module], ...]]
    """Classes of the networks, each with its own steps; derived classes that leave the steps alone belong to it too."""
    attentions: ClassVar[tuple[type[nn.Module], ...]]
    """Classes of self-attention in the blocks, whose weights `show_attention` shows."""
    embeddings: ClassVar[tuple[type[nn.Module], ...]] = (PatchEmbed,)
    """Exact classes of patch embeddings that see every patch alone."""
    needs_positions: ClassVar[bool] = True
    """Whether attention depends on the positions of patches beyond their tokens."""

    @property
    def embedding(self) -> Any:
        """The part that embeds patches."""
        return self.vit.patch_embed

    @property
    def embedding_weight(self) -> Tensor:
        """Weight of the patch embedding, of the device and precision of tokens."""
        return first_convolution(self.embedding).weight

    @property
    def num_channels(self) -> int:
        """Number of channels of the images."""
        return first_convolution(self.embedding).in_channels

    @property
    def num_prefix_tokens(self) -> int:
        return int(self.vit.num_prefix_tokens)

    @property
    def prefix_tokens(self) -> Float[Tensor, "p d"]:
        return self._stack_prefix_tokens(self.vit, "cls_token", "reg_token")

    def _stack_prefix_tokens(self, owner: Any, *names: str) -> Float[Tensor, "p d"]:
        parts = [getattr(owner, name, None) for name in names]
        rows = [tokens[0] for tokens in parts if tokens is not None]
        return torch.cat(rows) if rows else self.embedding_weight.new_empty(0, self.vit.embed_dim)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return [original(block) for block in self.vit.blocks]

    def logits(self, images: Images) -> Logits:
        # Images whose size is not a multiple of the patch size can be classified, but not explained.
        self._expect_fitting(images, for_heatmap=False)
        return Classifier.logits(self, images)

    def grid_size(self, images: Images) -> tuple[int, int]:
        self._expect_fitting(images)
        rows, cols = (side // patch for side, patch in zip(images.shape[2:], self.embedding.patch_size, strict=True))
        return rows, cols

    def _expect_fitting(self, images: Images, for_heatmap: bool = True) -> None:
        """Refuse images that the network does not take or, for a heatmap, whose size is not a multiple of the patch size."""
        embed, size = self.embedding, (images.shape[2], images.shape[3])
        expect_channels(images, self.num_channels, self.name)
        fixed = getattr(embed, "strict_img_size", False) and embed.img_size is not None
        if fixed:
            expect_size(size, tuple(embed.img_size), self.name, "img_size=(height, width) or dynamic_img_size=True")
        if for_heatmap or not (fixed or embed.dynamic_img_pad):
            expect_multiple(size, tuple(embed.patch_size), self.name)

    def patch_embed(self, images: Images) -> Patches:
        self.grid_size(images)
        patches = self.embedding(images)
        return patches.flatten(1, 2) if patches.ndim == 4 else patches

    def forward_tokens(self, tokens: Tokens, grid_size: tuple[int, int], kept: Kept | None = None) -> Logits:
        if self.needs_positions:
            expect_kept(tokens, self.num_prefix_tokens, grid_size, kept, self.name)
        tokens = getattr(self.vit, "norm_pre", nn.Identity())(tokens)  # Of which most families have none.
        with self.position_arguments(grid_size, kept) as arguments:
            for block, options in zip(self.blocks, arguments, strict=True):
                tokens = block(tokens, **options)
        return self.head(tokens)

    def head(self, tokens: Tokens) -> Logits:
        return self._to_logits(self.vit.forward_head(self.vit.norm(tokens)), len(tokens))

    def pooling_weights(self, num_tokens: int) -> Float[Tensor, " t"]:
        pooling, like = self.vit.global_pool, self.embedding_weight
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
        with super().inspecting(), attributes([self.vit], grad_checkpointing=False):
            yield

    @contextmanager
    def show_attention(self, blocks: Sequence[nn.Module], intercept: BlockIntercept) -> Iterator[None]:
        attentions = self.find_attentions(blocks)
        parts = [(block, attention.attn_drop) for block, attention in zip(blocks, attentions, strict=True)]
        with (
            attributes(attentions, fused_attn=False),
            attributes([self.vit], grad_checkpointing=False),
            intercept_outputs(parts, intercept),
        ):
            yield

    def compared_attention(self) -> AbstractContextManager[None] | None:
        replaced = [attention for attention in self.find_attentions(self.blocks) if "forward" in vars(attention)]
        return compare_with_class_forward(replaced) if replaced else None

    def refuse_options(self) -> None:
        """Refuse a network whose options add steps that the adapter cannot follow.

        Raises:
            UnsupportedModelError: It has such options.
        """

    def find_attentions(self, blocks: Sequence[nn.Module]) -> list[Any]:
        """Return the self-attention of every block."""
        # A parallel block is its own attention.
        return [original(getattr(block, "attn", block)) for block in blocks]

    @contextmanager
    def position_arguments(self, grid_size: tuple[int, int], kept: Kept | None) -> Iterator[list[dict[str, Any]]]:
        """Yield, per block, the arguments that give attention the positions of the patches: none, where tokens carry them."""
        yield [{} for _ in self.vit.blocks]

    def _restore_grid(self, patches: Patches, grid_size: tuple[int, int]) -> Tensor:
        """Return patches in the layout that the network's own steps expect: a grid if the image size may change."""
        return patches.unflatten(1, grid_size) if self.vit.dynamic_img_size else patches

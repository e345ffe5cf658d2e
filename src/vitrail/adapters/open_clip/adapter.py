"""The adapter of open_clip's Vision Transformer, alone or as the image tower of a model with a text tower."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.adapters.base import ViTAdapter
from vitrail.adapters.image_checks import expect_channels, expect_size, first_convolution
from vitrail.adapters.pooling import class_token_weights, patch_mean_weights, uniform_weights
from vitrail.adapters.recording import BlockIntercept
from vitrail.adapters.torch_attention import show_torch_attention
from vitrail.core.hooks import attributes, original
from vitrail.core.types import Images, Kept, Logits, Patches, Tokens


def image_tower(module: nn.Module) -> nn.Module:
    """Return the image tower of a model of images and texts; any other network unchanged."""
    return getattr(module, "visual", module)


@final
class OpenClipViTAdapter(ViTAdapter):
    """open_clip's `VisionTransformer`: one class token, one image size, an embedding."""

    @property
    def vit(self) -> Any:
        return image_tower(self.module)

    @property
    def prefix_tokens(self) -> Float[Tensor, "p d"]:
        return self.vit.class_embedding[None]

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return [original(block) for block in self.vit.transformer.resblocks]

    def grid_size(self, images: Images) -> tuple[int, int]:
        (height, width), (rows, cols) = self.vit.image_size, self.vit.patch_size
        expect_channels(images, first_convolution(self.vit.conv1).in_channels, self.name)
        expect_size((images.shape[2], images.shape[3]), (height, width), self.name, "force_image_size=(height, width)")
        return height // rows, width // cols

    def logits(self, images: Images) -> Logits:
        self.grid_size(images)
        features: Any = self.vit(images)
        return self._to_logits(features[0] if self.vit.output_tokens else features, len(images))

    def patch_embed(self, images: Images) -> Patches:
        self.grid_size(images)
        patches: Tensor = self.vit.conv1(images)
        return patches.flatten(2).mT

    def assemble(self, patches: Patches, grid_size: tuple[int, int]) -> Tokens:
        class_token = self.vit.class_embedding.to(patches.dtype).expand(len(patches), 1, -1)
        tokens = torch.cat([class_token, patches], 1) + self.vit.positional_embedding.to(patches.dtype)
        return self.vit.ln_pre(self.vit.patch_dropout(tokens))

    def forward_tokens(self, tokens: Tokens, grid_size: tuple[int, int], kept: Kept | None = None) -> Logits:
        return self.head(self.vit.transformer(tokens))

    def head(self, tokens: Tokens) -> Logits:
        # open_clip has no public function for this step, which differs between its models.
        pooled, _ = self.vit._pool(tokens)
        return self._to_logits(pooled if self.vit.proj is None else pooled @ self.vit.proj, len(tokens))

    def pooling_weights(self, num_tokens: int) -> Float[Tensor, " t"]:
        like = self.vit.class_embedding
        if self.vit.attn_pool is not None:  # Its queries attend to all tokens.
            return uniform_weights(num_tokens, like)
        return (
            patch_mean_weights(num_tokens, 1, like) if self.vit.pool_type == "avg" else class_token_weights(num_tokens, 1, like)
        )

    @contextmanager
    def inspecting(self) -> Iterator[None]:
        # Checkpointing runs blocks twice.
        with super().inspecting(), attributes([self.vit.transformer], grad_checkpointing=False):
            yield

    def show_attention(self, blocks: Sequence[nn.Module], intercept: BlockIntercept) -> AbstractContextManager[None]:
        attentions: list[Any] = [block.attn for block in blocks]
        return show_torch_attention(self.name, blocks, attentions, intercept)

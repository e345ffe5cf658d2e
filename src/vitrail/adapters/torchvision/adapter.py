"""The adapter of torchvision's Vision Transformer."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer

from vitrail.adapters.base import ViTAdapter
from vitrail.adapters.image_checks import expect_channels, expect_size, first_convolution
from vitrail.adapters.pooling import class_token_weights, is_feature_head
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.adapters.recording import BlockIntercept
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.hooks import original, replaced_methods
from vitrail.core.types import Images, Kept, Logits, Patches, Tokens


@final
class TorchvisionViTAdapter(ViTAdapter):
    """torchvision's `VisionTransformer`: one class token, one image size, square."""

    @property
    def vit(self) -> Any:
        """The network, untyped because torchvision has no types."""
        return self.module

    @property
    def num_prefix_tokens(self) -> int:
        return 1

    @property
    def prefix_tokens(self) -> Float[Tensor, "p d"]:
        return self.vit.class_token[0]

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return [original(block) for block in self.vit.encoder.layers]

    def grid_size(self, images: Images) -> tuple[int, int]:
        size = self.vit.image_size
        expect_channels(images, first_convolution(self.vit.conv_proj).in_channels, self.name)
        expect_size((images.shape[2], images.shape[3]), (size, size), self.name, "other weights")
        return size // self.vit.patch_size, size // self.vit.patch_size

    def patch_embed(self, images: Images) -> Patches:
        self.grid_size(images)
        patches: Tensor = self.vit.conv_proj(images)
        return patches.flatten(2).mT

    def assemble(self, patches: Patches, grid_size: tuple[int, int]) -> Tokens:
        tokens = torch.cat([self.vit.class_token.expand(len(patches), -1, -1), patches], 1)
        return self.vit.encoder.dropout(tokens + self.vit.encoder.pos_embedding)

    def forward_tokens(self, tokens: Tokens, grid_size: tuple[int, int], kept: Kept | None = None) -> Logits:
        return self.head(self.vit.encoder.layers(tokens))

    def head(self, tokens: Tokens) -> Logits:
        return self._to_logits(self.vit.heads(self.vit.encoder.ln(tokens)[:, 0]), len(tokens))

    def pooling_weights(self, num_tokens: int) -> Float[Tensor, " t"]:
        return class_token_weights(num_tokens, 1, self.vit.class_token)

    @contextmanager
    def show_attention(self, blocks: Sequence[nn.Module], intercept: BlockIntercept) -> Iterator[None]:
        # The weights that torch's MultiheadAttention returns are not on the path of the gradients, so its arithmetic is
        # repeated here.
        attentions: list[Any] = [original(block.self_attention) for block in blocks]
        for index, attention in enumerate(attentions):
            if type(attention) is not nn.MultiheadAttention or not attention._qkv_same_embed_dim or not attention.batch_first:
                raise UnsupportedModelError(
                    f"expected torch's MultiheadAttention in every block of {self.name}, got {type(attention).__name__} in block {index}, "
                    "whose attention vitrail cannot see; merge adapters such as LoRA into the weights first"
                )
        opened = [_OpenAttention(attention, block, intercept) for block, attention in zip(blocks, attentions, strict=True)]
        with replaced_methods("forward", [(attention.attention, attention) for attention in opened]):
            yield


class _OpenAttention:
    """The forward pass of self-attention, batch first, with the attention weights in the graph."""

    def __init__(self, attention: Any, block: nn.Module, intercept: BlockIntercept) -> None:
        outer = vars(attention).get("forward")
        self.attention, self.block = attention, block
        # Nested contexts: the outer intercepts come first.
        self.intercepts: list[BlockIntercept] = (
            [*outer.intercepts, intercept] if isinstance(outer, _OpenAttention) else [intercept]
        )

    def __call__(self, query: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        attention = self.attention
        projected = nn.functional.linear(query, attention.in_proj_weight, attention.in_proj_bias)
        queries, keys, values = projected.unflatten(-1, (3, attention.num_heads, attention.head_dim)).permute(2, 0, 3, 1, 4)
        weights = (queries * attention.head_dim**-0.5 @ keys.mT).softmax(-1)
        weights = nn.functional.dropout(weights, attention.dropout, attention.training)
        for intercept in self.intercepts:
            weights = intercept(self.block, weights)
        heads = (weights @ values).transpose(1, 2).flatten(2)
        # As torch does: the projection's weights without its hooks.
        return nn.functional.linear(heads, attention.out_proj.weight, attention.out_proj.bias), None


def adapt_torchvision(
    module: nn.Module, name: str, class_names: tuple[str, ...], preprocessing: Preprocessing | None
) -> TorchvisionViTAdapter:
    """Adapt a torchvision network as a Vision Transformer; the preprocessing defaults to ImageNet's at the model's own size.

    Raises:
        UnsupportedModelError: The network has another architecture, no classifier, or overlapping patches.
    """
    if type(module) is not VisionTransformer:
        raise UnsupportedModelError(
            f"expected torchvision's VisionTransformer, got torchvision's {type(module).__name__}, which has no adapter: patches "
            "can be removed one by one from a plain Vision Transformer only"
        )
    if isinstance(module.conv_proj, nn.Sequential):
        raise UnsupportedModelError(
            "expected patches that are embedded one by one, got a stem of convolutions, in which they overlap"
        )
    vit: Any = module
    num_channels = first_convolution(vit.conv_proj).in_channels
    heads: Any = module.heads
    if is_feature_head(heads):
        raise UnsupportedModelError(
            "expected a classifier, got a VisionTransformer whose heads give features; give it a Linear as heads and train it"
        )
    size: Any = module.image_size
    default = Preprocessing((size, size), interpolation="bilinear").for_channels(num_channels)
    return TorchvisionViTAdapter(module, preprocessing or default, class_names, name)

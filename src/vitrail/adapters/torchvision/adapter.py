"""The adapter of torchvision's Vision Transformer."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
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
from vitrail.adapters.subclasses import is_unchanged
from vitrail.adapters.torch_attention import show_torch_attention
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.hooks import original
from vitrail.core.outputs import Output
from vitrail.core.types import Images, Kept, Logits, Patches, Tokens


@final
class TorchvisionViTAdapter(ViTAdapter):
    """torchvision's `VisionTransformer`: one class token, one image size, square."""

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

    def show_attention(self, blocks: Sequence[nn.Module], intercept: BlockIntercept) -> AbstractContextManager[None]:
        attentions: list[Any] = [block.self_attention for block in blocks]
        return show_torch_attention(self.name, blocks, attentions, intercept)


def adapt_torchvision(
    module: nn.Module, name: str, class_names: tuple[str, ...], preprocessing: Preprocessing | None
) -> TorchvisionViTAdapter:
    """Adapt a torchvision network as a Vision Transformer; the preprocessing defaults to ImageNet's at the model's own size.

    Raises:
        UnsupportedModelError: The network has another architecture, or overlapping patches.
    """
    if not is_unchanged(module, VisionTransformer, "_process_input"):
        kind = f"expected torchvision's VisionTransformer, got torchvision's {type(module).__name__}, which"
        if isinstance(module, VisionTransformer):
            raise UnsupportedModelError(
                f"{kind} changes its forward pass; adapt a VisionTransformer with its weights, or write an adapter"
            )
        raise UnsupportedModelError(
            f"{kind} has no adapter: patches can be removed one by one from a plain Vision Transformer only"
        )
    if isinstance(module.conv_proj, nn.Sequential):
        raise UnsupportedModelError(
            "expected patches that are embedded one by one, got a stem of convolutions, in which they overlap"
        )
    vit: Any = module
    num_channels = first_convolution(vit.conv_proj).in_channels
    size: Any = module.image_size
    default = Preprocessing((size, size), interpolation="bilinear").for_channels(num_channels)
    output: Output = "embedding" if is_feature_head(vit.heads) else "softmax"
    return TorchvisionViTAdapter(module, preprocessing or default, class_names, name, output=output)

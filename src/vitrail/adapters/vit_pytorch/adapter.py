"""The adapter of the Vision Transformers of vit-pytorch (lucidrains)."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.adapters.base import ViTAdapter
from vitrail.adapters.image_checks import expect_channels, expect_size
from vitrail.adapters.pooling import class_token_weights, uniform_weights
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.adapters.recording import BlockIntercept, intercept_outputs
from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.core.hooks import replaced_methods
from vitrail.core.types import Images, Kept, Logits, Patches, Tokens

HEADS = {"ViT": "mlp_head", "SimpleViT": "linear_head"}
"""The head of every supported class."""


@final
class Layer(nn.Module):
    """A layer as one module, which the network keeps as a list of attention and MLP."""

    def __init__(self, attention: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        self.attention, self.mlp = attention, mlp

    def forward(self, tokens: Tokens) -> Tokens:
        """Run the layer as the network does."""
        tokens = self.attention(tokens) + tokens
        return self.mlp(tokens) + tokens


@final
class VitPytorchAdapter(ViTAdapter):
    """vit-pytorch's `ViT` and `SimpleViT`: a class token or a mean, one image size.

    Only the loop over the layers is replaced, in every run through the adapter, so that each layer is a module that runs.
    """

    @property
    def prefix_tokens(self) -> Float[Tensor, "p d"]:
        positions = self.vit.pos_embedding
        return self.vit.cls_token if hasattr(self.vit, "cls_token") else positions.new_zeros(0, positions.shape[1])

    @cached_property
    def blocks(self) -> Sequence[nn.Module]:
        return [Layer(attention, mlp) for attention, mlp in self.vit.transformer.layers]

    def grid_size(self, images: Images) -> tuple[int, int]:
        expect_channels(images, _count_channels(self.vit), self.name)
        expect_size((images.shape[2], images.shape[3]), self.preprocessing.size, self.name, "other weights")
        return _count_cells(self.vit, self.preprocessing.size)

    def logits(self, images: Images) -> Logits:
        with replaced_methods("forward", [(self.vit.transformer, self._transform)]):
            return super().logits(images)

    def _transform(self, tokens: Tokens) -> Tokens:
        for layer in self.blocks:
            tokens = layer(tokens)
        return self.vit.transformer.norm(tokens)

    def patch_embed(self, images: Images) -> Patches:
        self.grid_size(images)
        return self.vit.to_patch_embedding(images)

    def assemble(self, patches: Patches, grid_size: tuple[int, int]) -> Tokens:
        tokens = torch.cat([self.prefix_tokens.expand(len(patches), -1, -1), patches], 1)
        return tokens + self.vit.pos_embedding.to(tokens)

    def forward_tokens(self, tokens: Tokens, grid_size: tuple[int, int], kept: Kept | None = None) -> Logits:
        for layer in self.blocks:
            tokens = layer(tokens)
        return self.head(tokens)

    def head(self, tokens: Tokens) -> Logits:
        tokens = self.vit.transformer.norm(tokens)
        pooled = tokens.mean(1) if self.vit.pool == "mean" else tokens[:, 0]
        return self._to_logits(getattr(self.vit, HEADS[type(self.vit).__name__])(self.vit.to_latent(pooled)), len(tokens))

    def pooling_weights(self, num_tokens: int) -> Float[Tensor, " t"]:
        like = next(self.vit.parameters())
        return uniform_weights(num_tokens, like) if self.vit.pool == "mean" else class_token_weights(num_tokens, 1, like)

    def rebuilt_logits(self, images: Images) -> dict[str, Logits]:
        own = self._to_logits(self.module(images), len(images))
        return {"run by its own loop over its layers": own} | super().rebuilt_logits(images)

    def show_attention(self, blocks: Sequence[nn.Module], intercept: BlockIntercept) -> AbstractContextManager[None]:
        layers: list[Any] = list(blocks)
        return intercept_outputs([(layer, layer.attention.attend) for layer in layers], intercept)


def adapt_vit_pytorch(
    module: nn.Module, name: str, class_names: tuple[str, ...], preprocessing: Preprocessing | None
) -> VitPytorchAdapter:
    """Adapt a network of vit-pytorch; the preprocessing defaults to pixels from 0 to 1, unnormalized, at the network's size.

    Raises:
        UnsupportedModelError: The network has another architecture, no head, or no square grid and no preprocessing.
        InvalidInputError: The preprocessing is for another size of images.
    """
    vit: Any = module
    kind = type(module)
    if kind.__name__ not in HEADS or kind.__module__ not in ("vit_pytorch.vit", "vit_pytorch.simple_vit"):
        raise UnsupportedModelError(
            f"expected vit-pytorch's {' or '.join(HEADS)}, got {kind.__module__}.{kind.__qualname__}, which has no adapter"
        )
    parts = [part for layer in vit.transformer.layers for part in layer]
    if any(type(part).__module__ != kind.__module__ or "forward" in vars(part) for part in (vit.transformer, *parts)):
        raise UnsupportedModelError(
            f"expected the layers of vit-pytorch's {kind.__name__}, got others; merge adapters such as LoRA into the weights first"
        )
    if getattr(vit, HEADS[kind.__name__]) is None:
        raise UnsupportedModelError(
            f"expected a classifier, got a {kind.__name__} without a head; create it with num_classes=..."
        )
    num_patches = len(vit.pos_embedding) - (len(vit.cls_token) if hasattr(vit, "cls_token") else 0)
    if preprocessing is None:
        side = round(num_patches**0.5)
        if side**2 != num_patches:
            raise UnsupportedModelError(
                f"expected a preprocessing for the {num_patches} patches of a {kind.__name__}, which are no square, got none; pass "
                "vitrail.Preprocessing((height, width))"
            )
        height, width = _patch_size(vit)
        preprocessing = Preprocessing.unnormalized(_count_channels(vit), (side * height, side * width))
    rows, cols = _count_cells(vit, preprocessing.size)
    if rows * cols != num_patches:
        raise InvalidInputError(
            f"expected a preprocessing of images of {num_patches} patches for {name}, got size {preprocessing.size}, of {rows}x{cols}"
        )
    return VitPytorchAdapter(module, preprocessing, class_names, name)


def _patch_size(vit: Any) -> tuple[int, int]:
    lengths = vit.to_patch_embedding[0].axes_lengths
    return lengths["p1"], lengths["p2"]


def _count_cells(vit: Any, size: tuple[int, int]) -> tuple[int, int]:
    height, width = _patch_size(vit)
    return size[0] // height, size[1] // width


def _count_channels(vit: Any) -> int:
    """Return the number of channels, of which a patch has one number per pixel."""
    height, width = _patch_size(vit)
    return int(vit.to_patch_embedding[2].in_features) // (height * width)

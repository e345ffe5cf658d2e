"""Create and adapt torchvision's Vision Transformers."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision import models
from torchvision.models import get_model, get_model_weights, list_models
from torchvision.models.vision_transformer import VisionTransformer

from vitrail.adapters.base import ViTAdapter
from vitrail.adapters.image_checks import expect_channels, expect_size, first_convolution
from vitrail.adapters.pooling import class_token_weights, is_feature_head, linear_head_width
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.adapters.recording import BlockIntercept
from vitrail.core.errors import InvalidInputError, UnknownNameError, UnsupportedModelError
from vitrail.core.hooks import original, replaced_methods
from vitrail.core.registry import unknown_name
from vitrail.core.types import Images, Kept, Logits, Patches, Tokens


@final
class TorchvisionViTAdapter(ViTAdapter):
    """torchvision's `VisionTransformer`: one class token, one image size, square."""

    @property
    def vit(self) -> Any:
        """The network, untyped because torchvision has no types."""
        return self.module

    @property
    def num_classes(self) -> int:
        heads = self.vit.heads
        return linear_head_width(heads[-1] if isinstance(heads, nn.Sequential) and len(heads) else heads) or super().num_classes

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
        return self.vit.heads(self.vit.encoder.ln(tokens)[:, 0])

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


def create_torchvision(
    name: str, *, pretrained: bool = True, weights: str = "DEFAULT", **options: Any
) -> TorchvisionViTAdapter:
    """Create a torchvision model by name and adapt it, with the preprocessing and the class names of its weights.

    Args:
        name: A name from `torchvision.models.list_models`.
        pretrained: Whether to load trained weights; else they are random.
        weights: Name of the trained weights, e.g. "IMAGENET1K_SWAG_E2E_V1".
        options: Arguments of the model.

    Raises:
        UnknownNameError: There is no such model or weights, or the weights could not be fetched.
        InvalidInputError: The model does not have these options.
        UnsupportedModelError: The model is not a Vision Transformer.
    """
    known = find_weights(name)
    if pretrained and weights != "DEFAULT" and weights not in known.__members__:
        raise unknown_name(f"weights of torchvision:{name}", weights, list(known.__members__))
    chosen = known[weights] if pretrained else None
    if chosen is not None and name.startswith("vit_"):  # Models without this option take images of any size.
        options = {"image_size": chosen.meta["min_size"][0], **options}
    module = make_torchvision(name, options)
    adapter = adapt_torchvision(module, f"torchvision:{name}", (), None)
    if chosen is None:
        return adapter
    module.load_state_dict(fetch_weights(chosen, name))
    return adapt_torchvision(module, adapter.name, tuple(chosen.meta["categories"]), weights_preprocessing(chosen.transforms()))


def find_weights(name: str) -> Any:
    """Return the enumeration of a model's trained weights.

    Raises:
        UnknownNameError: There is no such classifier.
    """
    # Detection and segmentation models are not classifiers, and fetch weights of their backbones unasked.
    if name not in list_models(module=models):
        raise unknown_name("torchvision model", name, list_models(module=models, include="vit*"))
    return get_model_weights(name)


def make_torchvision(name: str, options: Mapping[str, Any]) -> nn.Module:
    """Create an untrained torchvision classifier of any architecture by name.

    Raises:
        InvalidInputError: The model does not have these options, or their values are incompatible.
    """
    try:
        return get_model(name, weights=None, **options)
    except (TypeError, ValueError, AssertionError) as error:
        raise InvalidInputError(f"torchvision cannot create {name!r} with {dict(options)}: {error}") from error


def fetch_weights(chosen: Any, name: str) -> dict[str, Tensor]:
    """Fetch trained weights.

    Raises:
        UnknownNameError: They could not be fetched.
    """
    try:
        return dict(chosen.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except Exception as error:  # URL, hash and file errors have no common base.
        raise UnknownNameError(
            f"cannot load the weights of torchvision:{name}: {error}; check the connection, or ask for random weights by "
            "pretrained=False"
        ) from error


def weights_preprocessing(transforms: Any) -> Preprocessing:
    """Convert the preprocessing of trained weights."""
    size = transforms.crop_size[0]
    return Preprocessing(
        size=(size, size),
        crop_fraction=size / transforms.resize_size[0],
        interpolation=transforms.interpolation.value,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )

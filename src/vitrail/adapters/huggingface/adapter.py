"""The adapter of Hugging Face's Vision Transformers.

The module tree of these models differs between versions of transformers, and their forward passes differ by family. So the adapter
always runs the model's own forward pass, with embeddings that return the given tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from vitrail.adapters.base import ViTAdapter
from vitrail.adapters.huggingface.attention import intercept_open_attention
from vitrail.adapters.image_checks import expect_channels, expect_multiple, first_convolution
from vitrail.adapters.logits import configured_output
from vitrail.adapters.pooling import class_token_weights, expect_kept, patch_mean_weights, select_kept_pairs
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.adapters.recording import BlockIntercept
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.hooks import original, replaced_methods
from vitrail.core.types import Images, Kept, Logits, Patches, Tokens

FAMILIES = ("vit", "deit", "dinov2", "dinov2_with_registers", "beit")
"""Supported values of `model_type`."""


@final
class HuggingFaceViTAdapter(ViTAdapter):
    """Hugging Face's ViT, DeiT (with and without teacher), DINOv2 (with and without registers) and BEiT."""

    @property
    def model(self) -> Any:
        """The whole model, untyped because its parts have no stable types."""
        return self.module

    @property
    def base(self) -> Any:
        """The model without its classifier."""
        return self.model.base_model

    @property
    def _projection(self) -> nn.Conv2d:
        return first_convolution(self.base.embeddings.patch_embeddings)

    @property
    def num_prefix_tokens(self) -> int:
        embeddings = self.base.embeddings
        registers = getattr(embeddings, "register_tokens", None)
        return 1 + hasattr(embeddings, "distillation_token") + (0 if registers is None else registers.shape[1])

    @property
    def prefix_tokens(self) -> Float[Tensor, "p d"]:
        names = ("cls_token", "distillation_token", "register_tokens")
        parts = (getattr(self.base.embeddings, name, None) for name in names)
        return torch.cat([tokens[0] for tokens in parts if tokens is not None])

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return _find_blocks(self.base)

    def logits(self, images: Images) -> Logits:
        self.grid_size(images)
        return self._run(images)

    def grid_size(self, images: Images) -> tuple[int, int]:
        projection = self._projection
        expect_channels(images, projection.in_channels, self.name)
        expect_multiple((images.shape[2], images.shape[3]), projection.kernel_size, self.name)
        return images.shape[2] // projection.kernel_size[0], images.shape[3] // projection.kernel_size[1]

    def patch_embed(self, images: Images) -> Patches:
        self.grid_size(images)
        return self.base.embeddings.patch_embeddings.projection(images).flatten(2).mT

    def assemble(self, patches: Patches, grid_size: tuple[int, int]) -> Tokens:
        embeddings, images = self.base.embeddings, self._blank(patches, grid_size)
        with replaced_methods("forward", [(embeddings.patch_embeddings, lambda *_, **__: patches)]):
            return embeddings(images, **self._resizing(images))

    def forward_tokens(self, tokens: Tokens, grid_size: tuple[int, int], kept: Kept | None = None) -> Logits:
        biases = [part for part in self.base.modules() if hasattr(part, "relative_position_bias_table")]
        if biases:
            expect_kept(tokens, self.num_prefix_tokens, grid_size, kept, self.name)
        with ExitStack() as stack:
            stack.enter_context(replaced_methods("forward", [(self.base.embeddings, lambda *_, **__: tokens)]))
            if kept is not None:
                stack.enter_context(
                    replaced_methods("forward", [(bias, _select_kept_bias(bias.forward, kept)) for bias in biases])
                )
            return self._run(self._blank(tokens, grid_size))

    def head(self, tokens: Tokens) -> Logits:
        skipped = [(block, lambda hidden, *_, **__: hidden) for block in self.blocks]
        with replaced_methods("forward", skipped):
            return self.forward_tokens(tokens, (1, tokens.shape[1] - self.num_prefix_tokens))

    def pooling_weights(self, num_tokens: int) -> Float[Tensor, " t"]:
        config, like = self.model.config, self.base.embeddings.cls_token
        if config.model_type.startswith("dinov2"):  # Its classifier reads class token and patch mean, concatenated.
            patches = patch_mean_weights(num_tokens, self.num_prefix_tokens, like)
            return (class_token_weights(num_tokens, 1, like) + patches) / 2
        if getattr(config, "use_mean_pooling", False):
            return patch_mean_weights(num_tokens, self.num_prefix_tokens, like)
        return class_token_weights(num_tokens, 2 if hasattr(self.model, "distillation_classifier") else 1, like)

    def attention_functions(self) -> tuple[Any, ...]:
        named = [ALL_ATTENTION_FUNCTIONS.get(config._attn_implementation) for config in self._attention_configs()]
        return (*super().attention_functions(), *named)

    def _attention_configs(self) -> list[Any]:
        """List all configurations; parts that were copied after the build have their own."""
        parts = [part for part in self.base.modules() if hasattr(getattr(part, "config", None), "_attn_implementation")]
        return list({id(part.config): part.config for part in (self.model, *parts)}.values())

    @contextmanager
    def show_attention(self, blocks: Sequence[nn.Module], intercept: BlockIntercept) -> Iterator[None]:
        with intercept_open_attention(self._attention_configs(), blocks, intercept):
            yield

    def _run(self, images: Images) -> Logits:
        output = self.model(images, return_dict=True, **self._resizing(images))
        return self._to_logits(output if self.output_key is not None else getattr(output, "logits", output), len(images))

    def _resizing(self, images: Images) -> dict[str, bool]:
        """Return the option by which ViT and DeiT resize their positions to the image; the others always do."""
        config = self.model.config
        if config.model_type not in ("vit", "deit"):
            return {}
        expected = config.image_size if isinstance(config.image_size, list | tuple) else (config.image_size,) * 2
        return {"interpolate_pos_encoding": tuple(images.shape[2:]) != tuple(expected)}

    def _blank(self, like: Tensor, grid_size: tuple[int, int]) -> Images:
        """Return images of the right size, without content or memory: the model reads only their size."""
        projection = self._projection
        height, width = (cells * side for cells, side in zip(grid_size, projection.kernel_size, strict=True))
        return like.new_zeros(1, 1, 1, 1).expand(len(like), projection.in_channels, height, width)


def _select_kept_bias(forward: Callable[..., Tensor], kept: Kept) -> Callable[..., Tensor]:
    return lambda *inputs, **options: select_kept_pairs(forward(*inputs, **options), kept)


def _find_blocks(base: Any) -> list[nn.Module]:
    """Return the longest list of layers: the blocks that exist, whatever the configuration says."""
    lists = [part for part in base.modules() if isinstance(part, nn.ModuleList)]
    return [original(block) for block in max(lists, key=len, default=())]


def adapt_huggingface(
    module: nn.Module, name: str, class_names: tuple[str, ...], preprocessing: Preprocessing | None
) -> HuggingFaceViTAdapter:
    """Adapt a Hugging Face model as a Vision Transformer.

    The preprocessing defaults to that of the family's published models, at the model's own size (`family_preprocessing`).

    Raises:
        UnsupportedModelError: The model has another architecture, or no classifier.
    """
    kind = type(module).__name__
    model_type = getattr(getattr(module, "config", None), "model_type", None)
    if not isinstance(module, PreTrainedModel) or model_type not in FAMILIES:
        raise UnsupportedModelError(
            f"expected a Hugging Face model of type {', '.join(FAMILIES)}, got {kind} of type {model_type}, which has no adapter: "
            "patches can be removed one by one from a plain Vision Transformer only"
        )
    if "ForImageClassification" not in kind:
        raise UnsupportedModelError(
            f"expected a model with a classifier (...ForImageClassification), got {kind}; load it by AutoModelForImageClassification"
        )
    head, num_labels = getattr(module, "classifier", None) or getattr(module, "cls_classifier", None), module.config.num_labels
    if isinstance(head, nn.Identity) or not num_labels:
        raise UnsupportedModelError(
            f"expected a model with a classifier, got {kind} whose classifier is an Identity: it gives features, not the logits of "
            f"{num_labels or 'any'} classes; give it a Linear and train it"
        )
    projection = getattr(getattr(getattr(module.base_model, "embeddings", None), "patch_embeddings", None), "projection", None)
    if projection is None or not _find_blocks(module.base_model):
        raise UnsupportedModelError(
            f"expected the embeddings and the layers of a Hugging Face {model_type} inside {kind}, got a "
            f"{type(module.base_model).__name__} without them; build the model from a configuration of its own"
        )
    names = class_names or read_class_names(module.config)
    own = preprocessing or family_preprocessing(module.config)
    return HuggingFaceViTAdapter(module, own, names, name, output=configured_output(module))


def read_class_names(config: Any) -> tuple[str, ...]:
    """Return the names of the classes; empty for the default names LABEL_0, LABEL_1, ..."""
    names = [config.id2label[index] for index in range(config.num_labels)]
    return () if all(name == f"LABEL_{index}" for index, name in enumerate(names)) else tuple(names)


def family_preprocessing(config: Any) -> Preprocessing:
    """Return the preprocessing of a family's published models, at a model's own size."""
    side = getattr(config, "image_size", 224)  # A ResNet has no image_size.
    size = tuple(side) if isinstance(side, list | tuple) else (side, side)
    half = (0.5,) * config.num_channels
    if config.model_type in ("vit", "beit"):
        interpolation = "bilinear" if config.model_type == "vit" else "bicubic"
        return Preprocessing(size, 1.0, "squash", interpolation, half, half)
    mode = "squash" if config.model_type == "deit" else "center"
    return Preprocessing(size, 0.875, mode, "bicubic").for_channels(config.num_channels)

"""Hugging Face's Vision Transformers.

The module tree of these models differs from version to version of transformers, and their forward passes differ by family. So
the model's own forward pass runs, with one of its parts replaced: the embeddings return the tokens that are asked about.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from vitrail.adapters.base import BlockIntercept, ViTAdapter
from vitrail.adapters.configured_output import configured_output
from vitrail.adapters.image_checks import expect_channels, expect_multiple, first_convolution
from vitrail.adapters.logits import expect_logits
from vitrail.adapters.pooling import class_tokens, expect_kept, kept_pairs, patch_mean, plain_width
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.hooks import attributes, original, replaced_methods
from vitrail.core.types import Images, Kept, Logits, Patches, Tokens

FAMILIES = ("vit", "deit", "dinov2", "dinov2_with_registers", "beit")
"""By `model_type`."""

HEADS = ("classifier", "cls_classifier", "distillation_classifier")
"""What gives the logits; where there are two, their mean."""

OPEN_ATTENTION = "vitrail_open"
"""The name under which transformers calls `open_attention`."""

_VISIT: ContextVar[Callable[[nn.Module, Tensor], Tensor] | None] = ContextVar("visit", default=None)


def open_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Attention whose weights can be seen and changed on the path of the gradients.

    Differs: transformers' own eager attention adds a mask to the scores whatever its type, so that True becomes a bonus of 1;
    here a boolean mask hides what is False.
    """
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    elif attention_mask is not None:
        scores = scores + attention_mask
    weights = nn.functional.dropout(scores.softmax(-1), dropout, module.training)
    visit = _VISIT.get()
    if visit is not None:
        weights = visit(module, weights)
    return (weights @ value).transpose(1, 2).contiguous(), weights


AttentionInterface.register(OPEN_ATTENTION, open_attention)
AttentionMaskInterface.register(OPEN_ATTENTION, eager_mask)


@final
class HuggingFaceViTAdapter(ViTAdapter):
    """Hugging Face's ViT, DeiT (with and without teacher), DINOv2 (with and without registers) and BEiT."""

    @property
    def model(self) -> Any:
        """The whole model; its parts have no stable types."""
        return self.module

    @property
    def base(self) -> Any:
        """The model below the classifier."""
        return self.model.base_model

    @property
    def _projection(self) -> nn.Conv2d:
        return first_convolution(self.base.embeddings.patch_embeddings)

    @property
    def num_classes(self) -> int:
        return plain_width(*(getattr(self.model, name) for name in HEADS if hasattr(self.model, name))) or super().num_classes

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
        return _blocks(self.base)

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
                stack.enter_context(replaced_methods("forward", [(bias, _kept_bias(bias.forward, kept)) for bias in biases]))
            return self._run(self._blank(tokens, grid_size))

    def head(self, tokens: Tokens) -> Logits:
        skipped = [(block, lambda hidden, *_, **__: hidden) for block in self.blocks]
        with replaced_methods("forward", skipped):
            return self.forward_tokens(tokens, (1, tokens.shape[1] - self.num_prefix_tokens))

    def pooling_weights(self, num_tokens: int) -> Float[Tensor, " t"]:
        config, like = self.model.config, self.base.embeddings.cls_token
        if config.model_type.startswith("dinov2"):  # Its classifier takes both, side by side.
            patches = patch_mean(num_tokens, self.num_prefix_tokens, like)
            return (class_tokens(num_tokens, 1, like) + patches) / 2
        if getattr(config, "use_mean_pooling", False):
            return patch_mean(num_tokens, self.num_prefix_tokens, like)
        return class_tokens(num_tokens, 2 if hasattr(self.model, "distillation_classifier") else 1, like)

    def attention_functions(self) -> tuple[Any, ...]:
        named = [ALL_ATTENTION_FUNCTIONS.get(config._attn_implementation) for config in self._attention_configs()]
        return (*super().attention_functions(), *named)

    def _attention_configs(self) -> list[Any]:
        """Parts that were copied after they were built have configurations of their own."""
        parts = [part for part in self.base.modules() if hasattr(getattr(part, "config", None), "_attn_implementation")]
        return list({id(part.config): part.config for part in (self.model, *parts)}.values())

    @contextmanager
    def show_attention(self, blocks: Sequence[nn.Module], see: BlockIntercept) -> Iterator[None]:
        block_of = {part: block for block in blocks for part in block.modules()}
        outer = _VISIT.get()

        def look(module: nn.Module, weights: Tensor) -> Tensor:
            if outer is not None:
                weights = outer(module, weights)
            return see(block_of[module], weights) if module in block_of else weights

        token = _VISIT.set(look)
        try:
            with attributes(self._attention_configs(), _attn_implementation=OPEN_ATTENTION):
                yield
        finally:
            _VISIT.reset(token)

    def _run(self, images: Images) -> Logits:
        output = self.model(images, return_dict=True, **self._resizing(images))
        return expect_logits(getattr(output, "logits", output), len(images), self.name)

    def _resizing(self, images: Images) -> dict[str, bool]:
        """ViT and DeiT resize their positions to the image when they are asked; the others do it by themselves."""
        config = self.model.config
        if config.model_type not in ("vit", "deit"):
            return {}
        expected = config.image_size if isinstance(config.image_size, list | tuple) else (config.image_size,) * 2
        return {"interpolate_pos_encoding": tuple(images.shape[2:]) != tuple(expected)}

    def _blank(self, like: Tensor, grid_size: tuple[int, int]) -> Images:
        """Images of the right size and no content, which takes no memory: the model reads their size alone."""
        projection = self._projection
        height, width = (cells * side for cells, side in zip(grid_size, projection.kernel_size, strict=True))
        return like.new_zeros(1, 1, 1, 1).expand(len(like), projection.in_channels, height, width)


def _kept_bias(forward: Callable[..., Tensor], kept: Kept) -> Callable[..., Tensor]:
    return lambda *inputs, **options: kept_pairs(forward(*inputs, **options), kept)


def _blocks(base: Any) -> list[nn.Module]:
    """The longest list of layers: however many the configuration names, these are the ones that are there."""
    lists = [part for part in base.modules() if isinstance(part, nn.ModuleList)]
    return [original(block) for block in max(lists, key=len, default=())]


def adapt_huggingface(
    module: nn.Module, name: str, class_names: tuple[str, ...], preprocessing: Preprocessing | None
) -> HuggingFaceViTAdapter:
    """See a Hugging Face model as a Vision Transformer.

    Without a preprocessing: the model's size, squashed, with the mean and std that its family was published with.

    Raises:
        UnsupportedModelError: Another architecture, or no classifier.
    """
    kind = type(module).__name__
    model_type = getattr(getattr(module, "config", None), "model_type", None)
    if not isinstance(module, PreTrainedModel) or model_type not in FAMILIES:
        raise UnsupportedModelError(
            f"expected a Hugging Face model of type {', '.join(FAMILIES)}, got {kind} of type {model_type}, which has no adapter: "
            "patches can be removed one by one from a plain Vision Transformer alone"
        )
    if "ForImageClassification" not in kind or not int(getattr(module.config, "num_labels", 0)):
        raise UnsupportedModelError(
            f"expected a model with a classifier (...ForImageClassification), got {kind}; load it by AutoModelForImageClassification"
        )
    head = getattr(module, "classifier", None) or getattr(module, "cls_classifier", None)
    if isinstance(head, nn.Identity):
        raise UnsupportedModelError(
            f"expected a model with a classifier, got {kind} whose classifier is an Identity: it gives features, not the logits of "
            f"{module.config.num_labels} classes; give it a Linear and train it"
        )
    projection = getattr(getattr(getattr(module.base_model, "embeddings", None), "patch_embeddings", None), "projection", None)
    if projection is None or not _blocks(module.base_model):
        raise UnsupportedModelError(
            f"expected the embeddings and the layers of a Hugging Face {model_type} inside {kind}, got a "
            f"{type(module.base_model).__name__} without them; build the model from a configuration of its own"
        )
    names = class_names or read_class_names(module.config)
    own = preprocessing or family_preprocessing(module.config)
    return HuggingFaceViTAdapter(module, own, names, name, output=configured_output(module))


def read_class_names(config: Any) -> tuple[str, ...]:
    """Names of the classes, where somebody named them."""
    names = [config.id2label[index] for index in range(config.num_labels)]
    # Else LABEL_0, LABEL_1, ... stand there.
    return () if all(name == f"LABEL_{index}" for index, name in enumerate(names)) else tuple(names)


def family_preprocessing(config: Any) -> Preprocessing:
    """How the published models of a family see photos, at the size that a model was made for."""
    side = getattr(config, "image_size", 224)  # A ResNet has none.
    size = tuple(side) if isinstance(side, list | tuple) else (side, side)
    half = (0.5,) * config.num_channels
    if config.model_type in ("vit", "beit"):
        interpolation = "bilinear" if config.model_type == "vit" else "bicubic"
        return Preprocessing(size, 1.0, "squash", interpolation, half, half)
    mode = "squash" if config.model_type == "deit" else "center"
    return Preprocessing(size, 0.875, mode, "bicubic").for_channels(config.num_channels)

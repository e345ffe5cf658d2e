"""The adapter of Hugging Face's Vision Transformers; what families add is in `families`.

The module tree of these models differs between versions of transformers, and their forward passes differ by family. So the adapter
always runs the model's own forward pass, with embeddings that return the given tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from vitrail.adapters.base import ViTAdapter
from vitrail.adapters.huggingface.attention import intercept_open_attention
from vitrail.adapters.image_checks import expect_channels, expect_multiple, first_convolution
from vitrail.adapters.pooling import class_token_weights, expect_kept, select_kept_pairs
from vitrail.adapters.recording import BlockIntercept
from vitrail.core.hooks import original, replaced_methods
from vitrail.core.types import Images, Kept, Logits, Patches, Tokens

PREFIX_TOKENS = ("cls_token", "class_embedding", "distillation_token", "register_tokens")
"""Names of learned tokens before the patches, in their order."""

OUTPUTS = ("logits", "image_embeds", "pooler_output")
"""What a model means to return: of these fields of its output, the first that it has."""


@dataclass(frozen=True, eq=False)
class HuggingFaceViTAdapter(ViTAdapter):
    """Abstract: a Vision Transformer of transformers, with a classifier, or without one as an embedding.

    The embedding is what the library means: projected for a model of images and texts, else the pooler's output; where there is no
    pooler, the tokens after the last norm that `pooling_weights` names: the class token, or the mean where there is none.

    Attributes:
        text_problem: Why `text` is None, for messages.
    """

    resizes_on_request: ClassVar[bool] = True
    """Whether positions are resized to the image only on request; else they always are."""

    text_problem: str = field(default="", kw_only=True)

    @property
    def model(self) -> Any:
        """The whole model, untyped because its parts have no stable types."""
        return self.module

    @property
    def base(self) -> Any:
        """The part that embeds images and runs the blocks."""
        return find_base(self.module)

    @property
    def num_channels(self) -> int:
        """Number of channels of the images."""
        return first_convolution(self._embedder).in_channels

    @property
    def patch_size(self) -> tuple[int, int]:
        """Height and width of a patch in pixels."""
        height, width = first_convolution(self._embedder).kernel_size
        return height, width

    @property
    def _embedder(self) -> Any:
        return find_patch_embedding(self.base)

    @property
    def prefix_tokens(self) -> Float[Tensor, "p d"]:
        embeddings = self.base.embeddings
        width = self._embedder_weight.shape[0]
        tokens = [getattr(embeddings, name, None) for name in PREFIX_TOKENS]
        rows = [self._embedder_weight.new_empty(0, width), *(part.reshape(-1, width) for part in tokens if part is not None)]
        return torch.cat(rows)

    @property
    def _embedder_weight(self) -> Tensor:
        return first_convolution(self._embedder).weight

    @property
    def blocks(self) -> Sequence[nn.Module]:
        return find_blocks(self.base)

    def logits(self, images: Images) -> Logits:
        self.grid_size(images)
        return self._read(self.run(images), len(images))

    def grid_size(self, images: Images) -> tuple[int, int]:
        height, width = self.patch_size
        expect_channels(images, self.num_channels, self.name)
        expect_multiple((images.shape[2], images.shape[3]), (height, width), self.name)
        return images.shape[2] // height, images.shape[3] // width

    def patch_embed(self, images: Images) -> Patches:
        self.grid_size(images)
        return getattr(self._embedder, "projection", self._embedder)(images).flatten(2).mT

    def assemble(self, patches: Patches, grid_size: tuple[int, int]) -> Tokens:
        embedded = self.embedder_output(patches, grid_size)
        with replaced_methods("forward", [(self._embedder, lambda *_, **__: embedded)]):
            return self.embed(self._blank(patches, grid_size))

    def forward_tokens(self, tokens: Tokens, grid_size: tuple[int, int], kept: Kept | None = None) -> Logits:
        positions = self.position_parts()
        if positions:
            expect_kept(tokens, self.num_prefix_tokens, grid_size, kept, self.name)
        embedded = self.embeddings_output(tokens)
        replaced: list[tuple[nn.Module, Callable[..., Any]]] = [(self.base.embeddings, lambda *_, **__: embedded)]
        if kept is not None:
            replaced += [(part, self._select_positions(part.forward, kept)) for part in positions]
        with replaced_methods("forward", replaced):
            return self._read(self.run(self._blank(tokens, grid_size)), len(tokens))

    def head(self, tokens: Tokens) -> Logits:
        # What a model does between embeddings and blocks comes before these tokens, so that the blocks return them.
        result = self.block_output(tokens)
        with replaced_methods("forward", [(block, lambda *_, **__: result) for block in self.blocks]):
            return self.forward_tokens(tokens, (1, tokens.shape[1] - self.num_prefix_tokens))

    def pooling_weights(self, num_tokens: int) -> Float[Tensor, " t"]:
        return class_token_weights(num_tokens, 1, self._embedder_weight)

    def attention_functions(self) -> tuple[Any, ...]:
        named = [ALL_ATTENTION_FUNCTIONS.get(config._attn_implementation) for config in self._attention_configs()]
        return (*super().attention_functions(), *named)

    def _attention_configs(self) -> list[Any]:
        """List the configurations of the image tower; parts that were copied after the build have their own."""
        parts = [part for part in self.base.modules() if hasattr(getattr(part, "config", None), "_attn_implementation")]
        return list({id(part.config): part.config for part in parts}.values())

    @contextmanager
    def show_attention(self, blocks: Sequence[nn.Module], intercept: BlockIntercept) -> Iterator[None]:
        with intercept_open_attention(self._attention_configs(), blocks, intercept):
            yield

    def run(self, images: Images) -> Any:
        """Run the model's own forward pass, or that of the image tower of a model of images and texts."""
        forward = getattr(self.model, "get_image_features", self.model)
        # Positional, as hooks of users see positional arguments only.
        return forward(images, return_dict=True, **self.resizing(images))

    def _read(self, output: Any, num_images: int) -> Logits:
        """Find logits or embedding in what the model returned."""
        if self.output_key is None:
            found = [value for key in OUTPUTS if (value := getattr(output, key, None)) is not None]
            hidden = getattr(output, "last_hidden_state", None)
            if found:
                output = found[0]
            elif hidden is not None:
                read = self.pooling_weights(hidden.shape[1]) > 0
                output = hidden[:, read].mean(1)
        return self._to_logits(output, num_images)

    def embed(self, images: Images) -> Tokens:
        """Run the model's embeddings: patches, prefix tokens and positions."""
        output = self.base.embeddings(images, **self.resizing(images))
        return output[0] if isinstance(output, tuple) else output

    def embedder_output(self, patches: Patches, grid_size: tuple[int, int]) -> Any:
        """Return what the part that embeds patches returns for these: a map, where it is the convolution itself."""
        return patches if hasattr(self._embedder, "projection") else patches.mT.unflatten(2, grid_size)

    def embeddings_output(self, tokens: Tokens) -> Any:
        """Return what the model's embeddings return for these tokens."""
        return tokens

    def block_output(self, tokens: Tokens) -> Any:
        """Return what a block returns for these tokens."""
        return tokens

    def position_parts(self) -> list[nn.Module]:
        """List the parts that give attention the positions of patches."""
        return [part for part in self.base.modules() if hasattr(part, "relative_position_bias_table")]

    def select_positions(self, positions: Any, kept: Kept) -> Any:
        """Select the kept patches in what one of the `position_parts` returns."""
        return select_kept_pairs(positions, kept)

    def _select_positions(self, forward: Callable[..., Any], kept: Kept) -> Callable[..., Any]:
        return lambda *inputs, **options: self.select_positions(forward(*inputs, **options), kept)

    def resizing(self, images: Images) -> dict[str, bool]:
        """Return the option that resizes positions to the image, for models that do not always do so."""
        if not self.resizes_on_request:
            return {}
        side = self.base.config.image_size
        expected = tuple(side) if isinstance(side, list | tuple) else (side, side)
        return {"interpolate_pos_encoding": tuple(images.shape[2:]) != expected}

    def _blank(self, like: Tensor, grid_size: tuple[int, int]) -> Images:
        """Return images of the right size, without content or memory: the model reads only their size."""
        height, width = (cells * side for cells, side in zip(grid_size, self.patch_size, strict=True))
        return like.new_zeros(1, 1, 1, 1).expand(len(like), self.num_channels, height, width)


def find_base(module: Any) -> Any:
    """Return the part of a model that embeds images and runs the blocks."""
    tower = getattr(module, "vision_model", module)
    return tower if hasattr(tower, "embeddings") else tower.base_model


def find_patch_embedding(base: Any) -> Any:
    """Return the part that embeds patches, by the two names that transformers gives it; None if there is none."""
    embeddings = getattr(base, "embeddings", None)
    return getattr(embeddings, "patch_embeddings", getattr(embeddings, "patch_embedding", None))


def find_blocks(base: Any) -> list[nn.Module]:
    """Return the longest list of layers: the blocks that exist, whatever the configuration says."""
    lists = [part for part in base.modules() if isinstance(part, nn.ModuleList)]
    return [original(block) for block in max(lists, key=len, default=())]

"""Families without a class token: I-JEPA and SigLIP, with SigLIP 2 NaFlex."""

from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from vitrail.adapters.huggingface.adapter import HuggingFaceViTAdapter
from vitrail.adapters.pooling import uniform_weights
from vitrail.core.types import Images, Patches, Tokens


class WithoutClassToken(HuggingFaceViTAdapter):
    """Abstract: networks without prefix tokens, whose heads read all patches: a mean, or attention pooling."""

    def pooling_weights(self, num_tokens: int) -> Float[Tensor, " t"]:
        return uniform_weights(num_tokens, self._embedder_weight)


@final
class Siglip(WithoutClassToken):
    """SigLIP, SigLIP 2 of fixed size, and I-JEPA.

    SigLIP's embedding is by attention pooling, I-JEPA's the mean of the patches, which classifiers of both read.
    """


@final
class Siglip2(WithoutClassToken):
    """SigLIP 2 NaFlex: images of any aspect, as a sequence of flattened patches, with positions resized to their grid."""

    @property
    def num_channels(self) -> int:
        return int(self.base.config.num_channels)

    @property
    def patch_size(self) -> tuple[int, int]:
        side = int(self.base.config.patch_size)
        return side, side

    @property
    def _embedder_weight(self) -> Tensor:
        return next(self._embedder.parameters())

    def patch_embed(self, images: Images) -> Patches:
        self.grid_size(images)
        return self._embedder(self._flatten(images))

    def embedder_output(self, patches: Patches, grid_size: tuple[int, int]) -> Any:
        return patches

    def run(self, images: Images) -> Any:
        forward = getattr(self.model, "get_image_features", self.model)
        # Without padding no patch is masked.
        return forward(self._flatten(images), pixel_attention_mask=None, spatial_shapes=self._shapes(images), return_dict=True)

    def embed(self, images: Images) -> Tokens:
        return self.base.embeddings(self._flatten(images), self._shapes(images))

    def _flatten(self, images: Images) -> Float[Tensor, "b n pixels"]:
        """Return the pixels of every patch in one row, colors last, as the family's image processor does."""
        side = self.patch_size[0]
        cut = images.unflatten(3, (-1, side)).unflatten(2, (-1, side))  # b, channels, rows, side, columns, side.
        return cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)

    def _shapes(self, images: Images) -> Tensor:
        return torch.tensor([self.grid_size(images)] * len(images), device=images.device)

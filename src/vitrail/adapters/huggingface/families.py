"""The families of Hugging Face's Vision Transformers, by `model_type`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, final

from jaxtyping import Float
from torch import Tensor, nn
from transformers.models.data2vec.modeling_data2vec_vision import Data2VecVisionSelfAttention

from vitrail.adapters.huggingface.adapter import HuggingFaceViTAdapter
from vitrail.adapters.huggingface.without_class_token import Siglip, Siglip2
from vitrail.adapters.pooling import class_token_weights, patch_mean_weights
from vitrail.adapters.recording import BlockIntercept, intercept_outputs
from vitrail.core.hooks import original, replaced_methods
from vitrail.core.types import Images, Kept, Patches, Tokens


@final
class ViT(HuggingFaceViTAdapter):
    """ViT and ViT-MSN: a class token, and learned positions."""


@final
class DeiT(HuggingFaceViTAdapter):
    """DeiT: a class token and a distillation token, which has a classifier of its own in the model with a teacher."""

    def pooling_weights(self, num_tokens: int) -> Float[Tensor, " t"]:
        return class_token_weights(
            num_tokens, 2 if hasattr(self.model, "distillation_classifier") else 1, self._embedder_weight
        )


@final
class Dinov2(HuggingFaceViTAdapter):
    """DINOv2, with registers or without: its classifier reads the class token and the mean of the patches, concatenated."""

    resizes_on_request: ClassVar[bool] = False

    def pooling_weights(self, num_tokens: int) -> Float[Tensor, " t"]:
        class_token = super().pooling_weights(num_tokens)
        if not hasattr(self.model, "classifier"):
            return class_token
        return (class_token + patch_mean_weights(num_tokens, self.num_prefix_tokens, class_token)) / 2


@final
class DINOv3(HuggingFaceViTAdapter):
    """DINOv3: a class token, registers, and rotary positions of the patches. transformers has no classifier of it."""

    resizes_on_request: ClassVar[bool] = False

    def position_parts(self) -> list[nn.Module]:
        return [self.base.rope_embeddings]

    def select_positions(self, positions: Any, kept: Kept) -> Any:
        return tuple(rotation[kept][:, None] for rotation in positions)  # (b, 1 for all heads, n, width of a head).


class MeanPooled(HuggingFaceViTAdapter):
    """Abstract: BEiT and its descendants, which pool patches or take the class token, as their configuration says."""

    resizes_on_request: ClassVar[bool] = False

    def pooling_weights(self, num_tokens: int) -> Float[Tensor, " t"]:
        if self.base.config.use_mean_pooling:
            return patch_mean_weights(num_tokens, self.num_prefix_tokens, self._embedder_weight)
        return super().pooling_weights(num_tokens)


@final
class Beit(MeanPooled):
    """BEiT: relative positions."""


@final
class Data2VecVision(MeanPooled):
    """Data2Vec-Vision: as BEiT, with attention that transformers' `AttentionInterface` does not reach."""

    def embedder_output(self, patches: Patches, grid_size: tuple[int, int]) -> Any:
        return patches, grid_size

    def embeddings_output(self, tokens: Tokens) -> Any:
        return tokens, None

    def block_output(self, tokens: Tokens) -> Any:
        return (tokens,)

    @contextmanager
    def show_attention(self, blocks: Sequence[nn.Module], intercept: BlockIntercept) -> Iterator[None]:
        # Computed step by step, as the library itself does without fused attention, weights pass through dropout.
        layers: list[Any] = list(blocks)
        attentions = [original(layer.attention.attention) for layer in layers]
        explicit = [(part, Data2VecVisionSelfAttention.forward.__get__(part)) for part in attentions]
        dropouts = [(layer, part.dropout) for layer, part in zip(layers, attentions, strict=True)]
        with replaced_methods("forward", explicit), intercept_outputs(dropouts, intercept):
            yield


@final
class ViTMAE(HuggingFaceViTAdapter):
    """ViT-MAE's encoder on whole images: nothing is masked, and patches stay in order, as with a mask_ratio of 0."""

    def run(self, images: Images) -> Any:
        with self._unmasked():
            return super().run(images)

    def embed(self, images: Images) -> Tokens:
        with self._unmasked():
            return super().embed(images)

    @contextmanager
    def _unmasked(self) -> Iterator[None]:
        with replaced_methods("random_masking", [(self.base.embeddings, lambda patches, *_, **__: (patches, None, None))]):
            yield

    def embeddings_output(self, tokens: Tokens) -> Any:
        return tokens, None, None


@final
class Clip(HuggingFaceViTAdapter):
    """CLIP and MetaCLIP 2: the projected class token as embedding, the mean of the patches for a classifier."""

    def pooling_weights(self, num_tokens: int) -> Float[Tensor, " t"]:
        if hasattr(self.model, "classifier"):
            return patch_mean_weights(num_tokens, self.num_prefix_tokens, self._embedder_weight)
        return super().pooling_weights(num_tokens)


FAMILIES: dict[str, type[HuggingFaceViTAdapter]] = {
    "vit": ViT,
    "deit": DeiT,
    "dinov2": Dinov2,
    "dinov2_with_registers": Dinov2,
    "dinov3_vit": DINOv3,
    "beit": Beit,
    "data2vec-vision": Data2VecVision,
    "vit_msn": ViT,
    "vit_mae": ViTMAE,
    "ijepa": Siglip,
    "clip": Clip,
    "metaclip_2": Clip,
    "siglip": Siglip,
    "siglip2": Siglip2,
}
"""All families by `model_type`: add one here."""

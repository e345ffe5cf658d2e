"""Choose the adapter of a timm network by its class."""

from typing import Any

from timm.layers import Attention, AttentionRope, PatchEmbed
from timm.models.beit import Attention as BeitAttention
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva, EvaAttention
from timm.models.vision_transformer import ParallelScalingBlock, VisionTransformer
from torch import nn

from vitrail.adapters.image_checks import first_convolution
from vitrail.adapters.pooling import is_feature_head
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.adapters.timm.adapters import TimmAdapter, TimmBeitAdapter, TimmEvaAdapter, TimmViTAdapter
from vitrail.adapters.timm.labels import refuse_embedding
from vitrail.adapters.timm.preprocessing import timm_preprocessing
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.hooks import original

ADAPTERS: dict[type[nn.Module], type[TimmAdapter]] = {
    VisionTransformer: TimmViTAdapter,
    VisionTransformerDistilled: TimmViTAdapter,
    Eva: TimmEvaAdapter,
    Beit: TimmBeitAdapter,
}
"""Adapters by exact class: derived classes may compute something else."""

ATTENTIONS = (Attention, AttentionRope, EvaAttention, BeitAttention)
"""Attention classes whose weights pass `attn_drop` when not fused."""


def adapt_timm(module: nn.Module, name: str, class_names: tuple[str, ...], preprocessing: Preprocessing | None) -> TimmAdapter:
    """Adapt a user's timm network as a Vision Transformer; see `adapt_timm_vit`.

    Raises:
        UnsupportedModelError: vitrail does not support it, or its outputs are an embedding and no class names are given.
    """
    if not class_names:
        refuse_embedding(module, name)
    return adapt_timm_vit(module, name, class_names, preprocessing)


def adapt_timm_vit(
    module: nn.Module, name: str, class_names: tuple[str, ...], preprocessing: Preprocessing | None
) -> TimmAdapter:
    """Adapt a timm network, whose outputs are classes, as a Vision Transformer.

    Raises:
        UnsupportedModelError: The network has another architecture, no classifier, patches that are not embedded independently, or
            blocks without plain self-attention.
    """
    adapter = ADAPTERS.get(type(module))
    if adapter is None:
        raise UnsupportedModelError(
            f"expected timm's {', '.join(known.__name__ for known in ADAPTERS)}, got timm's {type(module).__name__}, which has no "
            f"adapter{_explain_missing_adapter(module)}"
        )
    vit: Any = module
    if is_feature_head(vit.head) or not vit.global_pool:
        raise UnsupportedModelError(
            f"expected a classifier, got a {type(module).__name__} that gives features (num_classes={vit.num_classes}, "
            f"global_pool={vit.global_pool!r}); create it with num_classes=... and train its head, or load a fine-tuned one"
        )
    # A convolutional stem, or overlapping patches, would mix patches before perturbed_logits replaces them.
    embedding = original(vit.patch_embed)
    if type(embedding) is not PatchEmbed:
        raise UnsupportedModelError(
            f"expected patches that are embedded one by one (timm's PatchEmbed), got {type(embedding).__name__}, in which they overlap"
        )
    num_channels = first_convolution(embedding).in_channels
    for block in map(original, vit.blocks):
        if not isinstance(block, ParallelScalingBlock) and type(original(getattr(block, "attn", None))) not in ATTENTIONS:
            raise UnsupportedModelError(
                f"expected blocks of one self-attention each, got timm's {type(block).__name__} with "
                f"{type(getattr(block, 'attn', None)).__name__}, which has no adapter"
            )
    own = preprocessing or timm_preprocessing(module).for_channels(num_channels)
    return adapter(module, own, class_names, name)


def _explain_missing_adapter(module: nn.Module) -> str:
    kind = type(module).__name__
    known = next((base for base in type(module).__mro__ if base in ADAPTERS), None)
    if known is not None:
        base = known.__name__
        return f": it derives from {base} and may have steps of its own; adapt a {base} with its weights, or write an adapter"
    if any(part in kind for part in ("Swin", "Hiera", "MViT", "Pvt", "MaxxVit", "Davit", "Twins")):
        return ": its tokens are merged or attend in windows, so that patches cannot be removed one by one"
    if kind.endswith("SAM"):
        return ": it attends in windows and has no classifier"
    return ""

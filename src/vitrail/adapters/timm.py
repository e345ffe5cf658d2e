"""timm's Vision Transformers."""

from collections.abc import Mapping
from typing import Any

import timm
from timm.data import ImageNetInfo, infer_imagenet_subset, resolve_model_data_config
from timm.layers import Attention, AttentionRope, PatchEmbed
from timm.models.beit import Attention as BeitAttention
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva, EvaAttention
from timm.models.vision_transformer import ParallelScalingBlock, VisionTransformer
from torch import nn

from vitrail.adapters.grid import first_convolution
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.adapters.readout import gives_features
from vitrail.adapters.timm_networks import TimmAdapter, TimmBeitAdapter, TimmEvaAdapter, TimmViTAdapter
from vitrail.errors import InvalidInputError, UnknownNameError, UnsupportedModelError
from vitrail.hooks import original
from vitrail.registry import unknown_name

ADAPTERS: dict[type[nn.Module], type[TimmAdapter]] = {
    VisionTransformer: TimmViTAdapter,
    VisionTransformerDistilled: TimmViTAdapter,
    Eva: TimmEvaAdapter,
    Beit: TimmBeitAdapter,
}
"""By exact class: a class derived from these has steps of its own that no adapter knows."""

ATTENTIONS = (Attention, AttentionRope, EvaAttention, BeitAttention)
"""Attention whose weights pass `attn_drop` when it is not fused."""


def adapt_timm(module: nn.Module, name: str, class_names: tuple[str, ...], preprocessing: Preprocessing | None) -> TimmAdapter:
    """See a timm network as a Vision Transformer.

    Raises:
        UnsupportedModelError: Another architecture, no classifier, patches that are not embedded one by one, or blocks without
            plain self-attention.
    """
    adapter = ADAPTERS.get(type(module))
    if adapter is None:
        raise UnsupportedModelError(
            f"expected timm's {', '.join(known.__name__ for known in ADAPTERS)}, got timm's {type(module).__name__}, which has no "
            f"adapter{_why_not(module)}"
        )
    vit: Any = module
    if gives_features(vit.head) or not vit.global_pool:
        raise UnsupportedModelError(
            f"expected a classifier, got a {type(module).__name__} that gives features (num_classes={vit.num_classes}, "
            f"global_pool={vit.global_pool!r}); create it with num_classes=... and train its head, or load a fine-tuned one"
        )
    # A ResNet before the blocks, or overlapping patches, would mix patches before perturbed_logits replaces them.
    embedding = original(vit.patch_embed)
    if type(embedding) is not PatchEmbed:
        raise UnsupportedModelError(
            f"expected patches that are embedded one by one (timm's PatchEmbed), got {type(embedding).__name__}, in which they overlap"
        )
    first_convolution(embedding)
    for block in map(original, vit.blocks):
        if not isinstance(block, ParallelScalingBlock) and type(original(getattr(block, "attn", None))) not in ATTENTIONS:
            raise UnsupportedModelError(
                f"expected blocks of one self-attention each, got timm's {type(block).__name__} with "
                f"{type(getattr(block, 'attn', None)).__name__}, which has no adapter"
            )
    return adapter(module, preprocessing or timm_preprocessing(module), class_names, name)


def _why_not(module: nn.Module) -> str:
    kind = type(module).__name__
    if any(part in kind for part in ("Swin", "Hiera", "MViT", "Pvt", "MaxxVit", "Davit", "Twins")):
        return ": its tokens are merged or attend in windows, so that patches cannot be removed one by one"
    if kind.endswith("SAM"):
        return ": it attends in windows and has no classifier"
    return ""


def timm_preprocessing(module: nn.Module) -> Preprocessing:
    """The preprocessing that a timm model was trained with, at the size that it was created for."""
    config = resolve_model_data_config(module)
    # The pretrained configuration does not know of img_size=....
    size = getattr(getattr(module, "patch_embed", None), "img_size", None) or config["input_size"][1:]
    if config["crop_mode"] not in ("center", "squash"):
        raise UnsupportedModelError(
            f"expected preprocessing with a centre crop or squashing, got timm's crop_mode {config['crop_mode']!r}"
        )
    return Preprocessing(
        size=tuple(size),
        crop_fraction=config["crop_pct"],
        crop_mode=config["crop_mode"],
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def create_timm(name: str, *, pretrained: bool = True, **options: Any) -> TimmAdapter:
    """Create a timm model by name and adapt it.

    Raises:
        UnknownNameError: timm knows no such model, or its weights could not be fetched.
        UnsupportedModelError: It is no Vision Transformer that vitrail knows.
    """
    module = make_timm(name, pretrained, options)
    return adapt_timm(module, f"timm:{name}", timm_class_names(module), None)


def make_timm(name: str, pretrained: bool, options: Mapping[str, Any]) -> nn.Module:
    """Create a timm model of any architecture by name.

    Raises:
        UnknownNameError: timm knows no such model, or its weights could not be fetched.
        InvalidInputError: Options that it does not have, or that do not go together.
    """
    if ":" not in name and not timm.is_model(name):
        raise unknown_name("timm model", name, timm.list_models("*vit*") + timm.list_models("deit*"))
    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    except (TypeError, AssertionError) as error:
        raise InvalidInputError(f"timm cannot create {name!r} with {dict(options)}: {error}") from error
    except Exception as error:  # Network, hub and file errors have no common base.
        if not pretrained:
            raise InvalidInputError(f"timm cannot create {name!r} with {dict(options)}: {error!r}") from error
        raise UnknownNameError(
            f"cannot load the weights of timm:{name}: {error}; check the name and the connection, or ask for random weights by "
            "pretrained=False"
        ) from error


def timm_class_names(module: nn.Module) -> tuple[str, ...]:
    """ImageNet's class names, for models that were trained on it."""
    subset = infer_imagenet_subset(module)
    if subset is None:
        return ()
    info = ImageNetInfo(subset)
    return tuple(info.index_to_description(index) for index in range(info.num_classes()))

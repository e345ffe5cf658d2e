"""Create and adapt timm's Vision Transformers."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import timm
from timm.data import resolve_model_data_config
from timm.layers import Attention, AttentionRope, PatchEmbed
from timm.models.beit import Attention as BeitAttention
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva, EvaAttention
from timm.models.vision_transformer import ParallelScalingBlock, VisionTransformer
from torch import nn

from vitrail.adapters.image_checks import first_convolution
from vitrail.adapters.model_folders import check_weight_files, read_folder_config
from vitrail.adapters.pooling import is_feature_head
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.adapters.timm_labels import refuse_embedding, timm_class_names
from vitrail.adapters.timm_networks import TimmAdapter, TimmBeitAdapter, TimmEvaAdapter, TimmViTAdapter
from vitrail.core.errors import CheckpointError, InvalidInputError, UnknownNameError, UnsupportedModelError
from vitrail.core.hooks import original
from vitrail.core.registry import unknown_name
from vitrail.models.limits import build_on_meta, check_numbers, expect_enough_bytes

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


def timm_preprocessing(module: nn.Module) -> Preprocessing:
    """Return the preprocessing that a timm model was trained with, at the size that it was created for.

    Raises:
        UnsupportedModelError: vitrail does not support its crop mode.
        CheckpointError: The model's description of it is invalid.
    """
    try:
        return _convert_preprocessing(module)
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(f"the preprocessing that this timm model describes makes no sense: {error}") from error


def _convert_preprocessing(module: nn.Module) -> Preprocessing:
    config = resolve_model_data_config(module)
    # The pretrained configuration ignores img_size=....
    size = getattr(getattr(module, "patch_embed", None), "img_size", None) or config["input_size"][1:]
    if config["crop_mode"] not in ("center", "squash"):
        raise UnsupportedModelError(
            f"expected preprocessing with a center crop or squashing, got timm's crop_mode {config['crop_mode']!r}"
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
        UnsupportedModelError: The model is not a Vision Transformer that vitrail supports.
    """
    module = make_timm(name, pretrained, options)
    if "num_classes" not in options:  # Choosing num_classes implies that the outputs are classes.
        refuse_embedding(module, f"timm:{name}")
    return adapt_timm_vit(module, f"timm:{name}", timm_class_names(module), None)


def make_timm(name: str, pretrained: bool, options: Mapping[str, Any]) -> nn.Module:
    """Create a timm model of any architecture by name.

    Raises:
        UnknownNameError: timm knows no such model, or its weights could not be fetched.
        InvalidInputError: The model does not have these options, or their values are incompatible.
        CheckpointError: The weights or the configuration of a folder are invalid or too large.
    """
    if ":" not in name and not timm.is_model(name):
        raise unknown_name("timm model", name, timm.list_models("*vit*") + timm.list_models("deit*"))
    check_numbers(options, f"timm:{name}")
    if ":" in name:
        _check_source(name, pretrained, options)
    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    except (TypeError, AssertionError) as error:
        raise InvalidInputError(f"timm cannot create {name!r} with {dict(options)}: {error}") from error
    except CheckpointError:
        raise
    except Exception as error:  # Network, hub and file errors have no common base.
        if not pretrained:
            raise InvalidInputError(f"timm cannot create {name!r} with {dict(options)}: {error!r}") from error
        raise UnknownNameError(
            f"cannot load the weights of timm:{name}: {error}; check the name and the connection, or ask for random weights by "
            "pretrained=False"
        ) from error


def _check_source(name: str, pretrained: bool, options: Mapping[str, Any]) -> None:
    """Check the configuration and weights of a folder or repository before timm builds the network."""
    source, _, path = name.partition(":")
    local = source.lower() == "local-dir"
    if local:
        read_folder_config(path)
    else:
        config = _fetch_config(path)
        check_numbers(config, f"timm:{name}")
    num_bytes = check_weight_files(path) if local and pretrained else 0
    skeleton = build_on_meta(lambda: timm.create_model(name, pretrained=False, **options), f"timm:{name}", num_bytes)
    expect_enough_bytes(skeleton, num_bytes, path)


def _fetch_config(repository: str) -> Mapping[str, Any]:
    """Fetch the arguments that a hub repository gives to its architecture; empty on errors, which loading reports."""
    with suppress(Exception):  # Network, hub and file errors have no common base.
        return dict(timm.models.load_model_config_from_hf(repository)[2])
    return {}

"""Choose the adapter of an open_clip network by the class of its image tower."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from open_clip import CLIP, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD, CoCa, CustomTextCLIP
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import nn

from vitrail.adapters.classifier import Classifier
from vitrail.adapters.image_checks import first_convolution
from vitrail.adapters.open_clip.adapter import OpenClipViTAdapter, image_tower
from vitrail.adapters.open_clip.text import OpenClipText
from vitrail.adapters.plain import adapt_plain
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.adapters.subclasses import is_unchanged
from vitrail.adapters.timm.adapting import adapt_timm
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.hooks import original

MODELS = (CLIP, CustomTextCLIP, CoCa)
"""Models of images and texts."""

TOWERS = (VisionTransformer, TimmModel, ModifiedResNet)
"""Image towers."""

CROP_MODES = {"shortest": "center", "squash": "squash"}
"""Our crop mode by open_clip's resize mode."""


def adapt_open_clip(
    module: nn.Module, name: str, class_names: tuple[str, ...], preprocessing: Preprocessing | None, model_name: str = ""
) -> Classifier:
    """Adapt a model of images and texts, or an image tower, as a network that gives an embedding.

    A Vision Transformer of open_clip or of timm becomes a `ViTAdapter`, any other tower a `PlainClassifier`.

    Args:
        module: A network of open_clip.
        name: Its name in results.
        class_names: Names of classes.
        preprocessing: Defaults to the model's own.
        model_name: Name of the architecture in open_clip, which tells the tokenizer.

    Raises:
        UnsupportedModelError: It is something else, such as a text tower.
    """
    text = OpenClipText(module, model_name) if isinstance(module, MODELS) else None
    tower: Any = image_tower(module)
    if not isinstance(tower, TOWERS):
        raise UnsupportedModelError(
            f"expected a model or an image tower of open_clip, got its {type(module).__name__}; give the whole model"
        )
    own = preprocessing or open_clip_preprocessing(module)
    try:
        if isinstance(tower, TimmModel):
            classifier = _adapt_trunk(tower, name, class_names, own)
        else:
            classifier = _adapt_vit(module, tower, name, class_names, own)
    except UnsupportedModelError as error:
        classifier = adapt_plain(tower, name, class_names, own, reason=str(error))
    return replace(classifier, output="embedding", text=text)


def _adapt_vit(
    module: nn.Module, tower: Any, name: str, class_names: tuple[str, ...], preprocessing: Preprocessing
) -> OpenClipViTAdapter:
    if not is_unchanged(tower, VisionTransformer, "_embeds", "_pool", "_global_pool"):
        raise UnsupportedModelError(
            f"expected open_clip's VisionTransformer as image tower, got {type(tower).__name__}, which has no adapter"
        )
    first_convolution(tower.conv1)
    if tower.pool_type == "none":
        raise UnsupportedModelError(
            f"expected one embedding per image, got pool_type {tower.pool_type!r}, which gives one per token"
        )
    for block in map(original, tower.transformer.resblocks):
        if not isinstance(block, ResidualAttentionBlock) or not tower.transformer.batch_first:
            raise UnsupportedModelError(
                f"expected blocks with torch's attention, batch first, got open_clip's {type(block).__name__}, which has no adapter"
            )
    return OpenClipViTAdapter(module, preprocessing, class_names, name)


def _adapt_trunk(tower: Any, name: str, class_names: tuple[str, ...], preprocessing: Preprocessing) -> Classifier:
    """Adapt the timm network inside an image tower that adds nothing to it."""
    if not is_unchanged(tower, TimmModel) or len(tower.head):
        raise UnsupportedModelError(
            "expected an image tower of timm alone, got layers after it; only methods for any classifier apply"
        )
    return adapt_timm(tower.trunk, name, class_names, preprocessing)


def open_clip_preprocessing(module: nn.Module) -> Preprocessing:
    """Return a model's own preprocessing; where it carries none, that of CLIP at the size of its image tower.

    Raises:
        UnsupportedModelError: It pads photos.
    """
    tower: Any = image_tower(module)
    fields: Mapping[str, Any] = getattr(tower, "preprocess_cfg", {})
    size: Any = fields.get("size", getattr(tower, "image_size", 224))
    height, width = (size, size) if isinstance(size, int) else size
    mode = fields.get("resize_mode", "shortest")
    if mode not in CROP_MODES:
        raise UnsupportedModelError(
            f"expected a resize_mode of {' or '.join(CROP_MODES)}, got {mode!r}, which pads photos; give vitrail.adapt a Preprocessing"
        )
    return Preprocessing(
        size=(height, width),
        crop_fraction=1.0,
        crop_mode=CROP_MODES[mode],
        interpolation="bilinear" if fields.get("interpolation") == "bilinear" else "bicubic",
        mean=tuple(fields.get("mean", OPENAI_DATASET_MEAN)),
        std=tuple(fields.get("std", OPENAI_DATASET_STD)),
    )

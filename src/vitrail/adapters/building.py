"""Build a network for training by name: a HiT, an INTR, or any classifier of timm, Hugging Face or torchvision."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from vitrail.adapters.build_spec import ModelSpec
from vitrail.adapters.class_names import check_class_names
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.libraries import get_library
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.core.errors import InvalidInputError, UnknownNameError
from vitrail.core.registry import unknown_name
from vitrail.models.hit import HIT_SIZES
from vitrail.models.intr.config import INTR_NAMES


def build(
    name: str,
    *,
    num_classes: int,
    in_channels: int = 3,
    image_size: tuple[int, int] | None = None,
    drop_path: float | None = None,
    attention_dropout: float | None = None,
    pretrained: bool = False,
    class_names: Sequence[str] = (),
    preprocessing: Preprocessing | None = None,
    **options: Any,
) -> Classifier:
    """Build a network for training, untrained or with its library's weights. `vitrail.save` writes it as one file.

    Returns a `ViTAdapter` for Vision Transformers that vitrail supports, a `PlainClassifier` for others, such as ConvNeXt.

    Args:
        name: A size of HiT, e.g. `hit_small_patch16_224`; an INTR, e.g. `intr_resnet50`, or `intr` with the option `backbone`;
            or `timm:<model>`, `torchvision:<model>`, `hf:<folder or hub repository>`, or `hf:<type>`, e.g. `hf:vit`, for a bare
            transformers configuration.
        num_classes: Number of logits. The head is new where trained weights have another number.
        in_channels: Image channels.
        image_size: Height and width in pixels; defaults to the network's own.
        drop_path: Largest stochastic depth rate.
        attention_dropout: Dropout on attention weights.
        pretrained: Whether to start from the library's trained weights.
        class_names: One per class, if known.
        preprocessing: Turns a photo into the network's input; defaults to the network's own, at `image_size`.
        options: Fields of `HiTConfig` or `INTRConfig`, arguments of `timm.create_model` or of torchvision's builder, fields of the
            Hugging Face configuration.

    Raises:
        UnknownNameError: There is no such network, or its weights could not be fetched.
        InvalidInputError: The network does not have these options, or their values are incompatible.
    """
    if num_classes < 1 or in_channels < 1:
        raise InvalidInputError(f"expected at least one class and one channel, got {num_classes} and {in_channels}")
    spec = ModelSpec(num_classes, in_channels, image_size, drop_path, attention_dropout, pretrained, options)
    source, colon, rest = name.partition(":")
    if not colon:
        source, rest = "hit" if name in HIT_SIZES else "intr", name
        if name not in (*HIT_SIZES, *INTR_NAMES):
            unknown = unknown_name("size of HiT or INTR", name, [*HIT_SIZES, *INTR_NAMES])
            raise UnknownNameError(f"{unknown}; or give the library too, as in timm:{name or 'convnext_atto'}")
    classifier = get_library(source).build(rest, spec)
    if preprocessing is not None:
        classifier = replace(classifier, preprocessing=preprocessing)
    if class_names:
        check_class_names(class_names, num_classes)
        classifier = replace(classifier, class_names=tuple(class_names))
    return classifier

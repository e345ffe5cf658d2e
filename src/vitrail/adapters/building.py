"""Build a network for training by name: a HiT, an INTR, or any classifier of timm, Hugging Face or torchvision."""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

from vitrail.adapters.build_spec import ModelSpec
from vitrail.adapters.class_names import check_class_names
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.hit import adapt_hit
from vitrail.adapters.intr_building import build_intr
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.core.errors import InvalidInputError, MissingExtraError, UnknownNameError
from vitrail.core.registry import Registry, unknown_name
from vitrail.models.hit import HIT_SIZES, HiT, HiTConfig
from vitrail.models.intr.config import INTR_NAMES

Builder = Callable[[str, ModelSpec], Classifier]

BUILDERS: Registry[Builder] = Registry("source of networks")
"""Builders by the word before the colon in `timm:vit_small_patch16_224`."""


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
    if colon:
        classifier = BUILDERS[source](rest, spec)
    elif name in HIT_SIZES:
        classifier = _build_hit(name, spec)
    elif name in INTR_NAMES:
        classifier = build_intr(name, spec)
    else:
        unknown = unknown_name("size of HiT or INTR", name, [*HIT_SIZES, *INTR_NAMES])
        raise UnknownNameError(f"{unknown}; or give the library too, as in timm:{name or 'convnext_atto'}")
    if preprocessing is not None:
        classifier = replace(classifier, preprocessing=preprocessing)
    if class_names:
        check_class_names(class_names, num_classes)
        classifier = replace(classifier, class_names=tuple(class_names))
    return classifier


def _build_hit(name: str, spec: ModelSpec) -> Classifier:
    if spec.pretrained:
        raise InvalidInputError(
            f"{name} has no weights of a library; expected pretrained=False, and weights copied by vitrail.adapters.transfer_weights"
        )
    known = [field.name for field in fields(HiTConfig)]
    unknown = [option for option in spec.options if option not in known]
    if unknown:
        raise unknown_name("field of HiTConfig", unknown[0], known)
    translated = {key: (key, getattr(spec, key)) for key in ("image_size", "drop_path", "attention_dropout")}
    given = spec.merge_options(translated, name)
    try:
        module = HiT.from_name(name, num_classes=spec.num_classes, in_channels=spec.in_channels, **given)
    except TypeError as error:
        raise InvalidInputError(f"cannot build {name} with {given}: {error}") from error
    return adapt_hit(module, name, (), spec.preprocessing(Preprocessing(module.config.image_size)))


@BUILDERS.register("timm")
def _build_timm(name: str, spec: ModelSpec) -> Classifier:
    from vitrail.adapters.timm_building import build_timm  # noqa: PLC0415 (timm is heavy)

    return build_timm(name, spec)


@BUILDERS.register("torchvision")
def _build_torchvision(name: str, spec: ModelSpec) -> Classifier:
    from vitrail.adapters.torchvision_building import build_torchvision  # noqa: PLC0415 (heavy)

    return build_torchvision(name, spec)


@BUILDERS.register("hf")
def _build_huggingface(name: str, spec: ModelSpec) -> Classifier:
    try:
        from vitrail.adapters.huggingface_building import build_huggingface  # noqa: PLC0415 (heavy, and an extra)
    except ImportError as error:
        raise MissingExtraError(f"hf:{name}", "hf") from error
    return build_huggingface(name, spec)

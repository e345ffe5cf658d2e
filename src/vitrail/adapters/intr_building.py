"""INTRs by name: their backbones, torchvision's ResNets or any of timm's networks, and what is trained of them already."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from vitrail.adapters.build_spec import ModelSpec, frozen_lists
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.intr import INTR_PREPROCESSING, adapt_intr
from vitrail.core.errors import CheckpointError, InvalidInputError, UnknownNameError
from vitrail.core.registry import unknown_name
from vitrail.models.checkpoints import Checkpoint, in_single, load_strictly
from vitrail.models.intr import INTR, INTR_SIZES, Backbone, INTRConfig, ResNet
from vitrail.models.intr.backbone import batch_counters, joined_names
from vitrail.models.intr.config import FREE
from vitrail.models.intr.published import is_detr, published_config, published_settings

TIMM = "timm:"


def build_backbone(config: INTRConfig, pretrained: bool = False) -> Backbone:
    """Build the backbone of an INTR, untrained or with its library's weights.

    Raises:
        UnknownNameError: No such network, or its weights could not be fetched.
        InvalidInputError: Options that it does not have.
    """
    options = dict(frozen_lists(config.backbone_options))
    if config.backbone.startswith(TIMM):
        from vitrail.adapters.timm_backbone import TimmBackbone  # noqa: PLC0415 (timm is heavy)

        return TimmBackbone(config.backbone.removeprefix(TIMM), config.frozen, pretrained, **options)
    if sorted(options) not in ([], ["dilation"]):
        raise InvalidInputError(f"{config.backbone} has the option dilation, got {', '.join(options)}")
    backbone = ResNet(config.backbone, config.frozen, **options)
    if pretrained:
        load_strictly(
            backbone.network,
            joined_names(_trained(config.backbone)),
            f"torchvision:{config.backbone}",
            batch_counters(backbone.network),
        )
    return backbone


def build_intr(name: str, wanted: ModelSpec) -> Classifier:
    """Build an INTR for training.

    Args:
        name: `intr_resnet50` and its like, or `intr` with an option `backbone`.
        wanted: Options are fields of `INTRConfig`; `pretrained` is for the backbone.

    Raises:
        UnknownNameError: No such backbone, or its weights could not be fetched.
        InvalidInputError: Options that an INTR does not have, or values that do not go together.
    """
    known = [field.name for field in fields(INTRConfig) if field.name != "num_classes"]
    unknown = [option for option in wanted.options if option not in known]
    if unknown:
        raise unknown_name("field of INTRConfig", unknown[0], known)
    for key in ("drop_path", "attention_dropout"):
        if getattr(wanted, key) is not None:
            raise InvalidInputError(f"{name} has no {key}; leave it out, or give its backbone one by backbone_options")
    if wanted.in_channels != 3:
        raise InvalidInputError(f"expected images of 3 channels for {name}, got {wanted.in_channels}")
    given = wanted.merged({}, name)
    if (name == FREE) is not ("backbone" in given):
        raise InvalidInputError(
            f"expected an option backbone (resnet50, or timm:NAME) with the name {FREE}, and with no other, got "
            f"{given.get('backbone')!r} with {name}"
        )
    config = replace(INTR_SIZES.get(name, INTRConfig()), num_classes=wanted.num_classes, **given)
    preprocessing = wanted.preprocessing(INTR_PREPROCESSING)
    module = INTR(config, build_backbone(config, wanted.pretrained))
    # Refused here rather than in the first step of training.
    module.grid_size(*preprocessing.size)
    return adapt_intr(module, name, (), preprocessing)


def rebuild_intr(config: Mapping[str, Any]) -> INTR:
    """Build the network that a file describes, without its weights."""
    described = INTRConfig.from_dict(config)
    return INTR(described, build_backbone(described))


def build_published(checkpoint: Checkpoint, source: str, **options: Any) -> Classifier:
    """Build the INTR of a published file, with its weights.

    Raises:
        CheckpointError: Not the weights of an INTR; those of the detector that one starts from, for instance.
        InvalidInputError: Options other than the settings that weights do not tell.
    """
    known = ("nheads", "dilation", "dropout")
    if set(options) - set(known):
        raise InvalidInputError(f"a published INTR has the options {', '.join(known)}, got {', '.join(options)}")
    if is_detr(checkpoint.state):
        raise CheckpointError(
            f"{source} is a DETR, which detects objects; train an INTR from it (vitrail train with model.start_from={source})"
        )
    config = published_config(checkpoint.state, {**published_settings(checkpoint.extra), **options})
    module = INTR(config, build_backbone(config)).load_published(in_single(checkpoint.state), source)
    return adapt_intr(module, source, (), None)


def _trained(name: str) -> Mapping[str, Any]:
    import torchvision  # noqa: PLC0415 (heavy)

    try:
        weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
        state = dict(weights.get_state_dict(progress=False, check_hash=True))
    except Exception as error:  # Of the network in between, or of a file that is not what it should be.
        raise UnknownNameError(f"cannot fetch the weights of torchvision:{name}: {error}") from error
    return {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}

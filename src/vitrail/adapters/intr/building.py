"""Build INTRs by name, with backbones of torchvision or timm, and from published files."""

from collections.abc import Mapping
from typing import Any

from vitrail.adapters.build_spec import lists_to_tuples
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.intr.adapter import adapt_intr
from vitrail.core.errors import CheckpointError, InvalidInputError, UnknownNameError
from vitrail.models.checkpoints import Checkpoint, load_strictly, to_single_precision
from vitrail.models.intr import INTR, Backbone, INTRConfig, ResNet
from vitrail.models.intr.backbone import batch_counter_names, rename_resnet_weights
from vitrail.models.intr.published import is_detr, published_config, published_settings

TIMM = "timm:"


def build_backbone(config: INTRConfig, pretrained: bool = False) -> Backbone:
    """Build the backbone of an INTR, untrained or with its library's weights.

    Raises:
        UnknownNameError: There is no such network, or its weights could not be fetched.
        InvalidInputError: The network does not have these options.
    """
    options = dict(lists_to_tuples(config.backbone_options))
    if config.backbone.startswith(TIMM):
        from vitrail.adapters.intr.timm_backbone import TimmBackbone  # noqa: PLC0415 (timm is heavy)

        return TimmBackbone(config.backbone.removeprefix(TIMM), config.frozen, pretrained, **options)
    if sorted(options) not in ([], ["dilation"]):
        raise InvalidInputError(f"{config.backbone} has the option dilation, got {', '.join(options)}")
    backbone = ResNet(config.backbone, config.frozen, **options)
    if pretrained:
        load_strictly(
            backbone.network,
            rename_resnet_weights(_fetch_resnet_weights(config.backbone)),
            f"torchvision:{config.backbone}",
            batch_counter_names(backbone.network),
        )
    return backbone


def build_published(checkpoint: Checkpoint, source: str, **options: Any) -> Classifier:
    """Build the INTR of a published file, with its weights.

    Raises:
        CheckpointError: The weights are not an INTR's; they may be those of a DETR.
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
    module = INTR(config, build_backbone(config)).load_published(to_single_precision(checkpoint.state), source)
    return adapt_intr(module, source, (), None)


def _fetch_resnet_weights(name: str) -> Mapping[str, Any]:
    import torchvision  # noqa: PLC0415 (heavy)

    try:
        weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
        state = dict(weights.get_state_dict(progress=False, check_hash=True))
    except Exception as error:  # Network, hash and file errors have no common base.
        raise UnknownNameError(f"cannot fetch the weights of torchvision:{name}: {error}") from error
    return {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}

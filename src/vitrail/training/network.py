"""Build the network of a recipe, transfer trained weights into it, and choose the weights to train."""

import logging

import torch
from torch import nn

from vitrail.adapters import Classifier, Preprocessing, build, transfer_weights
from vitrail.adapters.libraries import get_library
from vitrail.core.errors import InvalidInputError
from vitrail.models.intr import INTR
from vitrail.models.intr.config import INTR_NAMES
from vitrail.training.distillation import enable_distillation
from vitrail.training.sections import ModelConfig

logger = logging.getLogger(__name__)

HIT_FIELDS = ("patch_size", "depths", "widths", "num_heads", "mlp_ratio", "dropout", "position_embedding")

ATTENTION_PARTS = ("attn", "attention", "self_attention", "cross_attention")
HEAD_PARTS = (
    "head",
    "head_dist",
    "heads",
    "fc",
    "classifier",
    "cls_classifier",
    "distillation_classifier",
    "queries",
    "presence",
)
POSITIONS = ("positions", "pos_embed", "pos_embedding", "position_embeddings")
"""Names of modules and weights in vitrail's networks, timm, torchvision and Hugging Face."""


def build_network(
    config: ModelConfig, class_names: list[str], in_channels: int, preprocessing: Preprocessing | None = None
) -> Classifier:
    """Build the network of a recipe, with its initial weights.

    Args:
        config: Section `model` of the recipe.
        class_names: One name per class.
        preprocessing: Preprocessing of photos; None for the network's default.

    Raises:
        InvalidInputError: The network does not have one of the keys, or values contradict each other.
        UnknownNameError: There is no such network.
        CheckpointError: The trained weights do not fit.
    """
    fields = {key: value for key in HIT_FIELDS if (value := getattr(config, key)) is not None}
    is_hit = ":" not in config.name and config.name not in INTR_NAMES
    if is_hit and config.options:
        raise InvalidInputError(
            f"expected no model.options for the HiT {config.name}, got {', '.join(config.options)}; set keys of model instead"
        )
    if not is_hit and fields:
        raise InvalidInputError(
            f"expected model.{next(iter(fields))} only for a HiT, got it for {config.name}; set model.options instead"
        )
    size = (config.image_size,) * 2 if isinstance(config.image_size, int) else config.image_size
    classifier = build(
        config.name,
        num_classes=len(class_names),
        in_channels=in_channels,
        image_size=size,
        drop_path=config.drop_path,
        attention_dropout=config.attention_dropout,
        pretrained=config.pretrained,
        class_names=class_names,
        preprocessing=preprocessing,
        **{**fields, **config.options},
    )
    if config.initialization == "mimetic":
        if config.pretrained or config.start_from is not None:
            raise InvalidInputError(
                "expected model.initialization: mimetic without trained weights; leave out pretrained and start_from"
            )
        get_library(config.name.partition(":")[0] if ":" in config.name else "hit").initialize_mimetically(classifier.module)
    if config.start_from is not None:
        noise = {} if config.query_noise is None else {"query_noise": config.query_noise}
        report = transfer_weights(classifier, config.start_from, keep_head=config.keep_head, **noise)
        has_new_head = any(_has_part(name, HEAD_PARTS) for name in report.new)
        if config.keep_head and has_new_head:
            raise InvalidInputError(
                f"expected a head for {len(class_names)} classes in {config.start_from}, since model.keep_head is true, found none that "
                "fits; leave model.keep_head out"
            )
        logger.info("%s: %s", config.start_from, report)
    return classifier


RANDOM_AND_FROZEN = (
    "the backbone has random weights, and its first layers and batch norms are frozen; set model.pretrained, model.start_from, or "
    "model.options.frozen=false"
)


def is_random_and_frozen(config: ModelConfig) -> bool:
    """Return whether an INTR would train on an untrained ResNet whose first layers and batch norms are frozen."""
    resnet = config.name in INTR_NAMES and not str(config.options.get("backbone", "")).startswith("timm:")
    return resnet and config.options.get("frozen", True) and not config.pretrained and config.start_from is None


def prepare_for_training(module: nn.Module, train: str, distilled: bool, fused_attention: bool | None = None) -> None:
    """Switch a network to training mode and freeze the weights that are not trained.

    Args:
        train: "all", "attention" (with positions and head) or "head".
        distilled: Whether a teacher trains the distillation token.
        fused_attention: Whether timm computes attention in one kernel; None for timm's default.

    Raises:
        InvalidInputError: The network has no attention to train.
    """
    if distilled:
        enable_distillation(module)
    if train != "all":
        parts = (*ATTENTION_PARTS, *POSITIONS) if train == "attention" else ()
        trained = {name for name, _ in module.named_parameters() if _has_part(name, parts)}
        if train == "attention" and not any(_has_part(name, ATTENTION_PARTS) for name in trained):
            raise InvalidInputError(
                f"expected a network with attention for model.train: attention, got {type(module).__name__}"
            )
        trained |= {name for name, _ in module.named_parameters() if _has_part(name, HEAD_PARTS)}
        for name, parameter in module.named_parameters():
            # Weights that are frozen already, such as unused ones, stay frozen.
            parameter.requires_grad_(parameter.requires_grad and name in trained)
    if fused_attention is not None:
        for part in module.modules():
            if hasattr(part, "fused_attn"):
                part.fused_attn = fused_attention  # type: ignore[assignment]  # a plain attribute
    # Lightning does not change the mode of modules.
    module.train()
    for part in module.modules():
        learns = any(parameter.requires_grad for parameter in part.parameters(recurse=False))
        if train != "all" and isinstance(part, nn.modules.batchnorm._BatchNorm) and not learns:
            part.eval()  # Otherwise its running statistics would still adapt to the new images.


def store_channels_last(module: nn.Module) -> None:
    """Store the weights of convolutions channels last; what they compute then is, too, and changes by rounding only."""
    module.to(memory_format=torch.channels_last)


def freeze_backbone(module: nn.Module) -> None:
    """Freeze the backbone of an INTR: its weights and the statistics of its batch norms.

    Raises:
        InvalidInputError: The network is no INTR.
    """
    if not isinstance(module, INTR):
        raise InvalidInputError(
            f"expected an INTR for optimizer.backbone_learning_rate: 0, got {type(module).__name__}; leave it out"
        )
    module.backbone.requires_grad_(False)
    for part in module.backbone.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.eval()


def _has_part(name: str, parts: tuple[str, ...]) -> bool:
    return not set(parts).isdisjoint(name.split("."))

"""The network of a recipe: built, perhaps started from trained weights, and told which weights learn."""

import logging

from torch import nn

from vitrail.adapters import Classifier, Preprocessing, build, start
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
"""Names of modules and weights in our networks, timm's, torchvision's and Hugging Face's."""


def build_network(
    config: ModelConfig, class_names: list[str], in_channels: int, preprocessing: Preprocessing | None = None
) -> Classifier:
    """Build the network of a recipe, with the weights that it starts from.

    Args:
        config: The recipe's section.
        class_names: One per class.
        in_channels: Image channels.
        preprocessing: What turns a photo into its input; the network's own if not given.

    Raises:
        InvalidInputError: Keys that this kind of network does not have, or values that do not fit together.
        UnknownNameError: No such network.
        CheckpointError: The weights to start from do not fit.
    """
    fields = {key: value for key in HIT_FIELDS if (value := getattr(config, key)) is not None}
    is_hit = ":" not in config.name and config.name not in INTR_NAMES
    if is_hit and config.options:
        raise InvalidInputError(f"model.options are for other networks, got them for the HiT {config.name}")
    if not is_hit and fields:
        raise InvalidInputError(
            f"expected model.{next(iter(fields))} with a size of HiT only, got it with {config.name}; its own settings go into "
            "model.options"
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
    if config.start_from is not None:
        noise = {} if config.query_noise is None else {"query_noise": config.query_noise}
        started = start(classifier, config.start_from, keep_head=config.keep_head, **noise)
        kept = not any(_has_part(name, HEAD_PARTS) for name in started.new)
        if config.keep_head and not kept:
            raise InvalidInputError(
                f"expected a head for {len(class_names)} classes in {config.start_from}, as model.keep_head asks for, found none that fits"
            )
        logger.info("%s: %s", config.start_from, started)
    return classifier


RANDOM_AND_FROZEN = (
    "the backbone begins with random weights, of which the first layers and all batch norms stay as they are; set model.pretrained, "
    "model.start_from, or model.options.frozen=false"
)


def is_random_and_frozen(config: ModelConfig) -> bool:
    """Whether an INTR is to learn on a ResNet that nobody has trained, and that keeps its batch norms and first layers."""
    resnet = config.name in INTR_NAMES and not str(config.options.get("backbone", "")).startswith("timm:")
    return resnet and config.options.get("frozen", True) and not config.pretrained and config.start_from is None


def prepare_to_learn(module: nn.Module, train: str, distilled: bool, fused_attention: bool | None = None) -> None:
    """Put a network into training, and choose the weights that learn.

    Args:
        module: The network.
        train: "all", "attention" (with positions and head) or "head".
        distilled: Whether a teacher speaks to a distillation token.
        fused_attention: Whether timm's attention is computed in one kernel; None for timm's choice.

    Raises:
        InvalidInputError: The network has no attention to train.
    """
    if distilled:
        enable_distillation(module)
    if train != "all":
        wanted = (*ATTENTION_PARTS, *POSITIONS) if train == "attention" else ()
        chosen = [name for name, _ in module.named_parameters() if _has_part(name, wanted)]
        if train == "attention" and not any(_has_part(name, ATTENTION_PARTS) for name in chosen):
            raise InvalidInputError(
                f"expected a network with attention for model.train: attention, got {type(module).__name__}"
            )
        head = [name for name, _ in module.named_parameters() if _has_part(name, HEAD_PARTS)]
        for name, parameter in module.named_parameters():
            # A weight that asks for no gradient of its own accord, such as an idle one, goes on asking for none.
            parameter.requires_grad_(parameter.requires_grad and name in {*chosen, *head})
    if fused_attention is not None:
        for part in module.modules():
            if hasattr(part, "fused_attn"):
                part.fused_attn = fused_attention  # type: ignore[assignment]  # a plain attribute
    # Lightning leaves modules in the mode that it finds them in.
    module.train()
    for part in module.modules():
        learns = any(parameter.requires_grad for parameter in part.parameters(recurse=False))
        if train != "all" and isinstance(part, nn.modules.batchnorm._BatchNorm) and not learns:
            part.eval()  # Else its running figures would learn the new images, while all around them stays.


def freeze_backbone(module: nn.Module) -> None:
    """Leave the backbone of an INTR as it is: neither weights nor the figures of batch norms learn.

    Raises:
        InvalidInputError: Another network, which has none.
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

"""The preprocessing that a timm model was trained with."""

import logging

from timm.data import resolve_model_data_config
from torch import nn

from vitrail.adapters.preprocessing import Preprocessing
from vitrail.core.errors import CheckpointError

logger = logging.getLogger(__name__)


def timm_preprocessing(module: nn.Module) -> Preprocessing:
    """Return the preprocessing that a timm model was trained with, at the size that it was created for.

    Raises:
        CheckpointError: The model's description of it is invalid.
    """
    try:
        return _convert_preprocessing(module)
    except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(f"the preprocessing that this timm model describes makes no sense: {error}") from error


def _convert_preprocessing(module: nn.Module) -> Preprocessing:
    config = resolve_model_data_config(module)
    # The pretrained configuration ignores img_size=....
    embedding = getattr(getattr(module, "encoder", module), "patch_embed", None)
    size = getattr(embedding, "img_size", None) or config["input_size"][1:]
    crop_mode, crop_fraction = config["crop_mode"], config["crop_pct"]
    if crop_mode not in ("center", "squash") or crop_fraction > 1:
        logger.warning(
            "vitrail crops photos to the center, where timm would pad them (%s, crop_pct=%s)", crop_mode, crop_fraction
        )
        crop_mode, crop_fraction = "center", min(crop_fraction, 1.0)
    return Preprocessing(
        size=tuple(size),
        crop_fraction=crop_fraction,
        crop_mode=crop_mode,
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    ).for_channels(_count_channels(module))


def _count_channels(module: nn.Module) -> int:
    """Return the number of channels that a network takes, by its first convolution or its own word; 3 if it has neither."""
    stated = getattr(getattr(module, "embeds", module), "in_chans", 3)
    return next((part.in_channels for part in module.modules() if isinstance(part, nn.Conv2d)), stated)

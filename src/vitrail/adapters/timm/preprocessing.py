"""The preprocessing that a timm model was trained with."""

from timm.data import resolve_model_data_config
from torch import nn

from vitrail.adapters.preprocessing import Preprocessing
from vitrail.core.errors import CheckpointError, UnsupportedModelError


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

"""What torchvision's reference script for classification writes into checkpoints beside the weights."""

from collections.abc import Mapping
from typing import Any

from torchvision import models
from torchvision.models import list_models

from vitrail.adapters.training_settings import TrainingSettings, read_arguments


def read_training(extra: Mapping[str, Any]) -> TrainingSettings | None:
    """Read the architecture and the preprocessing; None if no network of torchvision is named.

    Source: torchvision, references/classification/train.py.
    """
    arguments = read_arguments(extra)
    name, size, resized = (arguments.get(key) for key in ("model", "val_crop_size", "val_resize_size"))
    if name not in list_models(module=models):
        return None
    preprocessing: dict[str, Any] = {}
    if isinstance(size, int) and isinstance(resized, int) and 0 < size <= resized:
        preprocessing = {"size": (size, size), "crop_fraction": size / resized}
    if arguments.get("interpolation"):
        preprocessing["interpolation"] = arguments["interpolation"]
    return TrainingSettings(str(name), preprocessing=preprocessing)

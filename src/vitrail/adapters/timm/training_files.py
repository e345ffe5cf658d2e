"""What timm's train.py, and the scripts of DeiT and MAE, write into checkpoints beside the weights."""

from collections.abc import Mapping
from typing import Any

import timm

from vitrail.adapters.training_settings import TrainingSettings, read_arguments


def read_training(extra: Mapping[str, Any]) -> TrainingSettings | None:
    """Read the architecture, its options and the preprocessing; None if no network of timm is named.

    Source: timm 1.0, `CheckpointSaver` and `resolve_data_config`.
    """
    arguments = read_arguments(extra)
    name = arguments.get("model") or extra.get("arch")
    if not isinstance(name, str) or ":" in name or not timm.is_model(name):
        return None
    if "val_crop_size" in arguments:  # torchvision's script; both libraries have a resnet18, prepared differently.
        return None
    options = arguments.get("model_kwargs")
    found = dict(options) if isinstance(options, Mapping) else {}
    if arguments.get("gp"):
        found["global_pool"] = arguments["gp"]
    return TrainingSettings(name, found, _read_preprocessing(arguments), str(arguments.get("class_map") or ""))


def _read_preprocessing(arguments: Mapping[str, Any]) -> dict[str, Any]:
    channels = arguments.get("in_chans") or 3
    named = {
        "size": _read_size(arguments.get("input_size") or arguments.get("img_size")),
        "crop_fraction": arguments.get("crop_pct"),
        "crop_mode": arguments.get("crop_mode"),
        "interpolation": arguments.get("interpolation"),
        "mean": _read_channels(arguments.get("mean"), channels),
        "std": _read_channels(arguments.get("std"), channels),
    }
    return {field: value for field, value in named.items() if value}


def _read_size(size: Any) -> tuple[int, int] | None:
    """Read one side, or channels, height and width."""
    if isinstance(size, int):
        return size, size
    return (size[1], size[2]) if isinstance(size, list | tuple) and len(size) == 3 else None


def _read_channels(values: Any, channels: int) -> tuple[Any, ...] | None:
    """Read one number per channel, or one for all."""
    if not isinstance(values, list | tuple):
        return None
    return tuple(values) * channels if len(values) == 1 else tuple(values)

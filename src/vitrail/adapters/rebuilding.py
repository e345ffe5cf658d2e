"""Rebuild networks from the description in a vitrail file: from names and numbers, never from code."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from vitrail.adapters.intr_building import rebuild_intr
from vitrail.core.errors import MissingExtraError
from vitrail.models.hit import HiT


def _rebuild_timm(config: Mapping[str, Any]) -> nn.Module:
    from vitrail.adapters.timm_building import rebuild_timm  # noqa: PLC0415 (timm is heavy)

    return rebuild_timm(config)


def _rebuild_torchvision(config: Mapping[str, Any]) -> nn.Module:
    from vitrail.adapters.torchvision_building import rebuild_torchvision  # noqa: PLC0415 (heavy)

    return rebuild_torchvision(config)


def _rebuild_huggingface(config: Mapping[str, Any]) -> nn.Module:
    try:
        from vitrail.adapters.huggingface_building import rebuild_huggingface  # noqa: PLC0415 (heavy, and an extra)
    except ImportError as error:
        raise MissingExtraError("a model of Hugging Face", "hf") from error
    return rebuild_huggingface(config)


ARCHITECTURES: dict[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    "hit": HiT.from_config,
    "intr": rebuild_intr,
    "timm": _rebuild_timm,
    "torchvision": _rebuild_torchvision,
    "huggingface": _rebuild_huggingface,
}
"""Functions that build a network without weights, by the architecture in its description."""

"""What our own files may hold, and how each is built again from its description: by names and numbers, never by code."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from vitrail.adapters.intr_building import rebuild_intr
from vitrail.core.errors import MissingExtraError
from vitrail.models.hit import HiT


def _timm(config: Mapping[str, Any]) -> nn.Module:
    from vitrail.adapters.timm_building import rebuild_timm  # noqa: PLC0415 (timm is heavy)

    return rebuild_timm(config)


def _torchvision(config: Mapping[str, Any]) -> nn.Module:
    from vitrail.adapters.torchvision_building import rebuild_torchvision  # noqa: PLC0415 (heavy)

    return rebuild_torchvision(config)


def _huggingface(config: Mapping[str, Any]) -> nn.Module:
    try:
        from vitrail.adapters.huggingface_building import rebuild_huggingface  # noqa: PLC0415 (heavy, and an extra)
    except ImportError as error:
        raise MissingExtraError("a model of Hugging Face", "hf") from error
    return rebuild_huggingface(config)


ARCHITECTURES: dict[str, Callable[[Mapping[str, Any]], nn.Module]] = {
    "hit": HiT.from_config,
    "intr": rebuild_intr,
    "timm": _timm,
    "torchvision": _torchvision,
    "huggingface": _huggingface,
}

"""What the outputs of timm networks are: named classes, or an embedding."""

import re
from collections.abc import Mapping
from typing import Any

from timm.data import ImageNetInfo, infer_imagenet_subset
from torch import nn

from vitrail.adapters.plain import count_head_outputs, head_layers
from vitrail.adapters.pooling import is_feature_head
from vitrail.core.errors import CheckpointError

EMBEDDING = re.compile(r"clip|_pe_", re.IGNORECASE)
"""Pattern in the names of image-text networks, whose outputs are embeddings."""


def timm_class_names(module: nn.Module) -> tuple[str, ...]:
    """Return the class names that come with a model, else ImageNet's if the numbers of classes match.

    Raises:
        CheckpointError: The model's `label_names` are not one name per class, or names by index.
    """
    described: Mapping[str, Any] = getattr(module, "pretrained_cfg", None) or {}
    names, num_classes = described.get("label_names"), int(getattr(module, "num_classes", 0))
    if not num_classes:
        return ()
    if names and num_classes == described.get("num_classes"):  # Else the head was replaced.
        return _read_names(names, described.get("label_descriptions"), num_classes)
    subset = infer_imagenet_subset(module)
    if subset is None:
        return ()
    info = ImageNetInfo(subset)
    return tuple(info.index_to_description(index) for index in range(info.num_classes()))


def returns_embedding(module: nn.Module) -> bool:
    """Return whether a network's outputs are an embedding: it has no classifier, or is the image tower of an image-text model."""
    return _is_headless(module) or _is_image_tower(module)


def _is_headless(module: Any) -> bool:
    empty = getattr(module, "num_classes", None) == 0
    if not hasattr(module, "get_classifier"):
        return empty
    heads = module.get_classifier()
    # Some heads still pool where they classify nothing.
    return (empty and not head_layers(module)) or all(
        is_feature_head(head) for head in (heads if isinstance(heads, tuple) else (heads,))
    )


def _is_image_tower(module: nn.Module) -> bool:
    """Return whether the number of outputs is still that of published image-text weights, which name no classes."""
    described: Mapping[str, Any] = getattr(module, "pretrained_cfg", None) or {}
    num_outputs = getattr(module, "num_classes", None)
    trained_as = f"{described.get('architecture', '')}.{described.get('tag', '')}"
    return (
        EMBEDDING.search(trained_as) is not None
        and num_outputs == described.get("num_classes")
        and count_head_outputs(module) in (0, num_outputs)  # Else the head was replaced.
        and not described.get("label_names")
        and infer_imagenet_subset(module) is None
    )


def _read_names(names: Any, descriptions: Any, num_classes: int) -> tuple[str, ...]:
    """Read timm's names, a list or a dictionary by index, and replace them by descriptions where there are any."""
    try:
        by_index = {int(index): name for index, name in (names.items() if isinstance(names, Mapping) else enumerate(names))}
        listed = not isinstance(names, Mapping)
        if isinstance(names, str):
            raise ValueError(f"{names!r}")
        if (listed and len(by_index) != num_classes) or not set(by_index) <= set(range(num_classes)):
            raise ValueError(f"{len(by_index)} names, up to number {max(by_index)}")
        invalid = next((name for name in by_index.values() if not isinstance(name, str)), None)
        if invalid is not None or None in by_index.values():
            raise ValueError(f"{invalid!r} among them")
        if not isinstance(descriptions, Mapping | None):
            raise ValueError(f"label_descriptions of type {type(descriptions).__name__}, expected an object")
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"expected label_names of the {num_classes} classes of this model, as a list or by index, got {error}"
        ) from error
    described = descriptions or {}
    return tuple(str(described.get(by_index[i], by_index[i])) if i in by_index else f"class {i}" for i in range(num_classes))

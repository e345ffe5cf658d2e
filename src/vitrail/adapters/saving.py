"""Saving a model as one file that `vitrail.load` knows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vitrail.adapters.classifier import Classifier
from vitrail.errors import UnsupportedModelError
from vitrail.models.checkpoints import write_checkpoint
from vitrail.models.hit import HiT


def save(classifier: Classifier, path: str | Path, *, half: bool = False, notes: Mapping[str, Any] | None = None) -> None:
    """Write a HiT with its configuration, preprocessing and class names as one safetensors file.

    Args:
        classifier: An adapted or loaded HiT.
        path: The file.
        half: Store half precision; it is loaded as single precision again.
        notes: More about the model, ready for JSON, kept inside the file.

    Raises:
        UnsupportedModelError: The network is none of ours; save it by its own library.
        OutputError: The file cannot be written; an older file is left whole.
    """
    module = classifier.module
    if not isinstance(module, HiT):
        raise UnsupportedModelError(f"expected a HiT, got {type(module).__name__}; save it by the library that it comes from")
    description = {
        **(notes or {}),
        "architecture": "hit",
        "config": module.config.to_dict(),
        "preprocessing": classifier.preprocessing.to_dict(),
        "class_names": list(classifier.class_names),
    }
    write_checkpoint(path, module, description, torch.float16 if half else torch.float32, omit=module.idle_names())

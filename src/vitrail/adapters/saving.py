"""Save a model as one file that `vitrail.load` reads, or as a Hugging Face folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vitrail.adapters.build_spec import BuildSpec
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.input_normalization import normalizes_inside
from vitrail.adapters.libraries import find_library, find_source
from vitrail.adapters.plain import PlainClassifier
from vitrail.core.errors import UnsupportedModelError
from vitrail.models.checkpoints import write_checkpoint
from vitrail.models.hit import HiT


def save(classifier: Classifier, path: str | Path, *, half: bool = False, notes: Mapping[str, Any] | None = None) -> None:
    """Write a network with its configuration, preprocessing and class names as one safetensors file.

    Args:
        classifier: An adapted or loaded HiT or INTR, or a network of another library that vitrail built.
        path: The file.
        half: Whether to store half precision; loading returns single precision.
        notes: Further information, ready for JSON, to store in the file.

    Raises:
        UnsupportedModelError: vitrail does not know how to rebuild the network, or it is compared with prompts, references or others.
        OutputError: The file cannot be written; an older file stays intact.
    """
    if classifier.directions is not None:
        raise UnsupportedModelError(
            f"expected a network as it was loaded, got {classifier.name}, whose directions a file cannot hold; save the network without "
            "them, and call vitrail.similarity after loading"
        )
    module = classifier.module
    spec = find_build_spec(classifier)
    description = {
        **(notes or {}),
        "architecture": spec.architecture,
        "config": dict(spec.config),
        "preprocessing": classifier.preprocessing.to_dict(),
        "class_names": list(classifier.class_names),
    }
    if isinstance(classifier, PlainClassifier):
        description |= {"view": "plain", "cell_size": classifier.cell_size}
    if classifier.output != "softmax":
        description["output"] = classifier.output
    omit = module.unused_names() if isinstance(module, HiT) else ()
    write_checkpoint(path, module, description, torch.float16 if half else torch.float32, omit=omit)


def find_build_spec(classifier: Classifier) -> BuildSpec:
    """Return how to rebuild a network.

    Raises:
        UnsupportedModelError: vitrail did not build it, and its configuration does not tell.
    """
    if classifier.build_spec is not None:
        return classifier.build_spec
    library = find_library(classifier.module)
    if library is None:
        raise UnsupportedModelError(
            f"expected a network that vitrail built, or read from its own files, got {type(classifier.module).__name__}; save it "
            "by torch, or build it by vitrail.adapters.build"
        )
    return library.describe(classifier.module)


def export_huggingface(classifier: Classifier, folder: str | Path, *, overwrite: bool = False) -> None:
    """Write a Hugging Face network as a folder that `from_pretrained` and `vitrail.load` read, with class names and preprocessing.

    Args:
        classifier: Its module is a transformers model.
        folder: The folder, created if needed.
        overwrite: Whether to replace files of an earlier export.

    Raises:
        UnsupportedModelError: The network is not one of transformers, or transformers does not support its preprocessing.
        OutputError: The folder is not empty, or cannot be written.
    """
    if find_source(classifier.module) != "hf":
        raise UnsupportedModelError(
            f"expected a network of Hugging Face, got {type(classifier.module).__name__}; vitrail.save writes it as one file"
        )
    if normalizes_inside(classifier.module):
        raise UnsupportedModelError(
            f"expected a network without a normalization before it, which {type(classifier.module).__name__} has as part of a wrapper; "
            "adapt and export the network inside, with a Preprocessing of that mean and std"
        )
    from vitrail.adapters.huggingface.export import write_folder  # noqa: PLC0415 (heavy, and an extra)

    write_folder(classifier, Path(folder), overwrite)

"""Load a model by name or from disk, with its weights, preprocessing and class names."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from vitrail.adapters.classifier import Classifier
from vitrail.adapters.devices import check_device
from vitrail.adapters.libraries import ENTRIES, get_library
from vitrail.adapters.local_files import BUNDLED, check_bundled, load_bundled, load_local
from vitrail.adapters.preprocessing import MAX_RESIZED_PIXELS
from vitrail.adapters.weight_checks import expect_finite_weights
from vitrail.core.errors import InvalidInputError, UnknownNameError
from vitrail.core.outputs import Output
from vitrail.core.registry import unknown_name


def load(
    name: str | Path,
    *,
    device: str | torch.device | None = None,
    image_size: tuple[int, int] | None = None,
    output: Output | None = None,
    **options: Any,
) -> Classifier:
    """Load a model with its preprocessing and class names, ready to explain.

    Args:
        name: `vitrail:<bundled name>`, `timm:<model>`, `hf:<hub repository or folder>`, `torchvision:<model>`,
            `hit:<hub repository or file>`, `intr:<hub repository or file>`, or a local file or folder, recognized by its content.
        device: Where to put the model; defaults to CUDA, else MPS, else the CPU.
        image_size: Height and width that photos are resized to, for networks that take any; defaults to the network's own. For
            networks that take whole photos: the limits of the shorter and of the longer side.
        output: Meaning of the logits: "softmax", one class among all, or "sigmoid", each class independently (multi-label); defaults
            to what the file or the configuration says, else "softmax". A single logit always means its sigmoid.
        options: For timm, Hugging Face and torchvision: `pretrained=False` for random weights, and the options of their own
            functions: any argument of `timm.create_model`, fields of the Hugging Face configuration, torchvision's `weights`. For
            published HiT files: `num_heads`. For published INTR files that do not tell them: `nheads`, `dilation`.

    Raises:
        UnknownNameError: There is no such source, model or file.
        CheckpointError: The weights are damaged, unsafe or do not fit.
        InvalidInputError: The device cannot be used, or an option is unknown.
        UnsupportedModelError: The network is no classifier of images.
    """
    name = str(name)
    check_name(name)
    chosen = check_device(device)  # Before anything is downloaded or read.
    source, _, rest = name.partition(":")
    # Weights created in inference mode never let a gradient through.
    with torch.inference_mode(False):
        if not _has_source(name):
            classifier = load_local(Path(name), **options)
        elif source == BUNDLED:
            classifier = load_bundled(rest, **options)
        else:
            classifier = get_library(source).load(rest, **options)
        classifier = classifier if output is None else replace(classifier, output=output)
        expect_finite_weights(classifier.module, name)
        classifier.module.to(chosen).eval()
    return classifier if image_size is None else _set_image_size(classifier, image_size)


def check_name(name: str | Path) -> None:
    """Check a name without loading the model.

    Raises:
        UnknownNameError: There is no such source, bundled model or file.
    """
    name = str(name)
    source, colon, rest = name.partition(":")
    if _has_source(name):
        if source == BUNDLED:
            check_bundled(rest)
    elif name and Path(name).exists():
        return
    elif colon and "/" not in source and "\\" not in source and len(source) > 1:
        raise unknown_name("source of models", source, [BUNDLED, *ENTRIES])
    else:
        raise UnknownNameError(
            f"no such model: {name!r}; expected an existing file or folder, or a name like vitrail:hit-cifar10 (bundled), "
            "timm:vit_base_patch16_224, hf:<folder or hub repository>, torchvision:vit_b_16, hit:<hub repository> or intr:<hub repository>"
        )


def _has_source(name: str) -> bool:
    source, colon, _ = name.partition(":")
    return bool(colon) and source in (BUNDLED, *ENTRIES)


def _set_image_size(classifier: Classifier, size: tuple[int, int]) -> Classifier:
    if size[0] * size[1] > MAX_RESIZED_PIXELS:
        raise InvalidInputError(f"expected an image_size of at most {MAX_RESIZED_PIXELS:,} pixels, got {size[0]}x{size[1]}")
    resized = replace(classifier, preprocessing=replace(classifier.preprocessing, size=size))
    # Fail here rather than at the first photo. An expanded tensor takes no memory.
    resized.grid_size(torch.zeros(1, 1, 1, 1).expand(1, len(resized.preprocessing.mean), *size))
    return resized

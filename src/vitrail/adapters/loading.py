"""Load a model by name or from disk, with its weights, preprocessing and class names."""

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitrail.adapters.class_name_files import read_names
from vitrail.adapters.class_names import check_class_names
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.devices import check_device
from vitrail.adapters.folder_checks import PICKLED, SAFE
from vitrail.adapters.libraries import ENTRIES, get_library
from vitrail.adapters.local_files import BUNDLED, bundled_models, check_bundled, find_folder_source, load_bundled, load_local
from vitrail.adapters.photo_settings import describe_photos, set_crop, set_image_size, set_normalization
from vitrail.adapters.user_code import check_user_code, is_user_code, load_user_code
from vitrail.adapters.weight_files import fill_with_weights, load_with_weights
from vitrail.core.errors import CheckpointError, InvalidInputError, UnknownNameError
from vitrail.core.files import is_file
from vitrail.core.garbage import without_collection
from vitrail.core.listing import shorten_list
from vitrail.core.outputs import Output
from vitrail.core.registry import unknown_name

logger = logging.getLogger(__name__)

Names = str | Path | Sequence[str]
"""Names: a list, a text with commas, or a file; see `vitrail.adapters.class_name_files.read_names`."""

LISTED = ("timm", "torchvision")
"""Libraries that list the names of their networks."""

FROM_FILES = ("hit", "intr")
"""Sources whose files describe the network, so that names alone build none."""


def load(
    name: str | Path,
    *,
    device: str | torch.device | None = None,
    image_size: tuple[int, int] | None = None,
    output: Output | None = None,
    output_key: int | str | None = None,
    weights: str | Path | None = None,
    weights_key: str | None = None,
    class_names: Names | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    crop_mode: str | None = None,
    crop_fraction: float | None = None,
    interpolation: str | None = None,
    **options: Any,
) -> Classifier:
    """Load a model with its preprocessing and class names, ready to explain.

    Args:
        name: `vitrail:<bundled name>`, `timm:<model>`, `hf:<hub repository or folder>`, `torchvision:<model>`,
            `hit:<hub repository or file>`, `intr:<hub repository or file>`, a local file or folder, recognized by its content, or
            `file.py:function`, code of your own that returns a network or a `Classifier`.
        device: Where to put the model; defaults to CUDA, else MPS, else the CPU.
        image_size: Height and width that photos are resized to, for networks that take any; defaults to the network's own. For
            networks that take whole photos: the limits of the shorter and of the longer side.
        output: Meaning of the logits: "softmax", one class among all, "sigmoid", each class independently (multi-label), or "none",
            plain numbers; defaults to what the file or the configuration says, else "softmax". A single logit of classes always means
            its sigmoid.
        output_key: Index or key of the logits, where the network returns a tuple or a dictionary.
        weights: Your own weights for the network: a safetensors file, or a checkpoint of torch. Then nothing is downloaded, and classes,
            channels and image size are those of the file. Torchvision also takes the names of its own weights.
        weights_key: Which weights to take, where the file holds several, e.g. "state_dict", "teacher" or "model_ema".
        class_names: One per class: a list, a text with commas, or a file (one name per line, or JSON).
        mean: Mean of the pixels, which range from 0 to 1, that normalization subtracts: one per channel, or one for all; defaults to the
            model's own. Networks of neither one nor three channels often have none.
        std: Standard deviation that it divides by; 0 and 1 normalize nothing.
        crop_mode: How photos get the network's size: "center" keeps the aspect ratio and crops, "squash" stretches, "whole" keeps the
            whole photo; defaults to the model's own.
        crop_fraction: Share of the resized photo that the crop covers; defaults to 1 if crop_mode is "squash" or "whole", else to the
            model's own.
        interpolation: How photos are resized, e.g. "bilinear"; defaults to the model's own.
        options: For timm, Hugging Face and torchvision: `pretrained=False` for random weights, and the options of their own
            functions: any argument of `timm.create_model`, fields of the Hugging Face configuration. For published HiT files:
            `num_heads`. For published INTR files that do not tell them: `nheads`, `dilation`. For your own code: its arguments.

    Raises:
        UnknownNameError: There is no such source, model or file.
        CheckpointError: The weights are damaged, unsafe or do not fit.
        InvalidInputError: The device cannot be used, an option is unknown, or your code raised an error.
        UnsupportedModelError: The network is no classifier of images.
    """
    name = str(name)
    check_name(name)
    chosen = check_device(device)  # Before anything is downloaded or read.
    names = None if class_names is None else read_names(class_names)
    # Weights created in inference mode never let a gradient through.
    with torch.inference_mode(False):
        given: dict[str, Any] = {"output": output, "output_key": output_key}
        meaning = {field: value for field, value in given.items() if value is not None}
        if _is_code(name):  # Whether a network inside a wrapper computes the same depends on them.
            classifier = _load(name, weights, weights_key, {**options, **meaning})
        else:
            classifier = replace(_load(name, weights, weights_key, options), **meaning)
        _expect_finite_weights(classifier.module, name)
        classifier.move_to(chosen)
        classifier.module.eval()
        classifier = classifier if image_size is None else set_image_size(classifier, image_size)
        classifier = set_crop(set_normalization(classifier, mean, std), crop_mode, crop_fraction, interpolation)
        if weights is not None and _is_path(weights):
            # Your own code says how photos are prepared, and so do these options: else it is a guess.
            guessed = not _is_code(name) and all(given is None for given in (mean, crop_mode, crop_fraction, interpolation))
            if guessed:
                logger.warning("%s", describe_photos(classifier.preprocessing))
            if names is None and not classifier.class_names and classifier.output != "embedding":
                logger.info("its %d classes have no names; give them by --class-names", classifier.num_classes)
    if names is not None:
        source = str(class_names) if isinstance(class_names, str | Path) and is_file(str(class_names)) else ""
        check_class_names(names, classifier.num_classes, classifier.output, source)
        classifier = replace(classifier, class_names=names)
    return classifier


def _expect_finite_weights(module: nn.Module, source: str) -> None:
    """Refuse a network whose weights are not finite floating-point numbers.

    Raises:
        CheckpointError: The message lists the first invalid weights.
    """
    invalid = []
    for name, tensor in module.named_parameters():
        if not tensor.is_floating_point():
            invalid.append(f"{name} ({tensor.dtype})")
        elif not torch.isfinite(tensor).all():
            invalid.append(f"{name} (not finite)")
    for name, buffer in module.named_buffers():
        if buffer.is_complex() or (buffer.is_floating_point() and torch.isnan(buffer).any()):
            invalid.append(f"{name} (not finite)")
    if invalid:
        raise CheckpointError(
            f"refused {source}: expected weights that are finite floating-point numbers, got {shorten_list(invalid)}"
        )


@without_collection()  # Libraries are imported here.
def _load(name: str, weights: str | Path | None, key: str | None, options: dict[str, Any]) -> Classifier:
    """Load a model by name, with its own weights or those of a file."""
    source, _, rest = name.partition(":")
    if weights is not None and source == "torchvision" and not _is_path(weights):
        options, weights = {**options, "weights": weights}, None
    if weights is not None and source == "open_clip":  # It reads its files itself, for both towers.
        options, weights = {**options, "pretrained": str(weights)}, None
    if weights is None:
        return _load_by_name(name, key, options)
    path = Path(weights)
    if not _has_source(name) and Path(name).is_dir() and (Path(name) / "config.json").exists():
        source, rest = find_folder_source(Path(name))
    elif not _has_source(name) or source in (BUNDLED, *FROM_FILES):
        return fill_with_weights(_load_by_name(name, None, options), path, key)
    return load_with_weights(source, rest, path, key, **options)


def _load_by_name(name: str, key: str | None, options: dict[str, Any]) -> Classifier:
    source, _, rest = name.partition(":")
    if not _has_source(name):
        if key is not None:
            options = {**options, "weights_key": key}
        return load_user_code(name, **options) if _is_code(name) else load_local(Path(name), **options)
    if key is not None:
        raise InvalidInputError(f"expected weights_key together with weights, got {key!r} alone")
    return load_bundled(rest, **options) if source == BUNDLED else get_library(source).load(rest, **options)


def _is_path(weights: str | Path) -> bool:
    """Return whether this is a file, rather than a name of torchvision's weights."""
    return isinstance(weights, Path) or "." in weights or "/" in weights or Path(weights).exists()


def _is_code(name: str) -> bool:
    """Return whether a name is a function in a user's code; an existing file of that name counts as a file."""
    return is_user_code(name) and not _has_source(name) and not Path(name).exists()


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
        if "," in rest and not Path(rest).exists():
            raise UnknownNameError(f"expected one model, got {name!r}; vitrail compare takes several")
    elif name and Path(name).exists():
        if name.endswith(".py"):
            raise UnknownNameError(
                f"expected a function of {name} that returns the network, as in {name}:build, got the file alone"
            )
    elif is_user_code(name):
        check_user_code(name)
    elif colon and "/" not in source and "\\" not in source and len(source) > 1:
        raise unknown_name("source of models", source, [BUNDLED, *ENTRIES])
    else:
        hint = f" (did you mean {guess!r}?)" if (guess := _guess_source(name)) else ""
        raise UnknownNameError(
            f"no such model: {name!r}{hint}; expected an existing file or folder, or a name like vitrail:hit-cifar10 (bundled), "
            "timm:vit_base_patch16_224, hf:<folder or hub repository>, torchvision:vit_b_16, hit:<hub repository>, "
            "intr:<hub repository> or file.py:function (your own code)"
        )


def _guess_source(name: str) -> str | None:
    """Return a name with the source that a user has left out: a bundled model, a name in a library, or a repository of the hub."""
    if name in bundled_models():
        return f"{BUNDLED}:{name}"
    for source in LISTED:
        if name.partition(".")[0] in get_library(source).list_names():  # After the point: timm's name of the weights.
            return f"{source}:{name}"
    is_repository = (
        re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.endswith((SAFE, *PICKLED)) and not Path(name).parent.exists()
    )
    return f"hf:{name}" if is_repository else None


def _has_source(name: str) -> bool:
    source, colon, _ = name.partition(":")
    return bool(colon) and source in (BUNDLED, *ENTRIES)

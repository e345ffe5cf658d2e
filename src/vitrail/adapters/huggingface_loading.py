"""Hugging Face models by name or folder, with their preprocessing."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoConfig, AutoModelForImageClassification
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file

from vitrail.adapters.huggingface import HuggingFaceViTAdapter, adapt_huggingface, family_preprocessing
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.errors import CheckpointError, InvalidInputError, UnknownNameError, UnsupportedModelError

PROCESSOR = "preprocessor_config.json"

HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "subfolder")

RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""Pillow's numbers, which these files use, and torchvision's names."""


def create_huggingface(name: str, *, pretrained: bool = True, **options: Any) -> HuggingFaceViTAdapter:
    """Load a model from a folder that `save_pretrained` wrote, or from the Hugging Face hub; its code, if any, is never run.

    Args:
        name: A folder, or `owner/name` on the hub.
        pretrained: False for random weights of the model's configuration.
        options: Of `from_pretrained`, e.g. `revision`, or fields of the configuration, e.g. `num_labels`.

    Raises:
        UnknownNameError: No such folder or repository.
        CheckpointError: Weights that are damaged, unsafe or do not fit.
        UnsupportedModelError: It is no Vision Transformer that vitrail knows.
    """
    local = bool(name) and Path(name).is_dir()  # An empty path is the working folder.
    try:
        config, unused = AutoConfig.from_pretrained(name, trust_remote_code=False, return_unused_kwargs=True, **options)
    except Exception as error:  # Files, the hub's client and the configuration's own checks fail in their own ways.
        if local:
            raise CheckpointError(f"cannot read the model's configuration in {name}: {_first_line(error)}") from error
        raise UnknownNameError(
            f"cannot find hf:{name}: {_first_line(error)}; expected a folder that save_pretrained wrote, or owner/name on the "
            "Hugging Face hub; check the name and the connection"
        ) from error
    unknown = sorted(set(unused) - set(HUB_OPTIONS))
    if unknown:
        raise InvalidInputError(
            f"a {config.model_type} of transformers has no option {', '.join(unknown)}; expected fields of its configuration, or "
            f"{', '.join(HUB_OPTIONS)}"
        )
    module = _trained(name, config, **_hub_options(options)) if pretrained else _untrained(name, config)
    display = name if local else f"hf:{name}"
    return adapt_huggingface(module, display, (), _preprocessing(name, config, _hub_options(options)))


def _trained(name: str, config: Any, **options: Any) -> nn.Module:
    try:
        with _silence():
            module, report = AutoModelForImageClassification.from_pretrained(
                name, config=config, trust_remote_code=False, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
    except Exception as error:
        if "Unrecognized configuration class" in str(error):
            raise UnsupportedModelError(
                f"expected a Vision Transformer with a classifier in {name}, got a model of type {config.model_type}, for which "
                "transformers has none"
            ) from error
        raise CheckpointError(f"cannot load the weights of {name}: {_first_line(error)}") from error
    # Left to itself, transformers refers to a table that it printed.
    mismatched = sorted(report["mismatched_keys"])
    misfits = [f"{key}: expected {tuple(built)}, got {tuple(stored)}" for key, stored, built in mismatched]
    if misfits:
        raise CheckpointError(f"the weights of {name} do not fit the model: {'; '.join(misfits[:5])}")
    missing = sorted(report["missing_keys"])
    if missing:
        raise CheckpointError(
            f"expected trained weights for every part of {name}, found none for {', '.join(missing[:5])}; it is a backbone without "
            "this classifier: fine-tune it first, or ask for random weights by pretrained=False"
        )
    return module


@contextmanager
def _silence() -> Iterator[None]:
    """No progress bar and no table for the time of the block: what is amiss is said by our own messages."""
    verbosity, bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(transformers_logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bar:
            transformers_logging.enable_progress_bar()


def _untrained(name: str, config: Any) -> nn.Module:
    try:
        build: Any = AutoModelForImageClassification.from_config
        return build(config, trust_remote_code=False)
    except (
        Exception
    ) as error:  # Sizes that do not fit fail anywhere: by zero, by a negative dimension, by an unknown activation.
        raise UnsupportedModelError(
            f"cannot build a classifier of type {config.model_type} for {name}: {_first_line(error)}"
        ) from error


def _hub_options(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key in HUB_OPTIONS}


def _preprocessing(name: str, config: Any, options: dict[str, Any]) -> Preprocessing | None:
    """What the processor's file says, or None where there is none: then the family's own."""
    try:
        path = cached_file(name, PROCESSOR, _raise_exceptions_for_missing_entries=False, **options)
        described = None if path is None else json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {PROCESSOR} of {name}: {_first_line(error)}") from error
    if described is None:
        return None
    try:
        return processor_preprocessing(described, family_preprocessing(config))
    except (AttributeError, KeyError, TypeError) as error:
        raise CheckpointError(f"{PROCESSOR} of {name} is not one that this version understands: {error!r}") from error


def processor_preprocessing(described: dict[str, Any], default: Preprocessing) -> Preprocessing:
    """What an image processor's description means.

    Args:
        described: A `preprocessor_config.json`.
        default: Where it is silent.

    Raises:
        InvalidInputError: It asks for something else than resizing, cropping and normalising.
    """
    size = described.get("size", {"height": default.size[0], "width": default.size[1]})
    size = {"height": size, "width": size} if isinstance(size, int) else size
    shortest = size.get("shortest_edge")
    if shortest is None and not {"height", "width"} <= set(size):
        raise InvalidInputError(f"expected a size of height and width or shortest_edge in {PROCESSOR}, got {size}")
    resized = (shortest, shortest) if shortest is not None else (size["height"], size["width"])
    crop = described.get("crop_size", resized) if described.get("do_center_crop", "crop_size" in described) else resized
    crop = (crop, crop) if isinstance(crop, int) else (crop["height"], crop["width"]) if isinstance(crop, dict) else crop
    if not described.get("do_rescale", True) or abs(described.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-3:
        raise InvalidInputError(
            f"expected pixels scaled to [0, 1] in {PROCESSOR}, got rescale_factor {described.get('rescale_factor')}"
        )
    normalised = described.get("do_normalize", True)
    return Preprocessing(
        size=(int(crop[0]), int(crop[1])),
        crop_fraction=min(crop[0] / resized[0], 1.0),
        crop_mode="squash" if shortest is None else "center",
        interpolation=RESAMPLING.get(described.get("resample", -1), default.interpolation),
        mean=tuple(described.get("image_mean", default.mean)) if normalised else (0.0, 0.0, 0.0),
        std=tuple(described.get("image_std", default.std)) if normalised else (1.0, 1.0, 1.0),
    )


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)

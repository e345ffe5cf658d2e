"""Load Hugging Face models by name or folder, with their preprocessing."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoConfig, AutoModelForImageClassification, PretrainedConfig
from transformers.utils.hub import cached_file

from vitrail.adapters.adapting import view
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.folder_checks import check_weight_files, read_folder_config, short_path
from vitrail.adapters.huggingface.adapter import HuggingFaceViTAdapter
from vitrail.adapters.huggingface.adapting import choose_class
from vitrail.adapters.huggingface.family_preprocessing import family_preprocessing, whole_patches
from vitrail.adapters.huggingface.processor_files import (
    COMBINED_PROCESSOR,
    PROCESSOR,
    processor_preprocessing,
)
from vitrail.adapters.huggingface.silence import silence_transformers
from vitrail.adapters.huggingface.text import read_text_tower
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.core.errors import CheckpointError, InvalidInputError, UnknownNameError, UnsupportedModelError, first_line
from vitrail.core.files import regular_file
from vitrail.core.json_io import read_json
from vitrail.models.limits import build_on_meta, check_numbers, expect_enough_bytes

logger = logging.getLogger(__name__)

HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "subfolder")


def create_huggingface(name: str, *, pretrained: bool = True, **options: Any) -> Classifier:
    """Load a model from a folder that `save_pretrained` wrote, or from the Hugging Face hub. Code in it is never run.

    Args:
        name: A folder, or `owner/name` on the hub.
        pretrained: Whether to load trained weights; else they are random.
        options: Options of `from_pretrained`, e.g. `revision`, or fields of the configuration, e.g. `num_labels`.

    Raises:
        UnknownNameError: There is no such folder or repository.
        CheckpointError: The weights are damaged, unsafe or do not fit.
        UnsupportedModelError: The model neither classifies nor embeds images.
    """
    config = read_config(name, options)
    hub = hub_options(options)
    # Who gives a number of classes wants a classifier.
    kind = AutoModelForImageClassification if "num_labels" in options else choose_class(config)
    module = (
        _require_all_weights(*load_trained(name, config, kind, **hub), name)
        if pretrained
        else build_untrained(name, config, kind)
    )
    classifier = view(module, short_path(name) if is_folder(name) else f"hf:{name}", (), read_preprocessing(name, config, hub))
    if not isinstance(classifier, HuggingFaceViTAdapter):
        return classifier
    text, problem = read_text_tower(name, module, hub)
    fitting = whole_patches(classifier.preprocessing, classifier.patch_size, classifier.name)
    return replace(classifier, preprocessing=fitting, text=text, text_problem=problem)


def is_folder(name: str) -> bool:
    """Return whether a name is a local folder; the empty name, which would be the working folder, is not."""
    return bool(name) and Path(name).is_dir()


def read_config(name: str, options: Mapping[str, Any]) -> Any:
    """Read the configuration of a model, with some of its fields replaced.

    Raises:
        UnknownNameError: There is no such folder or repository.
        CheckpointError: It cannot be read, or its numbers are out of range.
        InvalidInputError: It does not have these fields.
    """
    check_numbers(options, f"hf:{name}")
    if is_folder(name) and "subfolder" not in options:
        read_folder_config(name)
    try:
        described, _ = PretrainedConfig.get_config_dict(name, **hub_options(options))
        check_numbers(described, f"hf:{name}")  # Before AutoConfig allocates whatever it asks for.
        with silence_transformers():  # It warns of class names that do not fit another number of classes.
            config, unused = AutoConfig.from_pretrained(name, trust_remote_code=False, return_unused_kwargs=True, **options)
    except CheckpointError:
        raise
    except Exception as error:  # Files, the hub's client and the configuration raise many kinds of errors.
        if is_folder(name):
            raise CheckpointError(f"cannot read the model's configuration in {name}: {first_line(error)}") from error
        raise UnknownNameError(
            f"cannot find hf:{name}: {first_line(error)}; expected a folder that save_pretrained wrote, or owner/name on the "
            "Hugging Face hub; check the name and the connection"
        ) from error
    refuse_unknown(config.model_type, set(unused) - set(HUB_OPTIONS))
    return config


def refuse_unknown(model_type: str, unknown: Collection[str]) -> None:
    """Refuse fields that a configuration does not have."""
    if unknown:
        raise InvalidInputError(
            f"a {model_type} of transformers has no option {', '.join(sorted(unknown))}; expected fields of its configuration, or "
            f"{', '.join(HUB_OPTIONS)}"
        )


def _require_all_weights(module: Any, missing: list[str], name: str) -> nn.Module:
    if missing and all(key.startswith("pooler.") for key in missing):
        logger.info("%s has no weights for its pooler, so that its embedding is what the pooler would read", name)
        module.pooler, missing = None, []
    if missing:
        raise CheckpointError(
            f"expected trained weights for every part of {name}, found none for {', '.join(missing[:5])}; it is a backbone without "
            "this classifier: fine-tune it first, or ask for random weights by pretrained=False (--model-arg pretrained=false)"
        )
    return module


def load_trained(
    name: str, config: Any, kind: Any = AutoModelForImageClassification, **options: Any
) -> tuple[nn.Module, list[str]]:
    """Load a model with its trained weights; also return the names of weights without trained values, which are random.

    Args:
        name: A folder or hub repository.
        config: The configuration of the model.
        kind: Class to load it by, an automatic one or the model's own.
        options: Where to fetch it, e.g. `revision`.

    Raises:
        UnsupportedModelError: transformers has no classifier of this type.
        CheckpointError: The weights are damaged, unsafe or do not fit, or the network is too large.
    """
    num_bytes = check_weight_files(Path(name) / options.get("subfolder", "")) if is_folder(name) else 0
    skeleton = build_on_meta(lambda: build_untrained(name, config, kind), f"hf:{name}", num_bytes)
    expect_enough_bytes(skeleton, num_bytes, name)
    try:
        with silence_transformers():
            module, report = kind.from_pretrained(
                name, config=config, trust_remote_code=False, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
    except Exception as error:
        if "Unrecognized configuration class" in str(error):
            raise UnsupportedModelError(
                f"expected a Vision Transformer with a classifier in {name}, got a model of type {config.model_type}, for which "
                "transformers has none"
            ) from error
        raise CheckpointError(f"cannot load the weights of {name}: {first_line(error)}") from error
    # transformers' own error would refer to a printed table.
    mismatched = sorted(report["mismatched_keys"])
    misfits = [f"{key}: expected {tuple(built)}, got {tuple(stored)}" for key, stored, built in mismatched]
    if misfits:
        raise CheckpointError(f"the weights of {name} do not fit the model: {'; '.join(misfits[:5])}")
    return module, sorted(report["missing_keys"])


def build_untrained(name: str, config: Any, kind: Any = AutoModelForImageClassification) -> nn.Module:
    """Build a model from a configuration, with random weights.

    Args:
        name: Name of the model, for messages.
        config: Its configuration.
        kind: Class to build, an automatic one or the model's own.

    Raises:
        UnsupportedModelError: transformers has no classifier of this type, or its parts are incompatible.
    """
    try:
        return kind.from_config(config, trust_remote_code=False) if hasattr(kind, "from_config") else kind(config)
    except Exception as error:  # Invalid sizes and unknown activations raise many kinds of errors.
        what = "classifier" if kind is AutoModelForImageClassification else kind.__name__
        raise UnsupportedModelError(
            f"cannot build a {what} of type {config.model_type} for {name}: {first_line(error)}"
        ) from error


def hub_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Select the options that say where to fetch a model."""
    return {key: value for key, value in options.items() if key in HUB_OPTIONS}


def read_preprocessing(name: str, config: Any, options: dict[str, Any]) -> Preprocessing | None:
    """Read the preprocessing from the processor's file; None if there is none.

    Raises:
        CheckpointError: The file cannot be read or is invalid.
    """
    described = _read_description(name, PROCESSOR, options)
    if described is None:  # A processor of images and texts has them in one file.
        both = _read_description(name, COMBINED_PROCESSOR, options)
        described = both.get("image_processor") if isinstance(both, Mapping) else None
    if described is None:
        return None
    try:
        return processor_preprocessing(described, family_preprocessing(config))
    except InvalidInputError as error:
        raise CheckpointError(f"{PROCESSOR} of {name} is not one that this version understands: {error}") from error


def _read_description(name: str, file: str, options: dict[str, Any]) -> Any:
    """Read a JSON file of a model; None if there is none."""
    try:
        own = Path(name) / options.get("subfolder", "") / file
        if is_folder(name) and own.exists():
            regular_file(own)  # What is no file is none at all to the hub's client.
        path = cached_file(name, file, _raise_exceptions_for_missing_entries=False, **options)
        return None if path is None else read_json(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise CheckpointError(f"cannot read {file} of {name}: {reason}") from error

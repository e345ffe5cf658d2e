"""Hugging Face models by name or folder, with their preprocessing."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoConfig, AutoModelForImageClassification, PretrainedConfig
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file

from vitrail.adapters.huggingface import HuggingFaceViTAdapter, adapt_huggingface, family_preprocessing
from vitrail.adapters.huggingface_processors import PROCESSOR, processor_preprocessing
from vitrail.adapters.model_folders import check_weight_files, read_folder_config
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.core.errors import CheckpointError, InvalidInputError, UnknownNameError, UnsupportedModelError
from vitrail.core.json_io import read_json
from vitrail.models.limits import check_numbers, expect_filled, sketch

HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "subfolder")


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
    config = read_config(name, options)
    hub = hub_options(options)
    module = _complete(*trained(name, config, **hub), name) if pretrained else untrained(name, config)
    display = name if is_folder(name) else f"hf:{name}"
    return adapt_huggingface(module, display, (), read_preprocessing(name, config, hub))


def is_folder(name: str) -> bool:
    """Whether a model lies on this machine; an empty path is the working folder."""
    return bool(name) and Path(name).is_dir()


def read_config(name: str, options: Mapping[str, Any]) -> Any:
    """The configuration of a model, with some of its fields replaced.

    Raises:
        UnknownNameError: No such folder or repository.
        CheckpointError: It cannot be read, or its numbers are those of no network.
        InvalidInputError: Options that are no fields of it.
    """
    check_numbers(options, f"hf:{name}")
    if is_folder(name) and "subfolder" not in options:
        read_folder_config(name)
    try:
        described, _ = PretrainedConfig.get_config_dict(name, **hub_options(options))
        check_numbers(described, f"hf:{name}")  # Making a configuration of it may take as much memory as it asks for.
        config, unused = AutoConfig.from_pretrained(name, trust_remote_code=False, return_unused_kwargs=True, **options)
    except CheckpointError:
        raise
    except Exception as error:  # Files, the hub's client and the configuration's own checks fail in their own ways.
        if is_folder(name):
            raise CheckpointError(f"cannot read the model's configuration in {name}: {first_line(error)}") from error
        raise UnknownNameError(
            f"cannot find hf:{name}: {first_line(error)}; expected a folder that save_pretrained wrote, or owner/name on the "
            "Hugging Face hub; check the name and the connection"
        ) from error
    refuse_unknown(config.model_type, set(unused) - set(HUB_OPTIONS))
    return config


def refuse_unknown(model_type: str, unknown: Collection[str]) -> None:
    """Refuse fields that a configuration has not."""
    if unknown:
        raise InvalidInputError(
            f"a {model_type} of transformers has no option {', '.join(sorted(unknown))}; expected fields of its configuration, or "
            f"{', '.join(HUB_OPTIONS)}"
        )


def _complete(module: nn.Module, missing: list[str], name: str) -> nn.Module:
    if missing:
        raise CheckpointError(
            f"expected trained weights for every part of {name}, found none for {', '.join(missing[:5])}; it is a backbone without "
            "this classifier: fine-tune it first, or ask for random weights by pretrained=False"
        )
    return module


def trained(name: str, config: Any, **options: Any) -> tuple[nn.Module, list[str]]:
    """A model with its trained weights, and the names of those that have none, which are random.

    Raises:
        UnsupportedModelError: transformers has no classifier of this type.
        CheckpointError: Weights that are damaged, unsafe or do not fit, or a network that is too large.
    """
    sketched = sketch(lambda: untrained(name, config), f"hf:{name}")
    if is_folder(name):
        expect_filled(sketched, check_weight_files(Path(name) / options.get("subfolder", "")), name)
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
        raise CheckpointError(f"cannot load the weights of {name}: {first_line(error)}") from error
    # Left to itself, transformers refers to a table that it printed.
    mismatched = sorted(report["mismatched_keys"])
    misfits = [f"{key}: expected {tuple(built)}, got {tuple(stored)}" for key, stored, built in mismatched]
    if misfits:
        raise CheckpointError(f"the weights of {name} do not fit the model: {'; '.join(misfits[:5])}")
    return module, sorted(report["missing_keys"])


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


def untrained(name: str, config: Any) -> nn.Module:
    """A model of a configuration, with random weights.

    Raises:
        UnsupportedModelError: transformers has no classifier of this type, or its parts do not go together.
    """
    try:
        build: Any = AutoModelForImageClassification.from_config
        return build(config, trust_remote_code=False)
    except (
        Exception
    ) as error:  # Sizes that do not fit fail anywhere: by zero, by a negative dimension, by an unknown activation.
        raise UnsupportedModelError(
            f"cannot build a classifier of type {config.model_type} for {name}: {first_line(error)}"
        ) from error


def hub_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those options that say where a model comes from."""
    return {key: value for key, value in options.items() if key in HUB_OPTIONS}


def read_preprocessing(name: str, config: Any, options: dict[str, Any]) -> Preprocessing | None:
    """What the processor's file says, or None where there is none: then the family's own."""
    try:
        path = cached_file(name, PROCESSOR, _raise_exceptions_for_missing_entries=False, **options)
        described = None if path is None else read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {PROCESSOR} of {name}: {first_line(error)}") from error
    if described is None:
        return None
    try:
        return processor_preprocessing(described, family_preprocessing(config))
    except InvalidInputError as error:
        raise CheckpointError(f"{PROCESSOR} of {name} is not one that this version understands: {error}") from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(f"{PROCESSOR} of {name} is not one that this version understands: {error!r}") from error


def first_line(error: Exception) -> str:
    """The first line of a message that says anything."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)

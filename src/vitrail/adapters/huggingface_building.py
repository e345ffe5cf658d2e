"""Hugging Face networks for training, and again from a file's description."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import CONFIG_MAPPING, AutoConfig, PretrainedConfig

from vitrail.adapters.build_spec import BuildSpec, ModelSpec, is_plain
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.fit_weights import TrainedWeights, fit_state, head_names, trained_weights
from vitrail.adapters.huggingface import adapt_huggingface, family_preprocessing, read_class_names
from vitrail.adapters.huggingface_loading import (
    first_line,
    hub_options,
    is_folder,
    read_config,
    read_preprocessing,
    refuse_unknown,
    trained,
    untrained,
)
from vitrail.adapters.plain import adapt_plain
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.core.errors import CheckpointError, InvalidInputError, UnsupportedModelError

DROP_PATH = ("drop_path_rate",)
ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attention_dropout")
"""How configurations call these; the first that one has."""


def build_huggingface(name: str, wanted: ModelSpec) -> Classifier:
    """Build a Hugging Face network for training: as a Vision Transformer where it is one, else as a plain classifier.

    Args:
        name: A folder or hub repository, of whose configuration fields are replaced; or a type, e.g. `vit`, for the defaults.
        wanted: What it is to be like.

    Raises:
        UnknownNameError: No such folder or repository.
        InvalidInputError: Options that are no fields of the configuration.
        CheckpointError: Weights that are damaged, unsafe or do not fit.
        UnsupportedModelError: transformers has no classifier of this type, or no file of ours can describe it.
    """
    hub = hub_options(wanted.options)
    bare = name in CONFIG_MAPPING and not is_folder(name)
    if bare and wanted.pretrained:
        raise InvalidInputError(f"hf:{name} is a bare configuration without weights; expected pretrained=False, or owner/name")
    own = AutoConfig.for_model(name) if bare else read_config(name, hub)
    fields = _fields(own, name, wanted)
    if bare:
        refuse_unknown(name, [field for field in fields if field not in own.to_dict() and field != "num_labels"])
        config = _configured(name, fields)
    else:
        config = read_config(name, {**hub, **fields})
    module = untrained(name, config)
    own_preprocessing = None if bare else read_preprocessing(name, config, hub)
    display = name if is_folder(name) else f"hf:{name}"
    classifier = view_huggingface(module, display, (), wanted.preprocessing(own_preprocessing or family_preprocessing(config)))
    # Refused now rather than after the training, and not looked at again for every file.
    classifier = replace(classifier, build_spec=describe_huggingface(module))
    if wanted.pretrained:
        weights, names = pretrained_weights(name, hub)
        fit_state(module, weights, display, keep_head=True)
        classifier = replace(classifier, class_names=names if len(names) == wanted.num_classes else ())
    return classifier


def pretrained_weights(name: str, hub: Mapping[str, Any]) -> tuple[TrainedWeights, tuple[str, ...]]:
    """Trained weights, without a head where it has none, and the names of the classes.

    Raises:
        UnknownNameError: No such folder or repository.
        CheckpointError: Weights that are damaged, unsafe or lack more than the head.
    """
    source, missing = trained(name, read_config(name, hub), **hub)
    absent = [key for key in missing if key not in head_names(source)]
    if absent:
        raise CheckpointError(f"expected trained weights for every part of {name} but its head, found none for {absent[0]}")
    return trained_weights(source, without=missing), () if missing else read_class_names(source.config)


def view_huggingface(
    module: nn.Module, name: str, class_names: tuple[str, ...], preprocessing: Preprocessing | None
) -> Classifier:
    """A Hugging Face network as a Vision Transformer where it is one that vitrail knows, else as a plain classifier."""
    try:
        return adapt_huggingface(module, name, class_names, preprocessing)
    except UnsupportedModelError:
        if "ForImageClassification" not in type(module).__name__:
            raise
        return adapt_plain(module, name, class_names, preprocessing or family_preprocessing(module.config))


def describe_huggingface(module: Any) -> BuildSpec:
    """What a file says of a network: the fields of its configuration.

    Raises:
        UnsupportedModelError: The configuration is nested, so that a file might ask for anything; or the network is another.
    """
    # Fields beyond the type's own, which users and the hub's files have, mean nothing to the network.
    known = _own_fields(module.config.model_type) - {"stage_names"}  # Those follow from the others.
    fields = {key: value for key, value in module.config.to_dict().items() if key in known}
    nested = not is_plain(fields) or any(isinstance(value, Mapping) for value in fields.values())
    if nested or module.config.model_type == "timm_wrapper":
        raise UnsupportedModelError(
            f"expected a configuration of numbers, words and lists, got that of a {module.config.model_type}, which holds "
            "another network's; save the model by its own save_pretrained"
        )
    fields |= {"model_type": module.config.model_type, "num_labels": module.config.num_labels}
    spec = BuildSpec("huggingface", fields | {"architectures": [type(module).__name__]})
    with torch.random.fork_rng(devices=[]):  # Saving in the middle of a training changes nothing of it.
        built, shapes = rebuild_huggingface(spec.config).state_dict(), module.state_dict()
    odd = [
        name
        for name in {**built, **shapes}
        if name not in built or name not in shapes or built[name].shape != shapes[name].shape
    ]
    if odd:
        raise UnsupportedModelError(
            f"expected the network that its configuration describes, got another in {', '.join(odd[:3])}; a head of one's own cannot be "
            "saved: set num_labels instead"
        )
    return spec


def rebuild_huggingface(config: Mapping[str, Any]) -> nn.Module:
    """Build the network that a file describes, without its weights.

    Only fields of the type's own configuration are taken: others may name code on the hub.

    Raises:
        CheckpointError: The description asks for something else.
    """
    fields = dict(config)
    model_type = fields.pop("model_type")
    # What wraps a timm network would ask timm, which fetches models by name.
    if model_type not in CONFIG_MAPPING or model_type == "timm_wrapper":
        raise CheckpointError(f"expected a type of model that this version of transformers knows, got {model_type!r}")
    known = _own_fields(model_type)
    odd = sorted(set(fields) - known - {"num_labels", "architectures"})
    if odd or any(isinstance(value, Mapping) for value in fields.values()):
        raise CheckpointError(f"expected fields of the configuration of a {model_type}, got {', '.join(odd) or 'nested ones'}")
    return untrained(f"a {model_type}", _configured(model_type, fields))


def _own_fields(model_type: str) -> set[str]:
    """The fields that a type's configuration has beyond those that all have."""
    return set(AutoConfig.for_model(model_type).to_dict()) - set(PretrainedConfig().to_dict())


def _configured(model_type: str, fields: Mapping[str, Any]) -> Any:
    try:
        return AutoConfig.for_model(model_type, **fields)
    except Exception as error:  # Checked by transformers in many ways.
        raise InvalidInputError(
            f"transformers cannot configure a {model_type} with {dict(fields)}: {first_line(error)}"
        ) from error


def _fields(own: Any, name: str, wanted: ModelSpec) -> dict[str, Any]:
    """The fields of a configuration that are to be replaced."""
    size = wanted.image_size
    square = size is None or size[0] == size[1]
    ours: dict[str, tuple[str, Any]] = {
        "num_labels": ("num_classes", wanted.num_classes),
        "num_channels": ("in_channels", wanted.in_channels),
        _word(own, DROP_PATH): ("drop_path", wanted.drop_path),
        _word(own, ATTENTION_DROPOUT): ("attention_dropout", wanted.attention_dropout),
    }
    if hasattr(own, "image_size"):  # Others take images of any size, and have no such field.
        ours["image_size"] = ("image_size", size[0] if size is not None and square else size)
    shape = replace(
        wanted, options={key: value for key, value in wanted.options.items() if key not in hub_options(wanted.options)}
    )
    fields = shape.merged(ours, f"hf:{name}")
    for theirs, (word, _) in ours.items():
        if theirs in fields and theirs != "num_labels" and not hasattr(own, theirs):
            raise InvalidInputError(f"hf:{name}, a {own.model_type}, has no {word} ({theirs} in its library); leave it out")
    return {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}


def _word(own: Any, words: tuple[str, ...]) -> str:
    return next((word for word in words if hasattr(own, word)), words[0])

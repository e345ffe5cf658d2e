"""Build Hugging Face networks for training, and rebuild them from a file's description."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from transformers import CONFIG_MAPPING, MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.core_model_loading import revert_weight_conversion

from vitrail.adapters.adapting import view
from vitrail.adapters.build_spec import BuildSpec, ModelSpec, is_plain
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.fit_weights import TrainedWeights, head_names, trained_weights, transfer_to_same
from vitrail.adapters.huggingface.adapting import read_class_names
from vitrail.adapters.huggingface.family_preprocessing import family_preprocessing
from vitrail.adapters.huggingface.loading import (
    build_untrained,
    hub_options,
    is_folder,
    load_trained,
    read_config,
    read_preprocessing,
    refuse_unknown,
)
from vitrail.core.errors import CheckpointError, InvalidInputError, UnsupportedModelError, first_line

DROP_PATH = ("drop_path_rate",)
ATTENTION_DROPOUT = ("attention_probs_dropout_prob", "attention_dropout")
"""Names of these fields in configurations; the first that exists counts."""


def build_huggingface(name: str, spec: ModelSpec) -> Classifier:
    """Build a Hugging Face network for training.

    Args:
        name: A folder or hub repository, whose configuration `spec` modifies; or a type, e.g. `vit`, for its defaults.
        spec: Number of classes and further properties.

    Raises:
        UnknownNameError: There is no such folder or repository.
        InvalidInputError: The configuration does not have these options.
        CheckpointError: The weights are damaged, unsafe or do not fit.
        UnsupportedModelError: transformers has no classifier of this type, or a vitrail file cannot describe it.
    """
    hub = hub_options(spec.options)
    bare = name in CONFIG_MAPPING and not is_folder(name)
    if bare and spec.pretrained:
        raise InvalidInputError(f"hf:{name} is a bare configuration without weights; expected pretrained=False, or owner/name")
    own = AutoConfig.for_model(name) if bare else read_config(name, hub)
    if not bare and (type(own) not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING or hasattr(own, "vision_config")):
        raise UnsupportedModelError(
            f"vitrail builds classifiers, and hf:{name} is a {own.model_type} without one; to load weights of your own, put them into its "
            "folder as model.safetensors, and name the folder alone"
        )
    fields = _translate_spec(own, name, spec)
    if bare:
        refuse_unknown(name, [field for field in fields if field not in own.to_dict() and field != "num_labels"])
        config = _make_config(name, fields)
    else:
        config = read_config(name, {**hub, **fields})
    module = build_untrained(name, config)
    own_preprocessing = None if bare else read_preprocessing(name, config, hub)
    display = name if is_folder(name) else f"hf:{name}"
    classifier = view(module, display, (), spec.preprocessing(own_preprocessing or family_preprocessing(config)))
    # Fail now rather than after training; saving then need not check again.
    classifier = replace(classifier, build_spec=describe_huggingface(module))
    if spec.pretrained:
        weights, names = pretrained_weights(name, hub)
        transfer_to_same(module, weights, display, keep_head=True)
        classifier = replace(classifier, class_names=names if len(names) == spec.num_classes else ())
    return classifier


def pretrained_weights(name: str, hub: Mapping[str, Any]) -> tuple[TrainedWeights, tuple[str, ...]]:
    """Load trained weights, without head weights that are missing, and the names of the classes.

    Raises:
        UnknownNameError: There is no such folder or repository.
        CheckpointError: The weights are damaged or unsafe, or others than the head's are missing.
    """
    source, missing = load_trained(name, read_config(name, hub), **hub)
    absent = [key for key in missing if key not in head_names(source)]
    if absent:
        raise CheckpointError(f"expected trained weights for every part of {name} but its head, found none for {absent[0]}")
    return trained_weights(source, without=missing), () if missing else read_class_names(source.config)


def saved_names(module: Any) -> dict[str, str]:
    """Return the names of those weights that `save_pretrained` renames, by their names in files.

    Since version 5, transformers builds networks with other names than those of its files, which are the names of version 4.
    """
    if not isinstance(module, PreTrainedModel):
        return {}
    state = module.state_dict()
    names = {id(tensor): name for name, tensor in state.items()}
    saved = revert_weight_conversion(module, state)
    # Weights that are split or merged on the way are other tensors; none of the image models has any.
    return {name: names[id(tensor)] for name, tensor in saved.items() if id(tensor) in names and names[id(tensor)] != name}


def describe_huggingface(module: Any) -> BuildSpec:
    """Describe a network for a vitrail file, by the fields of its configuration.

    Raises:
        UnsupportedModelError: The configuration is nested, or does not describe the network.
    """
    # Other fields, which users and hub files add, do not affect the network.
    known = _own_fields(module.config.model_type) - {"stage_names"}  # Derived from other fields.
    fields = {key: value for key, value in module.config.to_dict().items() if key in known}
    nested = not is_plain(fields) or any(isinstance(value, Mapping) for value in fields.values())
    if nested or module.config.model_type == "timm_wrapper":
        raise UnsupportedModelError(
            f"expected a configuration of numbers, words and lists, got that of a {module.config.model_type}, which holds "
            "another network's; save the model by its own save_pretrained"
        )
    fields |= {"model_type": module.config.model_type, "num_labels": module.config.num_labels}
    spec = BuildSpec("huggingface", fields | {"architectures": [type(module).__name__]})
    with torch.random.fork_rng(devices=[]):  # Saving during training must not change its random state.
        built, shapes = rebuild_huggingface(spec.config).state_dict(), module.state_dict()
    mismatched = [
        name
        for name in {**built, **shapes}
        if name not in built or name not in shapes or built[name].shape != shapes[name].shape
    ]
    if mismatched:
        raise UnsupportedModelError(
            f"expected the network that its configuration describes, got another in {', '.join(mismatched[:3])}; a custom head cannot be "
            "saved: set num_labels instead"
        )
    return spec


def rebuild_huggingface(config: Mapping[str, Any]) -> nn.Module:
    """Build the network that a file describes, without its weights.

    Only fields of the type's own configuration are accepted, because others may name code on the hub.

    Raises:
        CheckpointError: The description contains something else.
    """
    fields = dict(config)
    model_type = fields.pop("model_type")
    # A timm_wrapper would let timm fetch models by name.
    if model_type not in CONFIG_MAPPING or model_type == "timm_wrapper":
        raise CheckpointError(f"expected a type of model that this version of transformers knows, got {model_type!r}")
    known = _own_fields(model_type)
    unknown = sorted(set(fields) - known - {"num_labels", "architectures"})
    if unknown or any(isinstance(value, Mapping) for value in fields.values()):
        raise CheckpointError(
            f"expected fields of the configuration of a {model_type}, got {', '.join(unknown) or 'nested ones'}"
        )
    return build_untrained(f"a {model_type}", _make_config(model_type, fields))


def _own_fields(model_type: str) -> set[str]:
    """List the fields of a type's configuration beyond those common to all types."""
    return set(AutoConfig.for_model(model_type).to_dict()) - set(PretrainedConfig().to_dict())


def _make_config(model_type: str, fields: Mapping[str, Any]) -> Any:
    try:
        return AutoConfig.for_model(model_type, **fields)
    except Exception as error:  # transformers raises many kinds of errors.
        raise InvalidInputError(
            f"transformers cannot configure a {model_type} with {dict(fields)}: {first_line(error)}"
        ) from error


def _translate_spec(own: Any, name: str, spec: ModelSpec) -> dict[str, Any]:
    """Translate a specification into the fields of a configuration to replace."""
    size = spec.image_size
    square = size is None or size[0] == size[1]
    translated: dict[str, tuple[str, Any]] = {
        "num_labels": ("num_classes", spec.num_classes),
        "num_channels": ("in_channels", spec.in_channels),
        _find_field(own, DROP_PATH): ("drop_path", spec.drop_path),
        _find_field(own, ATTENTION_DROPOUT): ("attention_dropout", spec.attention_dropout),
    }
    if hasattr(own, "image_size"):  # Networks without this field take images of any size.
        translated["image_size"] = ("image_size", size[0] if size is not None and square else size)
    shape = replace(spec, options={key: value for key, value in spec.options.items() if key not in hub_options(spec.options)})
    fields = shape.merge_options(translated, f"hf:{name}")
    for theirs, (word, _) in translated.items():
        if theirs in fields and theirs != "num_labels" and not hasattr(own, theirs):
            raise InvalidInputError(f"hf:{name}, a {own.model_type}, has no {word} ({theirs} in its library); leave it out")
    return {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}


def _find_field(own: Any, words: tuple[str, ...]) -> str:
    return next((word for word in words if hasattr(own, word)), words[0])

"""torchvision as a library of networks."""

import inspect
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, ClassVar, final

from torch import nn
from torchvision import models
from torchvision.models import get_model_builder, list_models

from vitrail.adapters.adapting import view
from vitrail.adapters.build_spec import BuildSpec, ModelSpec, lists_to_tuples, translate_error
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.fit_weights import TrainedWeights, trained_weights, transfer_to_same
from vitrail.adapters.library import Library
from vitrail.adapters.plain import head_layers
from vitrail.adapters.torchvision.adapter import adapt_torchvision
from vitrail.adapters.torchvision.creation import (
    create_torchvision,
    find_weights,
    make_torchvision,
    make_trained_torchvision,
    published_preprocessing,
)
from vitrail.adapters.training_settings import TrainingSettings, read_arguments
from vitrail.core.errors import CheckpointError, InvalidInputError

OUR_NAMES = {"stochastic_depth_prob": "drop_path", "attention_dropout": "attention_dropout", "image_size": "image_size"}
"""Our name by torchvision's argument."""

NOT_SHAPE = ("weights", "pretrained", "progress")
"""Arguments of torchvision's builders that fetch weights and do not belong to a network's shape."""


@final
class TorchvisionLibrary(Library):
    """Classifiers of torchvision."""

    title: ClassVar[str] = "torchvision"

    adapt = staticmethod(adapt_torchvision)

    def list_names(self) -> Collection[str]:
        return list_models(module=models)

    def load(self, name: str, **options: Any) -> Classifier:
        return create_torchvision(name, **options)

    def build(self, name: str, spec: ModelSpec) -> Classifier:
        known = find_weights(name)
        if spec.in_channels != 3:
            raise InvalidInputError(
                f"expected in_channels=3 for torchvision:{name}, which takes no other, got {spec.in_channels}; timm's networks take any"
            )
        options = _translate_spec(name, spec)
        if not spec.num_classes:
            module = _without_head(_make(name, options | {"num_classes": 1}))
            classifier = view(module, f"torchvision:{name}", (), published_preprocessing(known, module))
            return replace(classifier, output="embedding", preprocessing=spec.preprocessing(classifier.preprocessing))
        module = _make(name, options)
        classifier = view(module, f"torchvision:{name}", (), published_preprocessing(known, module))
        classifier = replace(
            classifier,
            build_spec=BuildSpec("torchvision", {"name": name, "options": options}),
            preprocessing=spec.preprocessing(classifier.preprocessing),
        )
        if not spec.pretrained:
            return classifier
        trained, chosen = make_trained_torchvision(name)
        transfer_to_same(module, trained_weights(trained), f"torchvision:{name}", keep_head=True)
        names = tuple(chosen.meta["categories"])
        return replace(classifier, class_names=names) if len(names) == spec.num_classes else classifier

    def rebuild(self, config: Mapping[str, Any]) -> nn.Module:
        name, options = config["name"], lists_to_tuples(config["options"])
        if not isinstance(name, str) or not isinstance(options, dict) or set(options) & set(NOT_SHAPE):
            raise CheckpointError(
                f"expected the name of a torchvision model and options of its shape, got {name!r} and {options!r}"
            )
        find_weights(name)
        return make_torchvision(name, options)

    def saved_names(self, module: nn.Module) -> Mapping[str, str]:
        # Fine-tuning often replaces the classifier, a Sequential of one layer, by that layer itself.
        return {f"heads.{kind}": f"heads.head.{kind}" for kind in ("weight", "bias")} if hasattr(module, "heads") else {}

    def read_training(self, extra: Mapping[str, Any]) -> TrainingSettings | None:
        # What torchvision's references/classification/train.py writes beside the weights.
        arguments = read_arguments(extra)
        name, size, resized = (arguments.get(key) for key in ("model", "val_crop_size", "val_resize_size"))
        if name not in list_models(module=models):
            return None
        preprocessing: dict[str, Any] = {}
        if isinstance(size, int) and isinstance(resized, int) and 0 < size <= resized:
            preprocessing = {"size": (size, size), "crop_fraction": size / resized}
        if arguments.get("interpolation"):
            preprocessing["interpolation"] = arguments["interpolation"]
        return TrainingSettings(str(name), preprocessing=preprocessing)

    def read_weights(self, name: str, **options: Any) -> TrainedWeights:
        return trained_weights(make_trained_torchvision(name, **options)[0])


def _translate_spec(name: str, spec: ModelSpec) -> dict[str, Any]:
    """Translate a specification into arguments of torchvision's builder."""
    invalid = [option for option in NOT_SHAPE if option in spec.options]
    if invalid:
        raise InvalidInputError(
            f"expected options of the shape of torchvision:{name}, got {invalid[0]}; give pretrained to build"
        )
    translated: dict[str, tuple[str, Any]] = {
        "num_classes": ("num_classes", spec.num_classes),
        "stochastic_depth_prob": ("drop_path", spec.drop_path),
        "attention_dropout": ("attention_dropout", spec.attention_dropout),
    }
    size = spec.image_size
    if name.startswith("vit_"):  # Networks without this option take images of any size.
        if size is not None and size[0] != size[1]:
            raise InvalidInputError(f"expected square images for torchvision:{name}, got {size[0]}x{size[1]}")
        own = find_weights(name)["DEFAULT"].meta["min_size"][0] if spec.pretrained else None
        translated["image_size"] = ("image_size", own if size is None else size[0])
    if name.startswith("maxvit"):
        translated["input_size"] = ("image_size", size)
    return spec.merge_options(translated, f"torchvision:{name}")


def _without_head(module: nn.Module) -> nn.Module:
    """Let a network pass on what its classifier reads."""
    for head in head_layers(module):
        path = next(path for path, part in module.named_modules() if part is head)
        module.set_submodule(path, nn.Identity())
    return module


def _make(name: str, options: Mapping[str, Any]) -> nn.Module:
    try:
        module = make_torchvision(name, options)
        # Some of its networks accept unknown arguments silently.
        known = {*inspect.signature(type(module)).parameters, *inspect.signature(get_model_builder(name)).parameters}
        unknown = [option for option in options if option not in known]
        if unknown:
            raise InvalidInputError(f"torchvision cannot create {name!r}: unexpected keyword argument {unknown[0]!r}")
    except InvalidInputError as error:
        raise translate_error(error, OUR_NAMES, f"torchvision:{name}") from error
    return module

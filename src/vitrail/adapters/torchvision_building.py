"""torchvision networks for training: ViTs and any other classifier, by name and options, and again from a file's description."""

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn
from torchvision.models import get_model_builder

from vitrail.adapters.build_spec import BuildSpec, ModelSpec, frozen_lists, translate_error
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.fit_weights import fit_state, trained_weights
from vitrail.adapters.plain import adapt_plain
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.adapters.torchvision import adapt_torchvision, fetch, find_weights, make_torchvision, weights_preprocessing
from vitrail.core.errors import CheckpointError, InvalidInputError, UnsupportedModelError
from vitrail.core.registry import unknown_name
from vitrail.models.checkpoints import load_strictly

OUR_WORDS = {"stochastic_depth_prob": "drop_path", "attention_dropout": "attention_dropout", "image_size": "image_size"}

NOT_SHAPE = ("weights", "pretrained", "progress")
"""Arguments of torchvision's builders that fetch weights: no matter of a network's shape."""


def build_torchvision(name: str, wanted: ModelSpec) -> Classifier:
    """Build a torchvision network for training: as a Vision Transformer where it is one, else as a plain classifier.

    Raises:
        UnknownNameError: torchvision knows no such model, or its weights could not be fetched.
        InvalidInputError: Options that it does not have, or that no file can hold.
    """
    known = find_weights(name)
    if wanted.in_channels != 3:
        raise InvalidInputError(
            f"expected in_channels=3 for torchvision:{name}, which takes no other, got {wanted.in_channels}; a network of timm takes any"
        )
    options = _options(name, wanted)
    module = _make(name, options)
    classifier = view_torchvision(module, f"torchvision:{name}", (), _preprocessing(known, module))
    classifier = replace(
        classifier,
        build_spec=BuildSpec("torchvision", {"name": name, "options": options}),
        preprocessing=wanted.preprocessing(classifier.preprocessing),
    )
    if not wanted.pretrained:
        return classifier
    trained, chosen = make_trained(name)
    fit_state(module, trained_weights(trained), f"torchvision:{name}", keep_head=True)
    names = tuple(chosen.meta["categories"])
    return replace(classifier, class_names=names) if len(names) == wanted.num_classes else classifier


def make_trained(name: str, weights: str = "DEFAULT") -> tuple[nn.Module, Any]:
    """A torchvision classifier of any architecture with its trained weights, and what is known of these.

    Raises:
        UnknownNameError: No such model or weights, or they could not be fetched.
    """
    known = find_weights(name)
    if weights not in known.__members__:
        raise unknown_name(f"weights of torchvision:{name}", weights, list(known.__members__))
    chosen = known[weights]
    module = make_torchvision(name, {"image_size": chosen.meta["min_size"][0]} if name.startswith("vit_") else {})
    load_strictly(module, fetch(chosen, name), f"torchvision:{name}")
    return module, chosen


def view_torchvision(
    module: nn.Module, name: str, class_names: tuple[str, ...], preprocessing: Preprocessing | None
) -> Classifier:
    """A torchvision network as a Vision Transformer where it is one, else as a plain classifier."""
    try:
        return adapt_torchvision(module, name, class_names, preprocessing)
    except UnsupportedModelError:
        return adapt_plain(module, name, class_names, preprocessing)


def rebuild_torchvision(config: Mapping[str, Any]) -> nn.Module:
    """Build the network that a file describes, without its weights.

    Raises:
        CheckpointError: The description asks for something else than a network of torchvision's own list.
    """
    name, options = config["name"], frozen_lists(config["options"])
    if not isinstance(name, str) or not isinstance(options, dict) or set(options) & set(NOT_SHAPE):
        raise CheckpointError(
            f"expected the name of a torchvision model and options of its shape, got {name!r} and {options!r}"
        )
    find_weights(name)
    return make_torchvision(name, options)


def _options(name: str, wanted: ModelSpec) -> dict[str, Any]:
    """The arguments of torchvision's builder."""
    odd = [option for option in NOT_SHAPE if option in wanted.options]
    if odd:
        raise InvalidInputError(f"expected options of the shape of torchvision:{name}, got {odd[0]}; give pretrained to build")
    ours: dict[str, tuple[str, Any]] = {
        "num_classes": ("num_classes", wanted.num_classes),
        "stochastic_depth_prob": ("drop_path", wanted.drop_path),
        "attention_dropout": ("attention_dropout", wanted.attention_dropout),
    }
    size = wanted.image_size
    if name.startswith("vit_"):  # Others take images of any size, and no such option.
        if size is not None and size[0] != size[1]:
            raise InvalidInputError(f"expected square images for torchvision:{name}, got {size[0]}x{size[1]}")
        own = find_weights(name)["DEFAULT"].meta["min_size"][0] if wanted.pretrained else None
        ours["image_size"] = ("image_size", own if size is None else size[0])
    if name.startswith("maxvit"):
        ours["input_size"] = ("image_size", size)
    return wanted.merged(ours, f"torchvision:{name}")


def _make(name: str, options: Mapping[str, Any]) -> nn.Module:
    try:
        module = make_torchvision(name, options)
        # Some of its networks swallow whatever they do not know.
        known = {*inspect.signature(type(module)).parameters, *inspect.signature(get_model_builder(name)).parameters}
        unknown = [option for option in options if option not in known]
        if unknown:
            raise InvalidInputError(f"torchvision cannot create {name!r}: unexpected keyword argument {unknown[0]!r}")
    except InvalidInputError as error:
        raise translate_error(error, OUR_WORDS, f"torchvision:{name}") from error
    return module


def _preprocessing(known: Any, module: nn.Module) -> Preprocessing | None:
    """As the trained weights want it, at a ViT's own size."""
    if "DEFAULT" not in known.__members__:
        return None
    theirs = weights_preprocessing(known["DEFAULT"].transforms())
    size = getattr(module, "image_size", None)
    return theirs if size is None else replace(theirs, size=(size, size))

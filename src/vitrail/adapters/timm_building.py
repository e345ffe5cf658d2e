"""timm networks for training: ViTs and any other classifier, by name and options, and again from a file's description."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import timm
from torch import nn

from vitrail.adapters.build_spec import BuildSpec, ModelSpec, frozen_lists, is_plain, translate_error
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.plain import adapt_plain
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.adapters.timm import as_vit, make_timm, timm_preprocessing
from vitrail.adapters.timm_labels import timm_class_names
from vitrail.core.errors import CheckpointError, InvalidInputError, UnsupportedModelError

NOT_SHAPE = frozenset({
    "cache_dir", "checkpoint_path", "device", "dtype", "exportable", "feature_cfg", "features_only", "kwargs_filter", "no_jit",
    "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_filter_fn", "pretrained_model_args",
    "pretrained_strict", "scriptable",
})  # fmt: skip
"""Arguments of `timm.create_model` that read files, or change what it returns: no matter of a network's shape."""

OUR_WORDS = {"drop_path_rate": "drop_path", "attn_drop_rate": "attention_dropout", "img_size": "image_size"}


def build_timm(name: str, wanted: ModelSpec) -> Classifier:
    """Build a timm network for training: as a Vision Transformer where it is one, else as a plain classifier.

    Raises:
        UnknownNameError: timm knows no such model, or its weights could not be fetched.
        InvalidInputError: Options that it does not have, that no file can hold, or that go by another name here.
    """
    options = _options(name, wanted)
    try:
        module = make_timm(name, wanted.pretrained, options)
    except InvalidInputError as error:
        raise translate_error(error, OUR_WORDS, f"timm:{name}") from error
    names = timm_class_names(module) if wanted.pretrained else ()
    classifier = view_timm(module, f"timm:{name}", names if len(names) == wanted.num_classes else (), None)
    return replace(
        classifier, build_spec=_build_spec(name, module, options), preprocessing=wanted.preprocessing(classifier.preprocessing)
    )


def view_timm(module: nn.Module, name: str, class_names: tuple[str, ...], preprocessing: Preprocessing | None) -> Classifier:
    """A timm network as a Vision Transformer where it is one that vitrail knows, else as a plain classifier."""
    try:
        return as_vit(module, name, class_names, preprocessing)
    except UnsupportedModelError:
        return adapt_plain(module, name, class_names, preprocessing or timm_preprocessing(module))


def rebuild_timm(config: Mapping[str, Any]) -> nn.Module:
    """Build the network that a file describes, without its weights.

    Raises:
        CheckpointError: The description asks for something else than a network of timm's own list.
    """
    name, options = config["name"], frozen_lists(config["options"])
    if not isinstance(name, str) or not timm.is_model(name) or not isinstance(options, dict):
        raise CheckpointError(f"expected the name of a timm model and its options, got {name!r} and {options!r}")
    odd = sorted(NOT_SHAPE & set(options))
    if odd:
        raise CheckpointError(f"expected options of the shape of timm:{name}, got {', '.join(odd)}")
    return make_timm(name, False, options)


def _options(name: str, wanted: ModelSpec) -> dict[str, Any]:
    """The arguments of `timm.create_model`."""
    odd = sorted((NOT_SHAPE - {"cache_dir"}) & set(wanted.options))
    if odd:
        raise InvalidInputError(f"expected options of the shape of timm:{name}, got {', '.join(odd)}")
    ours = {
        "num_classes": ("num_classes", wanted.num_classes),
        "in_chans": ("in_channels", wanted.in_channels),
        # Other networks take images of any size, and no such option.
        "img_size": ("image_size", wanted.image_size if _has_fixed_size(name) else None),
        "drop_path_rate": ("drop_path", wanted.drop_path),
        "attn_drop_rate": ("attention_dropout", wanted.attention_dropout),
    }
    return wanted.merged(ours, f"timm:{name}")


def _has_fixed_size(name: str) -> bool:
    if ":" in name:  # A folder or repository tells only when it is loaded.
        return True
    config = timm.models.get_pretrained_cfg(name)
    return config is not None and bool(config.fixed_input_size)


def _build_spec(name: str, module: Any, options: Mapping[str, Any]) -> BuildSpec:
    shape = {key: value for key, value in options.items() if key not in NOT_SHAPE}
    if ":" in name:  # What the folder or the repository said is written down, so that nothing is fetched to build it again.
        name = module.pretrained_cfg["architecture"]
        shape = {key: value for key, value in module.pretrained_model_args.items() if is_plain(value)} | shape
    return BuildSpec("timm", {"name": name, "options": shape})

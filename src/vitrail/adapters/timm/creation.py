"""Create timm's networks by name."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import timm
from torch import nn

from vitrail.adapters.adapting import view
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.folder_checks import check_weight_files, read_folder_config
from vitrail.adapters.quiet_hub import quiet_hub
from vitrail.adapters.timm.labels import timm_class_names
from vitrail.core.errors import CheckpointError, InvalidInputError, UnknownNameError
from vitrail.core.registry import unknown_name
from vitrail.models.limits import build_on_meta, check_numbers, expect_enough_bytes

NOT_SHAPE = frozenset({
    "cache_dir", "checkpoint_path", "device", "dtype", "exportable", "feature_cfg", "features_only", "kwargs_filter", "no_jit",
    "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_filter_fn", "pretrained_model_args",
    "pretrained_strict", "scriptable",
})  # fmt: skip
"""Arguments of `timm.create_model` that read files or change what it returns, and do not belong to a network's shape."""


def create_timm(name: str, *, pretrained: bool = True, **options: Any) -> Classifier:
    """Create a timm model by name and adapt it.

    Raises:
        UnknownNameError: timm knows no such model, or its weights could not be fetched.
        UnsupportedModelError: It gives one vector per patch.
    """
    module = make_timm(name, pretrained, options)
    classifier = view(module, f"timm:{name}", timm_class_names(module))
    return as_classifier(classifier) if options.get("num_classes") else classifier


def as_classifier(classifier: Classifier) -> Classifier:
    """Take outputs for classes, because their number was chosen, also where published weights make them an embedding."""
    return replace(classifier, output="softmax") if classifier.output == "embedding" else classifier


def make_timm(name: str, pretrained: bool, options: Mapping[str, Any]) -> nn.Module:
    """Create a timm model of any architecture by name.

    Raises:
        UnknownNameError: timm knows no such model, or its weights could not be fetched.
        InvalidInputError: The model does not have these options, or their values are incompatible.
        CheckpointError: The weights or the configuration of a folder are invalid or too large.
    """
    if ":" not in name and not timm.is_model(name):
        raise unknown_name("timm model", name, timm.list_models("*vit*") + timm.list_models("deit*"))
    check_numbers(options, f"timm:{name}")
    if ":" in name:
        _check_source(name, pretrained, options)
    try:
        with quiet_hub():
            return timm.create_model(name, pretrained=pretrained, **options)
    except (TypeError, AssertionError) as error:
        raise InvalidInputError(f"timm cannot create {name!r} with {dict(options)}: {error}") from error
    except CheckpointError:
        raise
    except Exception as error:  # Network, hub and file errors have no common base.
        if not pretrained:
            raise InvalidInputError(f"timm cannot create {name!r} with {dict(options)}: {error!r}") from error
        raise UnknownNameError(
            f"cannot load the weights of timm:{name}: {str(error).rstrip('.')}; check the name and the connection, or ask for random "
            "weights by pretrained=False (--model-arg pretrained=false)"
        ) from error


def _check_source(name: str, pretrained: bool, options: Mapping[str, Any]) -> None:
    """Check the configuration and weights of a folder or repository before timm builds the network."""
    source, _, path = name.partition(":")
    local = source.lower() == "local-dir"
    if local:
        read_folder_config(path)
    else:
        config = _fetch_config(path)
        check_numbers(config, f"timm:{name}")
    num_bytes = check_weight_files(path) if local and pretrained else 0
    skeleton = build_on_meta(lambda: timm.create_model(name, pretrained=False, **options), f"timm:{name}", num_bytes)
    expect_enough_bytes(skeleton, num_bytes, path)


def _fetch_config(repository: str) -> Mapping[str, Any]:
    """Fetch the arguments that a hub repository gives to its architecture; empty on errors, which loading reports."""
    with suppress(Exception):  # Network, hub and file errors have no common base.
        return dict(timm.models.load_model_config_from_hf(repository)[2])
    return {}

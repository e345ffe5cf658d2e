"""timm as a library of networks."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, final

import timm
from torch import nn

from vitrail.adapters.adapting import view
from vitrail.adapters.build_spec import BuildSpec, ModelSpec, is_plain, lists_to_tuples, translate_error
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.fit_weights import TrainedWeights, trained_weights, transfer_to_same
from vitrail.adapters.library import Library
from vitrail.adapters.timm.adapting import adapt_timm
from vitrail.adapters.timm.creation import NOT_SHAPE, as_classifier, create_timm, make_timm
from vitrail.adapters.timm.initialization import initialize_mimetically
from vitrail.adapters.timm.labels import timm_class_names
from vitrail.adapters.timm.preprocessing import timm_preprocessing
from vitrail.adapters.timm.training_files import read_training
from vitrail.adapters.timm.transfer import transfer_to_timm
from vitrail.core.errors import CheckpointError, InvalidInputError
from vitrail.models.load_report import LoadReport

OUR_NAMES = {"drop_path_rate": "drop_path", "attn_drop_rate": "attention_dropout", "img_size": "image_size"}
"""Our name by timm's argument."""


@final
class TimmLibrary(Library):
    """Networks of timm, from its own list, a folder or the Hugging Face hub."""

    title: ClassVar[str] = "timm"

    adapt = staticmethod(adapt_timm)
    preprocessing = staticmethod(timm_preprocessing)
    class_names = staticmethod(timm_class_names)
    list_names = staticmethod(timm.list_models)
    load = staticmethod(create_timm)
    initialize_mimetically = staticmethod(initialize_mimetically)
    read_training = staticmethod(read_training)

    def build(self, name: str, spec: ModelSpec) -> Classifier:
        options = _translate_spec(name, spec)
        try:
            module = make_timm(name, spec.pretrained, options)
        except InvalidInputError as error:
            raise translate_error(error, OUR_NAMES, f"timm:{name}") from error
        names = timm_class_names(module) if spec.pretrained else ()
        classifier = view(module, f"timm:{name}", names if len(names) == spec.num_classes else ())
        classifier = as_classifier(classifier) if spec.num_classes else classifier
        return replace(
            classifier,
            build_spec=_build_spec(name, module, options),
            preprocessing=spec.preprocessing(classifier.preprocessing),
        )

    def rebuild(self, config: Mapping[str, Any]) -> nn.Module:
        name, options = config["name"], lists_to_tuples(config["options"])
        if not isinstance(name, str) or not timm.is_model(name) or not isinstance(options, dict):
            raise CheckpointError(f"expected the name of a timm model and its options, got {name!r} and {options!r}")
        invalid = sorted(NOT_SHAPE & set(options))
        if invalid:
            raise CheckpointError(f"expected options of the shape of timm:{name}, got {', '.join(invalid)}")
        return make_timm(name, False, options)

    def read_weights(self, name: str, **options: Any) -> TrainedWeights:
        return trained_weights(make_timm(name, True, options))

    def transfer(
        self, classifier: Classifier, weights: TrainedWeights, source: str, *, keep_head: bool, query_noise: float
    ) -> LoadReport:
        if classifier.build_spec is None:
            return transfer_to_same(classifier.module, weights, source, keep_head=keep_head)
        return transfer_to_timm(classifier.module, classifier.build_spec, weights, source, keep_head)


def _translate_spec(name: str, spec: ModelSpec) -> dict[str, Any]:
    """Translate a specification into arguments of `timm.create_model`."""
    invalid = sorted((NOT_SHAPE - {"cache_dir"}) & set(spec.options))
    if invalid:
        raise InvalidInputError(f"expected options of the shape of timm:{name}, got {', '.join(invalid)}")
    translated = {
        "num_classes": ("num_classes", spec.num_classes),
        "in_chans": ("in_channels", spec.in_channels),
        # Networks without this option take images of any size.
        "img_size": ("image_size", spec.image_size if _has_fixed_size(name) else None),
        "drop_path_rate": ("drop_path", spec.drop_path),
        "attn_drop_rate": ("attention_dropout", spec.attention_dropout),
    }
    return spec.merge_options(translated, f"timm:{name}")


def _has_fixed_size(name: str) -> bool:
    if ":" in name:  # Unknown before a folder or repository is loaded.
        return True
    config = timm.models.get_pretrained_cfg(name)
    return config is not None and bool(config.fixed_input_size)


def _build_spec(name: str, module: Any, options: Mapping[str, Any]) -> BuildSpec:
    shape = {key: value for key, value in options.items() if key not in NOT_SHAPE}
    if ":" in name:  # Store what the folder or repository says, so that a rebuild fetches nothing.
        name = module.pretrained_cfg["architecture"]
        shape = {key: value for key, value in module.pretrained_model_args.items() if is_plain(value)} | shape
    return BuildSpec("timm", {"name": name, "options": shape})

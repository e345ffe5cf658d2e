"""Hugging Face transformers as a library of networks."""

from collections.abc import Mapping
from typing import Any, ClassVar, final

from torch import nn

from vitrail.adapters.build_spec import BuildSpec, ModelSpec
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.fit_weights import TrainedWeights
from vitrail.adapters.huggingface.adapting import adapt_huggingface, read_class_names, wrapped_preprocessing
from vitrail.adapters.huggingface.building import (
    build_huggingface,
    describe_huggingface,
    pretrained_weights,
    rebuild_huggingface,
    saved_names,
)
from vitrail.adapters.huggingface.family_preprocessing import family_preprocessing
from vitrail.adapters.huggingface.loading import create_huggingface
from vitrail.adapters.library import Library
from vitrail.adapters.preprocessing import Preprocessing


@final
class HuggingFaceLibrary(Library):
    """Image classifiers of transformers, from a folder or the hub."""

    title: ClassVar[str] = "Hugging Face"

    def adapt(
        self, module: nn.Module, name: str, class_names: tuple[str, ...], preprocessing: Preprocessing | None
    ) -> Classifier:
        return adapt_huggingface(module, name, class_names, preprocessing)

    def preprocessing(self, module: Any) -> Preprocessing:
        return wrapped_preprocessing(module) if hasattr(module, "timm_model") else family_preprocessing(module.config)

    def class_names(self, module: Any) -> tuple[str, ...]:
        return read_class_names(module.config)

    def load(self, name: str, **options: Any) -> Classifier:
        """Load a transformers model from a folder or the Hugging Face hub; with random weights if `pretrained=False`."""
        return create_huggingface(name, **options)

    def build(self, name: str, spec: ModelSpec) -> Classifier:
        return build_huggingface(name, spec)

    def rebuild(self, config: Mapping[str, Any]) -> nn.Module:
        return rebuild_huggingface(config)

    def describe(self, module: nn.Module) -> BuildSpec:
        return describe_huggingface(module)

    def saved_names(self, module: nn.Module) -> Mapping[str, str]:
        return saved_names(module)

    def read_weights(self, name: str, **options: Any) -> TrainedWeights:
        return pretrained_weights(name, options)[0]

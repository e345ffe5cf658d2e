"""timm as a library of networks."""

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, final

import timm
from torch import nn

from vitrail.adapters.build_spec import ModelSpec
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.fit_weights import TrainedWeights, trained_weights, transfer_to_same
from vitrail.adapters.library import Library
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.adapters.timm.adapting import adapt_timm
from vitrail.adapters.timm.building import build_timm, rebuild_timm
from vitrail.adapters.timm.creation import create_timm, make_timm
from vitrail.adapters.timm.initialization import initialize_mimetically
from vitrail.adapters.timm.labels import timm_class_names
from vitrail.adapters.timm.preprocessing import timm_preprocessing
from vitrail.adapters.timm.training_files import read_training
from vitrail.adapters.timm.transfer import transfer_to_timm
from vitrail.adapters.training_settings import TrainingSettings
from vitrail.models.load_report import LoadReport


@final
class TimmLibrary(Library):
    """Networks of timm, from its own list, a folder or the Hugging Face hub."""

    title: ClassVar[str] = "timm"

    def adapt(
        self, module: nn.Module, name: str, class_names: tuple[str, ...], preprocessing: Preprocessing | None
    ) -> Classifier:
        return adapt_timm(module, name, class_names, preprocessing)

    def preprocessing(self, module: nn.Module) -> Preprocessing:
        return timm_preprocessing(module)

    def class_names(self, module: nn.Module) -> tuple[str, ...]:
        return timm_class_names(module)

    def list_names(self) -> Collection[str]:
        return timm.list_models()

    def load(self, name: str, **options: Any) -> Classifier:
        """Load a timm model, with trained weights unless `pretrained=False`."""
        return create_timm(name, **options)

    def build(self, name: str, spec: ModelSpec) -> Classifier:
        return build_timm(name, spec)

    def initialize_mimetically(self, module: nn.Module) -> None:
        initialize_mimetically(module)

    def rebuild(self, config: Mapping[str, Any]) -> nn.Module:
        return rebuild_timm(config)

    def read_weights(self, name: str, **options: Any) -> TrainedWeights:
        return trained_weights(make_timm(name, True, options))

    def read_training(self, extra: Mapping[str, Any]) -> TrainingSettings | None:
        return read_training(extra)

    def transfer(
        self, classifier: Classifier, weights: TrainedWeights, source: str, *, keep_head: bool, query_noise: float
    ) -> LoadReport:
        if classifier.build_spec is None:
            return transfer_to_same(classifier.module, weights, source, keep_head=keep_head)
        return transfer_to_timm(classifier.module, classifier.build_spec, weights, source, keep_head)

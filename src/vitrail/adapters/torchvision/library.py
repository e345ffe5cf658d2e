"""torchvision as a library of networks."""

from collections.abc import Collection, Mapping
from typing import Any, ClassVar, final

from torch import nn
from torchvision import models
from torchvision.models import list_models

from vitrail.adapters.build_spec import ModelSpec
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.fit_weights import TrainedWeights, trained_weights
from vitrail.adapters.library import Library
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.adapters.torchvision.adapter import adapt_torchvision
from vitrail.adapters.torchvision.building import build_torchvision, rebuild_torchvision
from vitrail.adapters.torchvision.creation import create_torchvision, make_trained_torchvision
from vitrail.adapters.torchvision.training_files import read_training
from vitrail.adapters.training_settings import TrainingSettings


@final
class TorchvisionLibrary(Library):
    """Classifiers of torchvision."""

    title: ClassVar[str] = "torchvision"

    def adapt(
        self, module: nn.Module, name: str, class_names: tuple[str, ...], preprocessing: Preprocessing | None
    ) -> Classifier:
        return adapt_torchvision(module, name, class_names, preprocessing)

    def preprocessing(self, module: nn.Module) -> Preprocessing | None:
        return None

    def list_names(self) -> Collection[str]:
        return list_models(module=models)

    def load(self, name: str, **options: Any) -> Classifier:
        """Load a torchvision model, with trained weights unless `pretrained=False`."""
        return create_torchvision(name, **options)

    def build(self, name: str, spec: ModelSpec) -> Classifier:
        return build_torchvision(name, spec)

    def rebuild(self, config: Mapping[str, Any]) -> nn.Module:
        return rebuild_torchvision(config)

    def read_weights(self, name: str, **options: Any) -> TrainedWeights:
        return trained_weights(make_trained_torchvision(name, **options)[0])

    def read_training(self, extra: Mapping[str, Any]) -> TrainingSettings | None:
        return read_training(extra)

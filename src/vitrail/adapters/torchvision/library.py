"""torchvision as a library of networks."""

from collections.abc import Collection
from typing import Any, ClassVar, final

from torchvision import models
from torchvision.models import list_models

from vitrail.adapters.classifier import Classifier
from vitrail.adapters.fit_weights import TrainedWeights, trained_weights
from vitrail.adapters.library import Library
from vitrail.adapters.torchvision.adapter import adapt_torchvision
from vitrail.adapters.torchvision.building import build_torchvision, rebuild_torchvision
from vitrail.adapters.torchvision.creation import create_torchvision, make_trained_torchvision
from vitrail.adapters.torchvision.training_files import read_training


@final
class TorchvisionLibrary(Library):
    """Classifiers of torchvision."""

    title: ClassVar[str] = "torchvision"

    adapt = staticmethod(adapt_torchvision)
    build = staticmethod(build_torchvision)
    rebuild = staticmethod(rebuild_torchvision)
    read_training = staticmethod(read_training)

    def list_names(self) -> Collection[str]:
        return list_models(module=models)

    def load(self, name: str, **options: Any) -> Classifier:
        """Load a torchvision model, with trained weights unless `pretrained=False`."""
        return create_torchvision(name, **options)

    def read_weights(self, name: str, **options: Any) -> TrainedWeights:
        return trained_weights(make_trained_torchvision(name, **options)[0])

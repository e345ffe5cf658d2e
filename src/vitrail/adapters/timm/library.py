"""timm as a library of networks."""

from typing import Any, ClassVar, final

import timm

from vitrail.adapters.classifier import Classifier
from vitrail.adapters.fit_weights import TrainedWeights, trained_weights, transfer_to_same
from vitrail.adapters.library import Library
from vitrail.adapters.timm.adapting import adapt_timm
from vitrail.adapters.timm.building import build_timm, rebuild_timm
from vitrail.adapters.timm.creation import create_timm, make_timm
from vitrail.adapters.timm.initialization import initialize_mimetically
from vitrail.adapters.timm.labels import timm_class_names
from vitrail.adapters.timm.preprocessing import timm_preprocessing
from vitrail.adapters.timm.training_files import read_training
from vitrail.adapters.timm.transfer import transfer_to_timm
from vitrail.models.load_report import LoadReport


@final
class TimmLibrary(Library):
    """Networks of timm, from its own list, a folder or the Hugging Face hub."""

    title: ClassVar[str] = "timm"

    adapt = staticmethod(adapt_timm)
    preprocessing = staticmethod(timm_preprocessing)
    class_names = staticmethod(timm_class_names)
    list_names = staticmethod(timm.list_models)
    load = staticmethod(create_timm)
    build = staticmethod(build_timm)
    initialize_mimetically = staticmethod(initialize_mimetically)
    rebuild = staticmethod(rebuild_timm)
    read_training = staticmethod(read_training)

    def read_weights(self, name: str, **options: Any) -> TrainedWeights:
        return trained_weights(make_timm(name, True, options))

    def transfer(
        self, classifier: Classifier, weights: TrainedWeights, source: str, *, keep_head: bool, query_noise: float
    ) -> LoadReport:
        if classifier.build_spec is None:
            return transfer_to_same(classifier.module, weights, source, keep_head=keep_head)
        return transfer_to_timm(classifier.module, classifier.build_spec, weights, source, keep_head)

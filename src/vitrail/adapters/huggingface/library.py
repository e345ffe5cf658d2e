"""Hugging Face transformers as a library of networks."""

from typing import Any, ClassVar, final

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

    adapt = staticmethod(adapt_huggingface)
    load = staticmethod(create_huggingface)
    build = staticmethod(build_huggingface)
    rebuild = staticmethod(rebuild_huggingface)
    describe = staticmethod(describe_huggingface)
    saved_names = staticmethod(saved_names)

    def preprocessing(self, module: Any) -> Preprocessing:
        return wrapped_preprocessing(module) if hasattr(module, "timm_model") else family_preprocessing(module.config)

    def class_names(self, module: Any) -> tuple[str, ...]:
        return read_class_names(module.config)

    def read_weights(self, name: str, **options: Any) -> TrainedWeights:
        return pretrained_weights(name, options)[0]

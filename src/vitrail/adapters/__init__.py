"""How networks are seen: adapters, preprocessing, loading by name, building for training."""

from vitrail.adapters.adapting import adapt
from vitrail.adapters.base import Trace, ViTAdapter
from vitrail.adapters.building import build
from vitrail.adapters.classifier import Check, Classifier
from vitrail.adapters.devices import default_device
from vitrail.adapters.loading import bundled_models, load
from vitrail.adapters.plain import PlainClassifier
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.adapters.saving import export_huggingface, save
from vitrail.adapters.transfer import initial_state, start

__all__ = [
    "Check",
    "Classifier",
    "PlainClassifier",
    "Preprocessing",
    "Trace",
    "ViTAdapter",
    "adapt",
    "build",
    "bundled_models",
    "default_device",
    "export_huggingface",
    "initial_state",
    "load",
    "save",
    "start",
]

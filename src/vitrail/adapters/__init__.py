"""Adapters of networks: preprocessing, loading by name, building for training, saving."""

from vitrail.adapters.adapting import adapt
from vitrail.adapters.base import ViTAdapter
from vitrail.adapters.building import build
from vitrail.adapters.classifier import Check, Classifier
from vitrail.adapters.devices import default_device
from vitrail.adapters.loading import load
from vitrail.adapters.local_files import bundled_models
from vitrail.adapters.plain import PlainClassifier
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.adapters.recording import Trace
from vitrail.adapters.saving import export_huggingface, save
from vitrail.adapters.transfer import read_trained_weights, transfer_weights

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
    "load",
    "read_trained_weights",
    "save",
    "transfer_weights",
]

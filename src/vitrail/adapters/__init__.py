"""How networks are seen: adapters, preprocessing, and loading by name."""

from vitrail.adapters.base import Trace, ViTAdapter
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.families import adapt
from vitrail.adapters.loading import bundled_models, default_device, load
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.adapters.saving import save

__all__ = ["Classifier", "Preprocessing", "Trace", "ViTAdapter", "adapt", "bundled_models", "default_device", "load", "save"]

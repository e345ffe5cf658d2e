"""Choose the class of a Hugging Face model, and its adapter, by the family and the class that its configuration names."""

from dataclasses import replace
from typing import Any

import transformers
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForImageClassification, PreTrainedModel

from vitrail.adapters.classifier import Classifier
from vitrail.adapters.huggingface.adapter import find_base, find_blocks, find_patch_embedding
from vitrail.adapters.huggingface.families import FAMILIES
from vitrail.adapters.huggingface.family_preprocessing import family_name, family_preprocessing
from vitrail.adapters.huggingface.text import has_text_tower
from vitrail.adapters.libraries import get_library
from vitrail.adapters.logits import configured_output
from vitrail.adapters.pooling import is_feature_head
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.core.errors import UnsupportedModelError

CLASSIFIER = "ForImageClassification"
"""Part of the names of classes with a classifier."""

HEADS = ("classifier", "cls_classifier")
"""Names of classifiers in models."""

HEADLESS = ("Model", "VisionModel", "VisionModelWithProjection")
"""What follows the prefix of a family in the names of its classes without a classifier."""


def adapt_huggingface(module: Any, name: str, class_names: tuple[str, ...], preprocessing: Preprocessing | None) -> Classifier:
    """Adapt a Hugging Face model as a Vision Transformer: a classifier, or a model without one as an embedding.

    The preprocessing defaults to that of the family's published models, at the model's own size (`family_preprocessing`).

    Raises:
        UnsupportedModelError: The model has another architecture, or a head that is no classifier.
    """
    kind, model_type = published_class(module), family_name(getattr(module, "config", None))
    if model_type == "timm_wrapper":
        return _adapt_wrapped(module, name, class_names, preprocessing)
    if not isinstance(module, PreTrainedModel) or model_type not in FAMILIES:
        raise UnsupportedModelError(
            f"expected a Hugging Face model of type {', '.join(FAMILIES)}, got {kind} of type {model_type}, which has no adapter: "
            "patches can be removed one by one from a plain Vision Transformer only"
        )
    if CLASSIFIER not in kind and kind not in headless_classes(model_type):
        raise UnsupportedModelError(
            f"expected a model with a classifier (...{CLASSIFIER}), or without any head ({', '.join(headless_classes(model_type))}), got "
            f"{kind}; load it by AutoModelForImageClassification or AutoModel"
        )
    base = find_base(module)
    if find_patch_embedding(base) is None or not find_blocks(base):
        raise UnsupportedModelError(
            f"expected the embeddings and the layers of a Hugging Face {model_type} inside {kind}, got a "
            f"{type(base).__name__} without them; build the model from a configuration of its own"
        )
    own = preprocessing or family_preprocessing(module.config)
    head = next((head for name in HEADS if (head := getattr(module, name, None)) is not None), None)
    if CLASSIFIER in kind and (head is None or not is_feature_head(head)):
        names = class_names or read_class_names(module.config)
        return FAMILIES[model_type](module, own, names, name, output=configured_output(module))
    no_tokenizer = (
        "it was given without its tokenizer; set text=vitrail.adapters.huggingface.text.HuggingFaceText(model, tokenizer)"
    )
    problem = no_tokenizer if has_text_tower(module) else f"{kind} has no text tower"
    return FAMILIES[model_type](module, own, class_names, name, output="embedding", text_problem=problem)


def choose_class(config: Any) -> Any:
    """Return the class to load a model by: its own without a classifier, if the configuration names one of a known family.

    A model with another head, such as one that reconstructs masked patches, is loaded without it.
    """
    architecture = next(iter(getattr(config, "architectures", None) or ()), "")
    if family_name(config) == "timm_wrapper":
        return transformers.TimmWrapperModel if architecture == "TimmWrapperModel" else AutoModelForImageClassification
    headless = headless_classes(family_name(config))
    if CLASSIFIER in architecture or not architecture or not headless:
        return AutoModelForImageClassification
    if architecture not in headless:
        architecture = headless[0] if config.model_type == family_name(config) else headless[1]
    return getattr(transformers, architecture)


def headless_classes(model_type: str) -> tuple[str, ...]:
    """Return the names of the classes of a family that have no classifier; empty for other types."""
    if model_type not in FAMILIES:
        return ()
    prefix = CONFIG_MAPPING[model_type].__name__.removesuffix("Config")
    return tuple(f"{prefix}{ending}" for ending in HEADLESS)


def published_class(module: nn.Module) -> str:
    """Return the name of the class of transformers that a model has, or derives from."""
    bases = [base for base in type(module).__mro__ if base.__module__.startswith("transformers.")]
    return (bases[0] if bases else type(module)).__name__


def read_class_names(config: Any) -> tuple[str, ...]:
    """Return the names of the classes; empty where they have none but the default LABEL_0, LABEL_1, ..."""
    described = config.id2label or {}
    names = [described.get(index, f"LABEL_{index}") for index in range(config.num_labels)]
    return () if all(name == f"LABEL_{index}" for index, name in enumerate(names)) else tuple(names)


def wrapped_preprocessing(model: Any) -> Preprocessing:
    """Return the preprocessing of a network of timm inside transformers: of the weights that its configuration describes."""
    described = getattr(model.config, "pretrained_cfg", None) or {}
    own = get_library("timm").preprocessing(model.timm_model) or Preprocessing()
    fields: dict[str, Any] = {
        "crop_fraction": described.get("crop_pct"),
        "crop_mode": described.get("crop_mode"),
        "interpolation": described.get("interpolation"),
        "mean": described.get("mean") and tuple(described["mean"]),
        "std": described.get("std") and tuple(described["std"]),
    }
    return replace(own, **{field: value for field, value in fields.items() if value})


def _adapt_wrapped(wrapper: Any, name: str, class_names: tuple[str, ...], preprocessing: Preprocessing | None) -> Classifier:
    """Adapt the network of timm inside a `timm_wrapper`, which passes its logits on unchanged."""
    names = class_names or (read_class_names(wrapper.config) if hasattr(wrapper, "num_labels") else ())
    return get_library("timm").adapt(wrapper.timm_model, name, names, preprocessing or wrapped_preprocessing(wrapper))

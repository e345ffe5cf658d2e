"""Create torchvision's classifiers by name, with the preprocessing and the class names of their weights."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torchvision import models
from torchvision.models import get_model, get_model_weights, list_models

from vitrail.adapters.adapting import view
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.core.errors import InvalidInputError, UnknownNameError
from vitrail.core.registry import unknown_name
from vitrail.models.checkpoints import load_strictly


def create_torchvision(name: str, *, pretrained: bool = True, weights: str = "DEFAULT", **options: Any) -> Classifier:
    """Create a torchvision model by name and adapt it, with the preprocessing and the class names of its weights.

    Args:
        name: A name from `torchvision.models.list_models`.
        pretrained: Whether to load trained weights; else they are random.
        weights: Name of the trained weights, e.g. "IMAGENET1K_SWAG_E2E_V1".
        options: Arguments of the model.

    Raises:
        UnknownNameError: There is no such model or weights, or the weights could not be fetched.
        InvalidInputError: The model does not have these options.
        CheckpointError: The trained weights do not fit a model with these options.
    """
    if not pretrained:
        known = find_weights(name)
        module = make_torchvision(name, options)
        return view(module, f"torchvision:{name}", (), published_preprocessing(known, module))
    module, chosen = make_trained_torchvision(name, weights, **options)
    return view(module, f"torchvision:{name}", tuple(chosen.meta["categories"]), weights_preprocessing(chosen.transforms()))


def make_trained_torchvision(name: str, weights: str = "DEFAULT", **options: Any) -> tuple[nn.Module, Any]:
    """Create a torchvision classifier of any architecture with trained weights; also return their entry in the enumeration.

    Raises:
        UnknownNameError: There is no such model or weights, or they could not be fetched.
        InvalidInputError: The model does not have these options.
        CheckpointError: The weights do not fit a model with these options.
    """
    known = find_weights(name)
    if weights not in known.__members__:
        raise unknown_name(f"weights of torchvision:{name}", weights, list(known.__members__))
    chosen = known[weights]
    # Models without this option take images of any size.
    own_size = {"image_size": chosen.meta["min_size"][0]} if name.startswith("vit_") else {}
    module = make_torchvision(name, {**own_size, **options})
    load_strictly(module, fetch_weights(chosen, name), f"torchvision:{name}")
    return module, chosen


def find_weights(name: str) -> Any:
    """Return the enumeration of a model's trained weights.

    Raises:
        UnknownNameError: There is no such classifier.
    """
    # Detection and segmentation models are not classifiers, and fetch weights of their backbones unasked.
    if name not in list_models(module=models):
        raise unknown_name("torchvision model", name, list_models(module=models, include="vit*"))
    return get_model_weights(name)


def make_torchvision(name: str, options: Mapping[str, Any]) -> nn.Module:
    """Create an untrained torchvision classifier of any architecture by name.

    Raises:
        InvalidInputError: The model does not have these options, or their values are incompatible.
    """
    try:
        return get_model(name, weights=None, **options)
    except (TypeError, ValueError, AssertionError) as error:
        raise InvalidInputError(f"torchvision cannot create {name!r} with {dict(options)}: {error}") from error


def fetch_weights(chosen: Any, name: str) -> dict[str, Tensor]:
    """Fetch trained weights.

    Raises:
        UnknownNameError: They could not be fetched.
    """
    try:
        return dict(chosen.get_state_dict(progress=False, check_hash=True, weights_only=True))
    except Exception as error:  # URL, hash and file errors have no common base.
        raise UnknownNameError(
            f"cannot load the weights of torchvision:{name}: {str(error).rstrip('.')}; check the connection, or ask for random weights by "
            "pretrained=False (--model-arg pretrained=false)"
        ) from error


def weights_preprocessing(transforms: Any) -> Preprocessing:
    """Convert the preprocessing of trained weights."""
    size = transforms.crop_size[0]
    return Preprocessing(
        size=(size, size),
        crop_fraction=size / transforms.resize_size[0],
        interpolation=transforms.interpolation.value,
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )


def published_preprocessing(known: Any, module: nn.Module) -> Preprocessing | None:
    """Return the preprocessing of a model's default weights, at a ViT's own size."""
    if "DEFAULT" not in known.__members__:
        return None
    preprocessing = weights_preprocessing(known["DEFAULT"].transforms())
    size: Any = getattr(module, "image_size", None)
    return preprocessing if size is None else replace(preprocessing, size=(size, size))

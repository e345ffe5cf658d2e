"""Choose the adapter of a network by the library of its class."""

import importlib
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from vitrail.adapters.class_names import check_class_names
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.hooks import original
from vitrail.core.outputs import Output

LIBRARIES = {
    "vitrail.models.hit": "vitrail.adapters.hit:adapt_hit",
    "vitrail.models.intr": "vitrail.adapters.intr:adapt_intr",
    "timm.models": "vitrail.adapters.timm:adapt_timm",
    "torchvision.models": "vitrail.adapters.torchvision:adapt_torchvision",
    "transformers": "vitrail.adapters.huggingface:adapt_huggingface",
}
"""Adapting function by the module that defines a network's class; a string, so that only the network's own library is imported."""


def adapt(
    module: nn.Module,
    *,
    name: str = "",
    class_names: Sequence[str] = (),
    preprocessing: Preprocessing | None = None,
    output: Output | None = None,
) -> Classifier:
    """Adapt a network: to a `ViTAdapter` if it is a Vision Transformer, else to a `Classifier`.

    Args:
        module: A HiT, an INTR, or a Vision Transformer of timm, Hugging Face or torchvision.
        name: Name in results; defaults to the name of the class.
        class_names: One per class, if known.
        preprocessing: Turns a photo into the network's input; defaults to the network's own, if it has one.
        output: Meaning of the logits: "softmax", one class among all, or "sigmoid", each class independently (multi-label); defaults
            to the network's configuration, else "softmax". A single logit always means its sigmoid.

    Raises:
        UnsupportedModelError: vitrail has no adapter for the network; the message tells why.
    """
    if not isinstance(module, nn.Module):
        raise UnsupportedModelError(
            f"expected a torch.nn.Module, got {type(module).__name__}; names and files go to vitrail.load"
        )
    module = original(module)
    library = find_library(module)
    if library is not None:
        file, function = LIBRARIES[library].split(":")
        adapter: Classifier = getattr(importlib.import_module(file), function)(
            module, name or type(module).__name__, tuple(class_names), preprocessing
        )
        if adapter.class_names:
            check_class_names(adapter.class_names, adapter.num_classes)
        return adapter if output is None else replace(adapter, output=output)
    inside = next((name for name, part in module.named_children() if find_library(original(part)) is not None), None)
    raise UnsupportedModelError(
        "expected a HiT, an INTR, or a Vision Transformer of timm, Hugging Face or torchvision, got "
        f"{type(module).__module__}.{type(module).__qualname__}, which has no adapter"
        + (
            ""
            if inside is None
            else f"; it wraps one: adapt network.{inside}, and give what the wrapper does to images as a Preprocessing"
        )
    )


def find_library(module: nn.Module) -> str | None:
    """Return the key of `LIBRARIES` under which a network's class, or one of its bases, is defined, or None."""
    for base in type(module).__mro__:
        for library in LIBRARIES:
            if base.__module__ == library or base.__module__.startswith(library + "."):
                return library
    return None

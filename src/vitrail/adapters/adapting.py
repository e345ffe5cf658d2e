"""Which adapter sees which network."""

import importlib
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from vitrail.adapters.classifier import Classifier
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.hooks import original
from vitrail.core.outputs import Output

# Where a network's class is defined, and what adapts it. Looked up by name, so that no foreign library is imported for
# a network that is not its own.
FAMILIES = {
    "vitrail.models.hit": "vitrail.adapters.hit:adapt_hit",
    "vitrail.models.intr": "vitrail.adapters.intr:adapt_intr",
    "timm.models": "vitrail.adapters.timm:adapt_timm",
    "torchvision.models": "vitrail.adapters.torchvision:adapt_torchvision",
    "transformers": "vitrail.adapters.huggingface:adapt_huggingface",
}


def adapt(
    module: nn.Module,
    *,
    name: str = "",
    class_names: Sequence[str] = (),
    preprocessing: Preprocessing | None = None,
    output: Output | None = None,
) -> Classifier:
    """See a network as a classifier on a grid, for a Vision Transformer a `ViTAdapter`.

    Args:
        module: A HiT, an INTR, or a Vision Transformer of timm, Hugging Face or torchvision.
        name: What to call it in results; the class's name if empty.
        class_names: One per class, where known.
        preprocessing: What turns a photo into its input; the network's own where it tells.
        output: What its logits mean: "softmax", one class among all, or "sigmoid", every class by itself (multi-label); if not given
            what its configuration says, else "softmax". A single logit always means its sigmoid.

    Raises:
        UnsupportedModelError: Says why the network cannot be seen so.
    """
    if not isinstance(module, nn.Module):
        raise UnsupportedModelError(
            f"expected a torch.nn.Module, got {type(module).__name__}; names and files go to vitrail.load"
        )
    module = original(module)
    home = home_of(module)
    if home is not None:
        file, function = FAMILIES[home].split(":")
        adapter: Classifier = getattr(importlib.import_module(file), function)(
            module, name or type(module).__name__, tuple(class_names), preprocessing
        )
        return _checked(adapter if output is None else replace(adapter, output=output))
    inside = next((name for name, part in module.named_children() if home_of(original(part)) is not None), None)
    raise UnsupportedModelError(
        "expected a HiT, an INTR, or a Vision Transformer of timm, Hugging Face or torchvision, got "
        f"{type(module).__module__}.{type(module).__qualname__}, which has no adapter"
        + (
            ""
            if inside is None
            else f"; it wraps one: adapt network.{inside}, and do by a Preprocessing what the wrapper does to images"
        )
    )


def home_of(module: nn.Module) -> str | None:
    """Where a network's class, or one that it derives from, is defined: a key of `FAMILIES`, or None."""
    for base in type(module).__mro__:
        for home in FAMILIES:
            if base.__module__ == home or base.__module__.startswith(home + "."):
                return home
    return None


def _checked(adapter: Classifier) -> Classifier:
    if adapter.class_names and len(adapter.class_names) != adapter.num_classes:
        raise UnsupportedModelError(
            f"expected {adapter.num_classes} class names, one per logit, got {len(adapter.class_names)}"
        )
    return adapter

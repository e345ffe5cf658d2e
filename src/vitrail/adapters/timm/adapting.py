"""Choose the adapter of a timm network by its class."""

from typing import Any

from torch import nn

from vitrail.adapters.classifier import Classifier
from vitrail.adapters.plain import UNPOOLED, PlainClassifier
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.adapters.timm.adapters import TimmAdapter
from vitrail.adapters.timm.added import TimmCaitAdapter, TimmViTAdapter
from vitrail.adapters.timm.biased import TimmBeitAdapter, TimmRelPosAdapter
from vitrail.adapters.timm.labels import returns_embedding
from vitrail.adapters.timm.preprocessing import timm_preprocessing
from vitrail.adapters.timm.rotary import TimmEncoderAdapter, TimmEvaAdapter, TimmNaFlexAdapter
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.hooks import original
from vitrail.core.outputs import Output

FAMILIES: tuple[type[TimmAdapter], ...] = (
    TimmViTAdapter, TimmCaitAdapter, TimmEvaAdapter, TimmNaFlexAdapter, TimmEncoderAdapter, TimmBeitAdapter, TimmRelPosAdapter,
)  # fmt: skip
"""Adapters of timm's families."""

STEPS = ("forward", "forward_features", "forward_head", "pool", "_pool", "_pos_embed", "_forward_embeds", "forward_cls")
"""Methods by which timm's networks compute; a derived class that replaces none computes the same."""


def adapt_timm(module: nn.Module, name: str, class_names: tuple[str, ...], preprocessing: Preprocessing | None) -> Classifier:
    """Adapt a user's timm network: as a Vision Transformer or, if it embeds images, at least as a plain embedding.

    Outputs with class names are classes, also where they look like an embedding.

    Raises:
        UnsupportedModelError: It is no Vision Transformer that vitrail can look into, but may be a plain classifier, or it gives one vector
            per patch.
    """
    output: Output = "embedding" if not class_names and returns_embedding(module) else "softmax"
    preprocessing = preprocessing or timm_preprocessing(module)
    try:
        return _adapt_vit(module, name, class_names, preprocessing, output)
    except UnsupportedModelError as error:
        if output != "embedding" or getattr(module, "global_pool", None) in UNPOOLED:
            raise
        return PlainClassifier(module, preprocessing, (), name, output=output, reason=str(error))


def _adapt_vit(
    module: Any, name: str, class_names: tuple[str, ...], preprocessing: Preprocessing, output: Output
) -> TimmAdapter:
    family = _find_family(type(module))
    if module.global_pool in UNPOOLED:
        raise UnsupportedModelError(
            f"expected one vector per image, got a {type(module).__name__} that gives one per patch (global_pool={module.global_pool!r}); "
            "create it with a pooling, such as global_pool='avg'"
        )
    vit = family(module, preprocessing, class_names, name, output=output)
    vit.refuse_options()
    embedding = original(vit.embedding)
    # A convolutional stem, or overlapping patches, would mix patches before perturbed_logits replaces them.
    if type(embedding) not in vit.embeddings:
        raise UnsupportedModelError(
            f"expected patches that are embedded one by one (timm's {vit.embeddings[0].__name__}), got {type(embedding).__name__}, in "
            "which they overlap"
        )
    _ = vit.embedding_weight  # Refuses overlapping patches.
    for block, attention in zip(vit.blocks, vit.find_attentions(vit.blocks), strict=True):
        if find_unchanged(type(attention), vit.attentions, ("forward",)) is None:
            raise UnsupportedModelError(
                f"expected blocks of one self-attention each, got timm's {type(block).__name__} with {type(attention).__name__}, which has "
                "no adapter"
            )
    return vit


def _find_family(kind: type[nn.Module]) -> type[TimmAdapter]:
    """Return the adapter of a class of networks.

    Raises:
        UnsupportedModelError: There is none, or the class has steps of its own.
    """
    networks = {network: family for family in FAMILIES for network in family.networks}
    base = find_unchanged(kind, tuple(networks), STEPS)
    if base is not None:
        return networks[base]
    known = next((base for base in kind.__mro__ if base in networks), None)
    if known is None:
        raise UnsupportedModelError(
            f"expected a Vision Transformer that vitrail can look into, got timm's {kind.__name__}, which has no adapter"
            f"{_explain_missing_adapter(kind.__name__)}"
        )
    changed = ", ".join(step for step in STEPS if getattr(kind, step, None) is not getattr(known, step, None))
    raise UnsupportedModelError(
        f"expected a {known.__name__} that leaves the steps of timm alone, got {kind.__name__}, which replaces {changed}; adapt a "
        f"{known.__name__} with its weights, or write an adapter"
    )


def find_unchanged(
    kind: type[nn.Module], known: tuple[type[nn.Module], ...], methods: tuple[str, ...]
) -> type[nn.Module] | None:
    """Return the class among `known` that a class is or derives from, if it replaces none of the methods, else None."""
    base = next((base for base in kind.__mro__ if base in known), None)
    if base is None or any(getattr(kind, method, None) is not getattr(base, method, None) for method in methods):
        return None
    return base


def _explain_missing_adapter(kind: str) -> str:
    if any(part in kind for part in ("Swin", "Hiera", "MViT", "Pvt", "MaxxVit", "Davit", "Twins", "SAM")):
        return ": its tokens are merged or attend in windows, so that patches cannot be removed one by one"
    if kind in ("Xcit", "VOLO"):
        return ": its attention is over channels or neighborhoods, not over patches"
    return ""

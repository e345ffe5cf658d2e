"""Guess the library of a weight file from the names in it, to advise how to load it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class _Library:
    """A kind of network.

    Attributes:
        pattern: Occurs in a name of its weights, at the start or after a dot.
        what: The network, in words.
        example: Name of such a network for `vitrail.load`.
    """

    pattern: str
    what: str
    example: str


_TORCHVISION = _Library(r"encoder\.layers\.encoder_layer_\d+\.", "a ViT of torchvision", "torchvision:vit_b_16")

_LIBRARIES = (
    _TORCHVISION,
    _Library(r"(blocks\.\d+\.attn\.qkv|patch_embed\.proj)\.", "a ViT of timm, DeiT, MAE or DINO", "timm:vit_base_patch16_224"),
    _Library(
        r"(vit|deit|beit|dinov2|dinov2_with_registers)\.(embeddings|encoder|layers?)\.", "a ViT of Hugging Face", "hf:FOLDER"
    ),
    _Library(r"layer1\.0\.conv1\.weight", "a ResNet of torchvision or timm", "timm:resnet50"),
    _Library(r"(visual|vision_model|text_model|transformer\.resblocks)\.", "a CLIP", "hf:FOLDER"),
)


def describe_origin(state: Mapping[str, Tensor]) -> str:
    """Say which network's weights these look like, as the end of a sentence; empty if unknown."""
    if all(".lora_" in name or "modules_to_save" in name or name.startswith("base_model.") for name in state):
        return "; they look like a PEFT adapter, without its network: merge it by merge_and_unload, and save that"
    library = _find(state)
    return "" if library is None else f"; they look like those of {library.what}"


def advise_loading(state: Mapping[str, Tensor], path: str) -> str:
    """Say which network's weights these look like, and how to load them."""
    looks = describe_origin(state).removeprefix("; ")
    return f"{looks}{'; ' if looks else ''}{_name_the_network(_find(state), path)}"


def advise_loading_torchvision(path: str) -> str:
    """Say how to load the weights of a torchvision ViT."""
    return _name_the_network(_TORCHVISION, path)


def _find(state: Mapping[str, Tensor]) -> _Library | None:
    return next(
        (entry for entry in _LIBRARIES if any(re.search(rf"(^|\.){entry.pattern}", name) for name in state)),
        None,
    )


def _name_the_network(library: _Library | None, path: str) -> str:
    example = "timm:NAME" if library is None else library.example
    return (
        f"name the network too, as in --model {example} --weights {path}, or vitrail.load({example!r}, weights={path!r}); a network that "
        "you build in Python goes to vitrail.adapt"
    )

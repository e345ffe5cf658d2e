"""Whose weights a file holds that does not say so, by the names in it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class _Library:
    """Weights of somebody's networks.

    Attributes:
        pattern: What their names look like.
        what: The network, in words.
        build: How it is built in Python.
    """

    pattern: re.Pattern[str]
    what: str
    build: str


_TORCHVISION = _Library(
    re.compile(r"encoder\.layers\.encoder_layer_\d+\..+"),
    "a ViT of torchvision",
    "torchvision.models.vit_b_16(num_classes=...)",
)

_LIBRARIES = (
    _TORCHVISION,
    _Library(
        re.compile(r"(blocks\.\d+\.attn\.qkv|patch_embed\.proj)\..+"),
        "a ViT of timm, DeiT, MAE or DINO",
        'timm.create_model("vit_base_patch16_224", num_classes=...)',
    ),
    _Library(
        re.compile(r"(vit|deit|beit|dinov2|dinov2_with_registers)\.(embeddings|encoder|layers?)\..+"),
        "a ViT of Hugging Face",
        "transformers.AutoModelForImageClassification.from_config(config)",
    ),
    _Library(re.compile(r"layer1\.0\.conv1\.weight"), "a ResNet of torchvision or timm", "timm.create_model(...)"),
    _Library(
        re.compile(r"(visual|vision_model|text_model|transformer\.resblocks)\..+"), "a CLIP", "open_clip.create_model(...)"
    ),
)


def advice(state: Mapping[str, Tensor], path: str) -> str:
    """What such weights look like, and how they are loaded in Python."""
    names = [re.sub(r"^(module|_orig_mod|backbone|teacher|student)\.", "", name) for name in state]
    library = next((each for each in _LIBRARIES if any(each.pattern.fullmatch(name) for name in names)), None)
    looks = "" if library is None else f"they look like those of {library.what}; "
    return f"{looks}{_in_python('module = ...' if library is None else f'module = {library.build}', path)}"


def torchvision_advice(path: str) -> str:
    """How the weights of a torchvision ViT are loaded in Python."""
    return _in_python(f"module = {_TORCHVISION.build}", path)


def _in_python(build: str, path: str) -> str:
    read = (
        f"safetensors.torch.load_file({path!r})"
        if path.endswith(".safetensors")
        else f"torch.load({path!r}, weights_only=True)"
    )
    return (
        f"build the network in Python, load its weights, and give it to vitrail.adapt: {build}; "
        f"module.load_state_dict({read}); classifier = vitrail.adapt(module)"
    )

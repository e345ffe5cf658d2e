"""Guess the library of a weight file from the names in it, to advise how to load it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class _Library:
    """A kind of network.

    Attributes:
        pattern: Matches a name of its weights.
        what: The network, in words.
        build: Python code that builds it.
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


def advise_loading(state: Mapping[str, Tensor], path: str) -> str:
    """Say which network's weights these look like, and how to load them in Python."""
    names = [re.sub(r"^(module|_orig_mod|backbone|teacher|student)\.", "", name) for name in state]
    library = next((entry for entry in _LIBRARIES if any(entry.pattern.fullmatch(name) for name in names)), None)
    looks = "" if library is None else f"they look like those of {library.what}; "
    return f"{looks}{_explain_in_python('module = ...' if library is None else f'module = {library.build}', path)}"


def advise_loading_torchvision(path: str) -> str:
    """Say how to load the weights of a torchvision ViT in Python."""
    return _explain_in_python(f"module = {_TORCHVISION.build}", path)


def _explain_in_python(build: str, path: str) -> str:
    read = (
        f"safetensors.torch.load_file({path!r})"
        if path.endswith(".safetensors")
        else f"torch.load({path!r}, weights_only=True)"
    )
    return (
        f"build the network in Python, load its weights, and give it to vitrail.adapt: {build}; "
        f"module.load_state_dict({read}); classifier = vitrail.adapt(module)"
    )

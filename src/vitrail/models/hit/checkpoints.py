"""The published key names of HiT, and fitting weights to another image or patch size."""

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from vitrail.core.errors import CheckpointError
from vitrail.models.checkpoints import MAX_LISTED
from vitrail.models.hit.config import HiTConfig
from vitrail.models.resizing import resize_patch_projection, resize_positions

_TOP = {
    "conv_proj.": "patch_projection.",
    "class_token": "class_token",
    "encoder.pos_embedding": "positions",
    "encoder.ln.": "norm.",
    "heads.head.": "head.",
}
_POOLED = re.compile(r"encoder\.layers\.block_(\d+)\.encoder_layer_(\d+)\.(.+)")
_PLAIN = re.compile(r"encoder\.layers\.encoder_layer_(\d+)\.(.+)")
_LAST_NORM = re.compile(r"encoder\.layers\.encoder_layer_(\d{1,6})\.ln_2\.weight")
_PROJECT = re.compile(r"encoder\.layers\.block_(\d+)\.pool\.linear\.weight")
_INSIDE = {"ln_1": "norm1", "ln_2": "norm2", "self_attention": "attention", "mlp": "mlp"}


def is_published(state: Mapping[str, Tensor]) -> bool:
    """Whether the key names are those of a published HiT file."""
    return any(_POOLED.fullmatch(name) or _PLAIN.fullmatch(name) for name in state)


def may_be_plain_vit(state: Mapping[str, Tensor]) -> bool:
    """Whether weights under the published names may as well be those of torchvision's VisionTransformer.

    Without pooling, a HiT has the same names and shapes. But its last layer's patches go nowhere, so that training leaves their norm
    as it began, with weights of 1 and biases of 0, while it changes the norms before.
    """
    if any(_POOLED.fullmatch(name) or _PROJECT.fullmatch(name) for name in state) or "encoder.pos_embedding" not in state:
        return False
    norms = {int(match[1]): name for name in state if (match := _LAST_NORM.fullmatch(name))}
    if not norms:
        return True
    untouched = {number: bool((state[name] == 1).all()) for number, name in norms.items()}
    bias = state.get(norms[max(norms)].replace(".weight", ".bias"))
    idle = untouched.pop(max(norms)) and bias is not None and not torch.count_nonzero(bias)
    return not (idle and untouched and not any(untouched.values()))


def to_own_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename published keys to ours; names that are unknown stay, so that strict loading lists them."""
    return {_own_name(name): tensor for name, tensor in state.items()}


def _own_name(name: str) -> str:
    if match := _PROJECT.fullmatch(name):
        return f"stages.{match[1]}.project.weight"
    if match := _POOLED.fullmatch(name):
        return f"stages.{match[1]}.layers.{match[2]}.{_inside(match[3])}"
    if match := _PLAIN.fullmatch(name):
        return f"stages.0.layers.{match[1]}.{_inside(match[2])}"
    for published, own in _TOP.items():
        if name.startswith(published):
            return own + name.removeprefix(published)
    return name


def _inside(name: str) -> str:
    first, _, rest = name.partition(".")
    return f"{_INSIDE.get(first, first)}.{rest}"


def published_config(state: Mapping[str, Tensor], num_heads: int | None = None) -> HiTConfig:
    """Read the shape of a published model off its weights.

    Args:
        state: Weights under published names; the image is taken to be square.
        num_heads: The one number that weights do not tell; 64 numbers per head if not given, as in the paper.

    Raises:
        CheckpointError: The weights are not a HiT's.
    """
    own = to_own_names(state)
    try:
        projection, head = own["patch_projection.weight"], own["head.weight"]
        places = [re.fullmatch(r"stages\.(\d+)\.layers\.(\d+)\.norm1\.weight", name) for name in own]
        layers = sorted((int(place[1]), int(place[2])) for place in places if place)
        stages = sorted({stage for stage, _ in layers})
        if stages != list(range(len(stages))) or not stages:
            raise KeyError(f"stages {', '.join(map(str, stages[:MAX_LISTED])) or 'of layers'}")
        depths = tuple(sum(at == stage for at, _ in layers) for stage in stages)
        widths = tuple(len(own[f"stages.{stage}.layers.0.norm1.weight"]) for stage in stages)
        hidden = len(own["stages.0.layers.0.mlp.0.weight"])
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"expected the weights of a HiT (conv_proj, encoder.layers, heads.head), got none for {error}"
        ) from error
    positions = own.get("positions")
    if positions is None:
        raise CheckpointError(
            "these weights have no position embedding, so they do not tell the image size; build HiT(...) and load_published"
        )
    patch, side = projection.shape[-1], math.isqrt(positions.shape[1] - 1)
    return HiTConfig(
        image_size=(side * patch, side * patch),
        patch_size=patch,
        depths=depths,
        widths=widths,
        num_heads=num_heads or max(widths[0] // 64, 1),
        mlp_ratio=hidden / widths[0],
        num_classes=len(head),
        in_channels=projection.shape[1],
    )


def resize_state(state: Mapping[str, Tensor], grid_from: tuple[int, int], config: HiTConfig) -> dict[str, Tensor]:
    """Fit weights to another image or patch size, for fine-tuning: positions bicubically, patch convolution bilinearly.

    Args:
        state: Weights under our names.
        grid_from: The patch grid that they were trained on.
        config: The shape to fit.

    Returns:
        The weights without their head where the number of classes differs (the model keeps its own), else all.
    """
    fitted = dict(state)
    if "positions" in fitted:
        fitted["positions"] = resize_positions(fitted["positions"], grid_from, config.grid_size)
    fitted["patch_projection.weight"] = resize_patch_projection(fitted["patch_projection.weight"], config.patch_size)
    if "head.weight" in fitted and len(fitted["head.weight"]) != config.num_classes:
        del fitted["head.weight"], fitted["head.bias"]
    return fitted

"""Published names of HiT's weights, and resizing of weights to another image or patch size."""

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from vitrail.core.errors import CheckpointError
from vitrail.core.listing import MAX_LISTED
from vitrail.models.hit.config import HiTConfig

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
    """Return whether weights have the names of a published HiT."""
    return any(_POOLED.fullmatch(name) or _PLAIN.fullmatch(name) for name in state)


def may_be_plain_vit(state: Mapping[str, Tensor]) -> bool:
    """Return whether weights under the published names may be those of torchvision's VisionTransformer.

    A HiT without pooling has the same names and shapes. But nothing reads the patches that leave its last layer, so training leaves
    their norm at its initial weights of 1 and biases of 0, while it changes the other norms.
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
    """Rename published weights to vitrail's names; unknown names stay, so that strict loading lists them."""
    return {_rename(name): tensor for name, tensor in state.items()}


def _rename(name: str) -> str:
    if match := _PROJECT.fullmatch(name):
        return f"stages.{match[1]}.project.weight"
    if match := _POOLED.fullmatch(name):
        return f"stages.{match[1]}.layers.{match[2]}.{_rename_inside_layer(match[3])}"
    if match := _PLAIN.fullmatch(name):
        return f"stages.0.layers.{match[1]}.{_rename_inside_layer(match[2])}"
    for published, own in _TOP.items():
        if name.startswith(published):
            return own + name.removeprefix(published)
    return name


def _rename_inside_layer(name: str) -> str:
    first, _, rest = name.partition(".")
    return f"{_INSIDE.get(first, first)}.{rest}"


def published_config(state: Mapping[str, Tensor], num_heads: int | None = None) -> HiTConfig:
    """Infer the configuration of a published model from its weights.

    Args:
        state: Weights under published names; the image is taken to be square.
        num_heads: Number of attention heads, which weights do not tell; defaults to a head width of 64, as in the paper.

    Raises:
        CheckpointError: The weights are not a HiT's.
    """
    own = to_own_names(state)
    try:
        projection, head = own["patch_projection.weight"], own["head.weight"]
        matches = [re.fullmatch(r"stages\.(\d+)\.layers\.(\d+)\.norm1\.weight", name) for name in own]
        layers = sorted((int(match[1]), int(match[2])) for match in matches if match)
        stages = sorted({stage for stage, _ in layers})
        if stages != list(range(len(stages))) or not stages:
            raise KeyError(f"stages {', '.join(map(str, stages[:MAX_LISTED])) or 'of layers'}")
        depths = tuple(sum(number == stage for number, _ in layers) for stage in stages)
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

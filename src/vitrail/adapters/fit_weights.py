"""Trained weights in a network of the same architecture, but of another image size, number of channels or of classes."""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from vitrail.adapters.adapting import home_of
from vitrail.adapters.plain import head_layers, num_outputs
from vitrail.core.errors import CheckpointError
from vitrail.models.checkpoints import load_strictly
from vitrail.models.load_report import LoadReport
from vitrail.models.resizing import fit_channels, resize_patch_projection, resize_positions

POSITIONS = ("pos_embedding", "position_embeddings", "pos_embed")
"""How libraries call a ViT's learned positions, (1, tokens, width)."""

Grid = tuple[int, int]


@dataclass(frozen=True)
class TrainedWeights:
    """Weights to start from.

    Attributes:
        state: By the names of the library that they come from.
        library: Where the network's class is defined, as in `vitrail.adapters.adapting.FAMILIES`; empty where a file does not tell.
        grid: The patch grid that they were trained on, for a ViT.
        num_heads: Attention heads, where known.
    """

    state: Mapping[str, Tensor]
    library: str = ""
    grid: Grid | None = None
    num_heads: int | None = None


def trained_weights(module: nn.Module, without: Collection[str] = ()) -> TrainedWeights:
    """The weights of a trained network, but for those named."""
    state = {name: tensor for name, tensor in module.state_dict().items() if name not in without}
    return TrainedWeights(state, home_of(module) or "", position_grid(module), _num_heads(module))


def fit_state(module: nn.Module, weights: TrainedWeights, source: str, *, keep_head: bool) -> LoadReport:
    """Copy trained weights into a network of the same architecture.

    Positions are resized bicubically, the first convolution is fitted to the channels and the patch size.

    Args:
        module: Takes the weights.
        weights: By the names of the same library; of a square patch grid where they do not tell.
        source: Where they come from, for messages.
        keep_head: Whether to take the head too, where it has as many classes.

    Raises:
        CheckpointError: The weights are not those of such a network. The module is unchanged then.
    """
    own, state = module.state_dict(), weights.state
    heads = head_names(module)
    classes = next((len(state[name]) for name in heads if name in state), 0)
    first = next((name for name, tensor in own.items() if tensor.ndim == 4), None)
    fitted, new = {}, set(heads if classes != num_outputs(module) or not keep_head else ())
    for name, tensor in state.items():
        if name not in own or name in new:
            continue
        tensor, built = tensor.float() if tensor.is_floating_point() else tensor, own[name]
        if tensor.shape[:1] == (classes,) and built.shape == (num_outputs(module), *tensor.shape[1:]) != tensor.shape:
            new.add(name)  # A second head, as networks have that were trained with one in their middle.
            continue
        if name.rpartition(".")[2] in POSITIONS and built.ndim == tensor.ndim == 3:
            tensor = _resized(tensor, built, weights.grid, position_grid(module))
        elif name == first and tensor.ndim == 4:
            square = tensor.shape[2] == tensor.shape[3] and built.shape[2] == built.shape[3]
            tensor = resize_patch_projection(tensor, built.shape[-1]) if square else tensor
            tensor = fit_channels(tensor, built.shape[1])
        fitted[name] = tensor
    left = [name for name in state if name not in own]
    refuse_deeper(left, own, source)
    load_strictly(module, fitted, source, optional=new)
    return LoadReport(tuple(fitted), tuple(name for name in own if name in new), tuple(left))


def head_names(module: nn.Module) -> list[str]:
    """Names of the classifier's weights: for a Hugging Face model all that its base has not, else of the last layers."""
    base = getattr(module, "base_model_prefix", "")
    if base and hasattr(module, base):
        return [name for name in module.state_dict() if not name.startswith(f"{base}.")]
    heads = {id(tensor) for layer in head_layers(module) for tensor in layer.parameters()}
    return [name for name, tensor in module.named_parameters() if id(tensor) in heads]


def position_grid(module: Any) -> Grid | None:
    """The patch grid that a network's learned positions stand for, or None where it is no ViT."""
    if hasattr(getattr(module, "patch_embed", None), "grid_size"):  # timm
        return module.patch_embed.grid_size
    if hasattr(getattr(module, "config", None), "grid_size"):  # a HiT
        return module.config.grid_size
    # torchvision's are square; Hugging Face's tell in their configuration.
    sizes = module if hasattr(module, "conv_proj") else getattr(module, "config", None)
    image, patch = getattr(sizes, "image_size", None), getattr(sizes, "patch_size", None)
    if image is None or patch is None:
        return None
    (height, width), (rows, cols) = (tuple(side) if isinstance(side, list | tuple) else (side, side) for side in (image, patch))
    return height // rows, width // cols


def _num_heads(module: Any) -> int | None:
    """Attention heads of a ViT, where its configuration or its first attention tells."""
    config = getattr(module, "config", None)
    for holder in (config, *module.modules()):
        for key in ("num_attention_heads", "num_heads"):
            if isinstance(getattr(holder, key, None), int):
                return getattr(holder, key)
    return None


def _resized(positions: Tensor, built: Tensor, grid_from: Grid | None, grid_to: Grid | None) -> Tensor:
    if grid_to is None:
        return positions
    prefix = built.shape[1] - grid_to[0] * grid_to[1]
    num_patches = positions.shape[1] - prefix
    side = math.isqrt(max(num_patches, 0))
    grid_from = grid_from or (side, side)
    if prefix < 0 or grid_from[0] * grid_from[1] != num_patches:
        return positions  # Left to the check of shapes, which says what does not fit.
    return resize_positions(positions, grid_from, grid_to, prefix)


def refuse_deeper(left: Collection[str], own: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights of further blocks of the same kind, which would be cut off in silence."""
    kinds = {re.sub(r"\d+", "#", name) for name in own}
    deeper = [name for name in left if re.sub(r"\d+", "#", name) in kinds]
    if deeper:
        raise CheckpointError(f"{source} does not fit this model: it has further blocks, such as {deeper[0]}")

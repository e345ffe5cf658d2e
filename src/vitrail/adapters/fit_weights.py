"""Transfer weights within an architecture, between image sizes and numbers of channels and classes."""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from vitrail.adapters.libraries import find_source
from vitrail.adapters.plain import count_head_outputs, head_layers
from vitrail.core.errors import CheckpointError
from vitrail.models.checkpoints import load_strictly
from vitrail.models.load_report import LoadReport
from vitrail.models.resizing import fit_channels, resize_patch_projection, resize_positions

POSITIONS = ("pos_embedding", "position_embeddings", "pos_embed")
"""Names of a ViT's learned positions, (1, t, d), in the libraries."""

Grid = tuple[int, int]


@dataclass(frozen=True)
class TrainedWeights:
    """Trained weights to transfer.

    Attributes:
        state: Tensors by name, as in their library.
        library: A key of `vitrail.adapters.libraries.ENTRIES`; empty where a file does not tell.
        grid: The patch grid of training, for a ViT.
        num_heads: Number of attention heads, if known.
    """

    state: Mapping[str, Tensor]
    library: str = ""
    grid: Grid | None = None
    num_heads: int | None = None


def trained_weights(module: nn.Module, without: Collection[str] = ()) -> TrainedWeights:
    """Return the weights of a trained network, except those in `without`."""
    state = {name: tensor for name, tensor in module.state_dict().items() if name not in without}
    return TrainedWeights(state, find_source(module) or "", position_grid(module), _num_heads(module))


def transfer_to_same(module: nn.Module, weights: TrainedWeights, source: str, *, keep_head: bool) -> LoadReport:
    """Copy trained weights into a network of the same architecture.

    Positions are resized bicubically; the first convolution is fitted to the channels and the patch size.

    Args:
        module: Receives the weights.
        weights: Of the same library; their patch grid is taken to be square if unknown.
        source: Origin of the weights, for messages.
        keep_head: Whether to copy the head too, if it has as many classes.

    Raises:
        CheckpointError: The weights do not fit the network; the module is unchanged.
    """
    current, state = module.state_dict(), weights.state
    heads = head_names(module)
    classes = next((len(state[name]) for name in heads if name in state), 0)
    first = next((name for name, tensor in current.items() if tensor.ndim == 4), None)
    fitted, new = {}, set(heads if classes != count_head_outputs(module) or not keep_head else ())
    for name, tensor in state.items():
        if name not in current or name in new:
            continue
        tensor, built = tensor.float() if tensor.is_floating_point() else tensor, current[name]
        if tensor.shape[:1] == (classes,) and built.shape == (count_head_outputs(module), *tensor.shape[1:]) != tensor.shape:
            new.add(name)  # An auxiliary head.
            continue
        if name.rpartition(".")[2] in POSITIONS and built.ndim == tensor.ndim == 3:
            tensor = _resize(tensor, built, weights.grid, position_grid(module))
        elif name == first and tensor.ndim == 4:
            square = tensor.shape[2] == tensor.shape[3] and built.shape[2] == built.shape[3]
            tensor = resize_patch_projection(tensor, built.shape[-1]) if square else tensor
            tensor = fit_channels(tensor, built.shape[1])
        fitted[name] = tensor
    unused = [name for name in state if name not in current]
    refuse_extra_blocks(unused, current, source)
    load_strictly(module, fitted, source, optional=new)
    return LoadReport(tuple(fitted), tuple(name for name in current if name in new), tuple(unused))


def head_names(module: nn.Module) -> list[str]:
    """List the weights of the classifier: for a Hugging Face model all outside of its base, else those of the last layers."""
    base = getattr(module, "base_model_prefix", "")
    if base and hasattr(module, base):
        return [name for name in module.state_dict() if not name.startswith(f"{base}.")]
    heads = {id(tensor) for layer in head_layers(module) for tensor in layer.parameters()}
    return [name for name, tensor in module.named_parameters() if id(tensor) in heads]


def position_grid(module: Any) -> Grid | None:
    """Return the patch grid of a network's learned positions, or None if it is not a ViT."""
    if hasattr(getattr(module, "patch_embed", None), "grid_size"):  # timm
        return module.patch_embed.grid_size
    if hasattr(getattr(module, "config", None), "grid_size"):  # a HiT
        return module.config.grid_size
    # torchvision's grids are square; Hugging Face's are in the configuration.
    sizes = module if hasattr(module, "conv_proj") else getattr(module, "config", None)
    image, patch = getattr(sizes, "image_size", None), getattr(sizes, "patch_size", None)
    if image is None or patch is None:
        return None
    (height, width), (rows, cols) = (tuple(side) if isinstance(side, list | tuple) else (side, side) for side in (image, patch))
    return height // rows, width // cols


def _num_heads(module: Any) -> int | None:
    """Return the number of attention heads given by a ViT's configuration or first attention, or None."""
    config = getattr(module, "config", None)
    for holder in (config, *module.modules()):
        for key in ("num_attention_heads", "num_heads"):
            if isinstance(getattr(holder, key, None), int):
                return getattr(holder, key)
    return None


def _resize(positions: Tensor, built: Tensor, grid_from: Grid | None, grid_to: Grid | None) -> Tensor:
    if grid_to is None:
        return positions
    prefix = built.shape[1] - grid_to[0] * grid_to[1]
    num_patches = positions.shape[1] - prefix
    side = math.isqrt(max(num_patches, 0))
    grid_from = grid_from or (side, side)
    if prefix < 0 or grid_from[0] * grid_from[1] != num_patches:
        return positions  # The check of shapes reports the mismatch.
    return resize_positions(positions, grid_from, grid_to, prefix)


def refuse_extra_blocks(unused: Collection[str], current: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights of additional blocks, which would be dropped silently."""
    kinds = {re.sub(r"\d+", "#", name) for name in current}
    extra = [name for name in unused if re.sub(r"\d+", "#", name) in kinds]
    if extra:
        raise CheckpointError(f"{source} does not fit this model: it has further blocks, such as {extra[0]}")

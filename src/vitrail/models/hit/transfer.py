"""Transfer trained weights into a HiT: those of another HiT, or of a plain ViT, whose layers have the same shapes."""

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from vitrail.core.errors import CheckpointError
from vitrail.models.checkpoints import load_strictly
from vitrail.models.hit.config import HiTConfig
from vitrail.models.hit.network import HiT
from vitrail.models.hit.vit_names import RenamedWeights, rename_vit_weights
from vitrail.models.load_report import LoadReport
from vitrail.models.resizing import fit_channels, resize_patch_projection, resize_positions

_LAYER = re.compile(r"stages\.(\d+)\.layers\.(\d+)\.(.+)")

MAY_BE_NEW = ("class_token", "positions", "norm.weight", "norm.bias", "head.weight", "head.bias")
"""Weights that a ViT may lack: one that averages its patches has no class token, or no norm for it."""


def transfer_to_hit(
    model: HiT,
    state: Mapping[str, Tensor],
    *,
    grid: tuple[int, int] | None = None,
    num_heads: int | None = None,
    keep_head: bool = False,
    source: str = "the trained weights",
) -> LoadReport:
    """Copy trained weights into a HiT.

    Layers are copied in order, across all stages. The patch convolution is resized bilinearly, positions bicubically; the class
    token keeps its own position, and other prefix tokens are dropped.

    Args:
        model: Receives the weights.
        state: Weights of a HiT, under vitrail's or the published names, or of a plain ViT of torchvision, timm or Hugging Face.
        grid: Rows and columns of the patch grid of training; square if None.
        num_heads: Number of attention heads in training, if known.
        keep_head: Whether to copy the head too, if it has as many classes.
        source: Origin of the weights, for messages.

    Returns:
        Names of the copied, new and unused weights.

    Raises:
        CheckpointError: The weights have other widths, numbers of layers or heads, or parts that a HiT lacks; the model is unchanged.

    Source: arXiv:2502.17196, fine-tuning; the layers of a HiT are those of a ViT with less attention.
    """
    config = model.config
    if num_heads is not None and num_heads != config.num_heads:
        raise CheckpointError(
            f"expected weights trained with {config.num_heads} heads, got {source} with {num_heads}; set num_heads"
        )
    vit = rename_vit_weights({name: tensor.float() for name, tensor in state.items() if tensor.is_floating_point()})
    fitted, unused = _assign_layers(vit.state, config, source), list(vit.unused)
    if "positions" in fitted:
        positions = _fit_positions(fitted.pop("positions"), vit, grid, config, source)
        if config.position_embedding:
            fitted["positions"] = positions
        else:
            unused.append("positions")
    projection = fitted["patch_projection.weight"]
    if projection.ndim == 4:  # Else `load_strictly` reports the mismatch.
        projection = resize_patch_projection(projection, config.patch_size)
        fitted["patch_projection.weight"] = fit_channels(projection, config.in_channels)
    if not keep_head or ("head.weight" in fitted and len(fitted["head.weight"]) != config.num_classes):
        fitted = {name: tensor for name, tensor in fitted.items() if not name.startswith("head.")}
    optional = {*MAY_BE_NEW, *model.unused_names()}
    load_strictly(model, fitted, source, optional=optional)
    new = tuple(name for name in model.state_dict() if name not in fitted)
    return LoadReport(tuple(fitted), new, tuple(unused))


def _assign_layers(state: dict[str, Tensor], config: HiTConfig, source: str) -> dict[str, Tensor]:
    """Rename the layers, in order, into the stages of the model."""
    matches = {name: _LAYER.fullmatch(name) for name in state}
    layers = sorted({(int(match[1]), int(match[2])) for match in matches.values() if match})
    expected = [(stage, layer) for stage, depth in enumerate(config.depths) for layer in range(depth)]
    if len(layers) != len(expected):
        raise CheckpointError(
            f"expected {len(expected)} layers, as depths={config.depths} has, got {source} with {len(layers)}; choose depths of that sum"
        )
    width = len(state[next(name for name, match in matches.items() if match and match[3] == "norm1.weight")])
    if layers != expected and (set(config.widths) != {width} or any(".project." in name for name in state)):
        raise CheckpointError(
            f"expected layers of widths {config.widths}, got {source}, whose first is {width} wide and which has other stages; where "
            "widths change, stages must be the same"
        )
    moved = dict(zip(layers, expected, strict=True))
    fitted = {}
    for name, tensor in state.items():
        match = matches[name]
        if match:
            stage, layer = moved[int(match[1]), int(match[2])]
            fitted[f"stages.{stage}.layers.{layer}.{match[3]}"] = tensor
        else:
            fitted[name] = tensor
    return fitted


def _fit_positions(
    positions: Tensor, vit: RenamedWeights, grid: tuple[int, int] | None, config: HiTConfig, source: str
) -> Tensor:
    """Return the positions of the class token and of the patches, on the model's grid."""
    positions = positions.unsqueeze(0) if positions.ndim == 2 else positions
    count = positions.shape[1]
    # Some networks add positions to the patches only.
    guesses = [grid] if grid else [_find_square_grid(count - prefix) for prefix in dict.fromkeys((vit.num_prefix_tokens, 0, 1))]
    grids = [guess for guess in guesses if guess and 0 <= count - guess[0] * guess[1] <= max(vit.num_prefix_tokens, 1)]
    if not grids:
        raise CheckpointError(
            f"cannot tell the patch grid of {source} from {count} positions; expected those of a square grid"
            + (f", or of {grid[0]}x{grid[1]} patches" if grid else "")
        )
    rows, cols = grids[0]
    prefix = count - rows * cols
    first = positions[:, :1] if prefix else positions.new_zeros(1, 1, positions.shape[2])
    return resize_positions(torch.cat([first, positions[:, prefix:]], 1), (rows, cols), config.grid_size)


def _find_square_grid(count: int) -> tuple[int, int] | None:
    side = math.isqrt(max(count, 0))
    return (side, side) if side and side * side == count else None

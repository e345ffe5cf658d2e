"""Published names of INTR's weights, which are DETR's, and the configuration that they imply."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vitrail.core.errors import CheckpointError, InvalidInputError
from vitrail.models.intr.backbone import rename_resnet_weights
from vitrail.models.intr.config import INTRConfig

_BODY = "backbone.0.body."
_PREFIXES = {
    "query_embed.weight": "queries",
    "presence_vector.": "presence.",
    "input_proj.": "projection.",
    "backbone.1.row_embed.weight": "positions.rows",
    "backbone.1.col_embed.weight": "positions.columns",
    "transformer.encoder.norm.": "encoder_norm.",
    "transformer.decoder.norm.": "decoder_norm.",
}
_LAYER = re.compile(r"transformer\.(encoder|decoder)\.layers\.(\d+)\.(.+)")
_ATTENTIONS = {"self_attn": "attention", "multihead_attn": "cross_attention"}
_MLP = {"linear1": "mlp.0", "linear2": "mlp.3"}

DETECTION = ("class_embed.", "bbox_embed.")
"""Prefixes of DETR's weights that predict boxes."""

BLOCKS = {(2, 2, 2, 2): "resnet18", (3, 4, 6, 3): "resnet50", (3, 4, 23, 3): "resnet101"}
"""Backbone by its numbers of blocks; (3, 4, 6, 3) is a resnet34 where blocks have two convolutions."""


def is_published(state: Mapping[str, Tensor]) -> bool:
    """Return whether weights have the names of a published INTR or a DETR."""
    return any(_LAYER.fullmatch(name) for name in state) and "query_embed.weight" in state


def is_detr(state: Mapping[str, Tensor]) -> bool:
    """Return whether published weights are a DETR's, which has no presence vector."""
    return is_published(state) and "presence_vector.weight" not in state


def to_own_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename published weights to vitrail's names and unpack projections; unknown names stay, so that strict loading lists them."""
    own = {f"backbone.network.{name}": tensor for name, tensor in rename_resnet_weights(_select_prefix(state, _BODY)).items()}
    for name, tensor in state.items():
        if not name.startswith(_BODY):
            own |= _rename(name, tensor)
    return own


def _rename(name: str, tensor: Tensor) -> dict[str, Tensor]:
    match = _LAYER.fullmatch(name)
    if match is None:
        prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None)
        return {name if prefix is None else _PREFIXES[prefix] + name.removeprefix(prefix): tensor}
    part, _, rest = match[3].partition(".")
    layer = f"{match[1]}.{match[2]}"
    if part in _ATTENTIONS:
        inside = f"{layer}.{_ATTENTIONS[part]}"
        if rest in ("in_proj_weight", "in_proj_bias"):
            if not tensor.ndim or len(tensor) % 3:
                raise CheckpointError(f"expected queries, keys and values in {name}, got the shape {tuple(tensor.shape)}")
            parts = zip(("query", "key", "value"), tensor.chunk(3), strict=True)
            return {f"{inside}.{part}.{rest.removeprefix('in_proj_')}": chunk for part, chunk in parts}
        return {f"{inside}.{rest.replace('out_proj', 'output')}": tensor}
    if part in ("norm1", "norm2", "norm3"):
        return {f"{layer}.norms.{int(part[4:]) - 1}.{rest}": tensor}
    return {f"{layer}.{_MLP.get(part, part)}.{rest}": tensor}


def published_settings(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the training arguments stored in a published file, if any."""
    arguments = extra.get("args")
    return dict(arguments) if isinstance(arguments, Mapping) else dict(getattr(arguments, "__dict__", {}))


def published_config(state: Mapping[str, Tensor], settings: Mapping[str, Any]) -> INTRConfig:
    """Infer the configuration of a published model from its weights.

    Args:
        state: Weights under published names.
        settings: Training arguments in the file, which give heads, dilation and dropout; default: a head width of 32, no dilation,
            a dropout of 0.1, as published.

    Raises:
        CheckpointError: The weights are not an INTR's.
    """
    try:
        width, mlp_width = len(state["input_proj.weight"]), len(state["transformer.decoder.layers.0.linear1.weight"])
        depths = [_count_layers(state, rf"transformer\.{part}\.layers\.(\d+)\..*") for part in ("encoder", "decoder")]
        return INTRConfig(
            backbone=_find_backbone(state),
            backbone_options={"dilation": True} if settings.get("dilation") else {},
            num_classes=len(state["query_embed.weight"]),
            width=width,
            num_heads=int(settings.get("nheads") or max(width // 32, 1)),
            mlp_width=mlp_width,
            encoder_depth=depths[0],
            decoder_depth=depths[1],
            dropout=float(settings.get("dropout", 0.1)),
            pre_norm="transformer.encoder.norm.weight" in state,
            positions="learned" if "backbone.1.row_embed.weight" in state else "sine",
        )
    except (KeyError, ValueError, TypeError, OverflowError, InvalidInputError) as error:
        raise CheckpointError(f"these weights or settings are not those of a published INTR: {error}") from error


def _find_backbone(state: Mapping[str, Tensor]) -> str:
    body = _select_prefix(state, _BODY)
    blocks = tuple(_count_layers(body, rf"layer{i}\.(\d+)\..*") for i in (1, 2, 3, 4))
    if blocks not in BLOCKS:
        raise CheckpointError(f"expected the weights of a ResNet of 18, 34, 50 or 101 layers as backbone, got blocks {blocks}")
    name = BLOCKS[blocks]
    return "resnet34" if name == "resnet50" and "layer1.0.conv3.weight" not in body else name


def _count_layers(state: Mapping[str, Tensor], pattern: str) -> int:
    numbers = {int(match[1]) for name in state if (match := re.fullmatch(pattern, name))}
    if numbers != set(range(len(numbers))):
        raise CheckpointError(f"expected layers from 0 on, each once, got {', '.join(map(str, sorted(numbers)[:8]))}")
    return len(numbers)


def _select_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}

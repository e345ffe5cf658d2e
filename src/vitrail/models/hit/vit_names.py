"""Rename the weights of plain ViTs of torchvision, timm and Hugging Face to a HiT's names."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vitrail.core.errors import CheckpointError
from vitrail.models.hit.checkpoints import is_published, to_own_names

_BLOCK = re.compile(r"(?:blocks|layers|encoder\.layer)\.(\d+)\.(.+)")

_TOP = {
    "patch_embed.proj": "patch_projection",
    "embeddings.patch_embeddings.projection": "patch_projection",
    "cls_token": "class_token",
    "embeddings.cls_token": "class_token",
    "pos_embed": "positions",
    "embeddings.position_embeddings": "positions",
    "norm": "norm",
    "layernorm": "norm",
    "head": "head",
    "classifier": "head",
    "cls_classifier": "head",
}
_INSIDE = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attn.qkv": "attention.in_proj",
    "attn.proj": "attention.out_proj",
    "mlp.fc1": "mlp.0",
    "mlp.fc2": "mlp.3",
    "ls1": "scale1",
    "ls2": "scale2",
    # Hugging Face, in versions old and new.
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.q_proj": "query",
    "attention.k_proj": "key",
    "attention.v_proj": "value",
    "attention.attention.query": "query",
    "attention.attention.key": "key",
    "attention.attention.value": "value",
    "attention.o_proj": "attention.out_proj",
    "attention.output.dense": "attention.out_proj",
    "intermediate.dense": "mlp.0",
    "output.dense": "mlp.3",
    # torchvision, old.
    "mlp.linear_1": "mlp.0",
    "mlp.linear_2": "mlp.3",
}
_UNUSED = re.compile(
    r"(embeddings\.)?(reg_token|dist_token|distillation_token|mask_token)|head_dist\..*|distillation_classifier\..*|fc_norm\..*"
    r"|(heads\.)?pre_logits\..*|pooler\..*"
)
"""Weights that a HiT lacks and does not need: other prefix tokens, other heads, and the norm of a mean over patches."""


@dataclass(frozen=True)
class RenamedWeights:
    """A ViT's weights under a HiT's names, in one stage.

    Attributes:
        state: The weights; positions are not resized.
        unused: Names of weights that a HiT lacks.
        num_prefix_tokens: Number of tokens before the patches.
    """

    state: dict[str, Tensor]
    unused: tuple[str, ...]
    num_prefix_tokens: int


def rename_vit_weights(state: Mapping[str, Tensor]) -> RenamedWeights:
    """Recognize the library of weights, and rename them to a HiT's names.

    Layer scales are folded into the projections before them, which is exact.

    Raises:
        CheckpointError: The weights are not a ViT's, or have parts that a HiT lacks and that affect the output.
    """
    if "stages.0.layers.0.norm1.weight" in state:
        return RenamedWeights(dict(state), (), 1)
    if is_published(state):  # A HiT without pooling and torchvision's ViT have the same names.
        unused = tuple(name for name in state if _UNUSED.fullmatch(name))
        named = to_own_names({name: tensor for name, tensor in state.items() if name not in unused})
        return RenamedWeights({_update_mlp_name(name): tensor for name, tensor in named.items()}, unused, 1)
    own, unused_names, unknown, num_prefix = {}, [], [], 0
    for name, tensor in state.items():
        bare = re.sub(r"^(vit|deit)\.", "", name)
        target = _rename(bare)
        if target is not None:
            own[target] = tensor
        elif _UNUSED.fullmatch(bare):
            unused_names.append(name)
            if bare.endswith(("reg_token", "dist_token", "distillation_token")):
                num_prefix += tensor.shape[1]
        else:
            unknown.append(name)
    if "patch_projection.weight" not in own or unknown:
        raise CheckpointError(
            "expected the weights of a HiT, or of a plain ViT of torchvision, timm or Hugging Face, got "
            f"{', '.join((unknown or list(state))[:4])}, for which a HiT has no place"
        )
    return RenamedWeights(_fold_layer_scales(_pack_projections(own)), tuple(unused_names), num_prefix + ("class_token" in own))


def _rename(name: str) -> str | None:
    block = _BLOCK.fullmatch(name)
    part, names = (block[2], _INSIDE) if block else (name, _TOP)
    layer = f"stages.0.layers.{block[1]}." if block else ""
    if part in names:
        return layer + names[part]
    if block and part in ("gamma_1", "gamma_2"):
        return f"{layer}scale{part[-1]}"
    module, _, last = part.rpartition(".")
    if module not in names or last not in ("weight", "bias", "gamma"):
        return None
    if names[module] == "attention.in_proj":
        return f"{layer}attention.in_proj_{last}"
    return layer + (names[module] if last == "gamma" else f"{names[module]}.{last}")


def _update_mlp_name(name: str) -> str:
    return name.replace(".mlp.linear_1.", ".mlp.0.").replace(".mlp.linear_2.", ".mlp.3.")


def _pack_projections(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Pack queries, keys and values into one matrix; add biases of zero where there are none."""
    packed = {name: tensor for name, tensor in state.items() if not re.search(r"\.(query|key|value)\.", name)}
    for name in state:
        layer, separator, kind = name.partition("query.")
        if separator:
            parts = [state.get(f"{layer}{part}.{kind}") for part in ("query", "key", "value")]
            if any(part is None for part in parts):
                raise CheckpointError(f"expected query, key and value of {layer}, found some of them only")
            packed[f"{layer}attention.in_proj_{kind}"] = torch.cat([part for part in parts if part is not None])
    for name, tensor in list(packed.items()):
        if name.endswith("in_proj_weight"):
            packed.setdefault(name.replace("_weight", "_bias"), tensor.new_zeros(len(tensor)))
    return packed


def _fold_layer_scales(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Multiply layer scales into the projections before them."""
    folded = {name: tensor for name, tensor in state.items() if not re.search(r"\.scale[12]$", name)}
    for name, scale in state.items():
        layer, separator, number = name.rpartition(".scale")
        if separator:
            projection = f"{layer}.attention.out_proj" if number == "1" else f"{layer}.mlp.3"
            folded[f"{projection}.weight"] = state[f"{projection}.weight"] * scale[:, None]
            folded[f"{projection}.bias"] = state[f"{projection}.bias"] * scale
    return folded

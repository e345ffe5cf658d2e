"""Insertion and deletion curves of a HiT from one pass over the distinct states of its cells.

Patches do not interact before they are pooled, so a curve needs only the distinct *states* of every cell. Without pooling a cell has
two: the image's patch and the baseline's. A cell pooled over 4 (16) patches has at most 5 (17) along one curve. Every state is
processed once; every step is one query of the class token, with a mask that shows it one state per cell.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vitrail.core.types import Keep, Patches
from vitrail.models.hit.layers import ClassAttention, ClassTokens, HiTLayer, HiTStage

STEPS_PER_BLOCK = 96
"""Steps per attention call: a trade-off between the number of states per call and the number of calls."""


class States(NamedTuple):
    """The distinct states of all cells of a batch.

    Attributes:
        features: One row per state, (u, d). Images share states, e.g. those of a common baseline.
        chosen: Index of the state of every image, step and cell, (b, s, n).
    """

    features: Tensor
    chosen: Tensor


def perturbed_class_tokens(
    stages: Sequence[HiTStage],
    grid_size: tuple[int, int],
    class_token: Float[Tensor, "1 1 d"],
    patches: Patches,
    replacements: Float[Tensor, "b_or_1 n d"],
    keep: Keep,
) -> Float[Tensor, "b s last"]:
    """Return the final class token (before the norm) of every image at every step.

    Args:
        stages: The network's stages.
        grid_size: Rows and columns of patches before any pooling.
        class_token: With its position.
        patches: The image's patches, with their positions.
        replacements: The baseline's patches, with their positions; a batch of one serves all images.
        keep: True = the patch shows the image, False = the baseline.
    """
    class_tokens = class_token.expand(*keep.shape[:2], -1)
    states = _make_patch_states(patches, replacements, keep)
    rows, cols = grid_size
    last = stages[-1].layers[-1]
    for stage in stages:
        if stage.pooled:
            states = _pool(states, rows, cols, stage)
            class_tokens, rows, cols = stage.project(class_tokens), rows // 2, cols // 2
        selections = [_Selection.split(chosen, len(states.features)) for chosen in states.chosen]
        for layer in stage.layers:
            class_tokens = class_tokens + _gather(layer, class_tokens, states.features, selections)  # type: ignore[arg-type]
            if layer is not last:
                advanced = layer.advance(states.features.unsqueeze(0)).squeeze(0)  # type: ignore[operator]
                states = states._replace(features=advanced)
    return class_tokens


class _Selection(NamedTuple):
    """Consecutive steps of one image: the states that they use, and which step uses which."""

    steps: slice
    used: Tensor  # (u,) rows of the features
    visible: Tensor  # (steps, u) boolean

    @classmethod
    def split(cls, chosen: Int[Tensor, "s n"], num_states: int) -> "list[_Selection]":
        """Split the steps of an image into blocks; neighbors on a curve use nearly the same states."""
        selections = []
        for start in range(0, len(chosen), STEPS_PER_BLOCK):
            block = chosen[start : start + STEPS_PER_BLOCK]
            present = torch.zeros(num_states, dtype=torch.bool, device=chosen.device)
            present[block.flatten()] = True
            local = present.cumsum(0)[block] - 1
            used = present.nonzero().squeeze(1)
            visible = torch.zeros(len(block), len(used), dtype=torch.bool, device=chosen.device).scatter_(1, local, True)
            selections.append(cls(slice(start, start + len(block)), used, visible))
        return selections


def _gather(
    layer: HiTLayer,
    class_tokens: ClassTokens,
    features: Float[Tensor, "u d"],
    selections: Sequence[Sequence[_Selection]],
) -> ClassTokens:
    """Compute one layer's update of the class tokens of all steps, with keys and values, since there are many queries."""
    attention: ClassAttention = layer.attention
    width = features.shape[1]
    projected = nn.functional.linear(layer.norm1(features), attention.in_proj_weight[width:], attention.in_proj_bias[width:])
    query = attention.query(layer.norm1(class_tokens)).transpose(1, 2)
    heads = torch.empty_like(query)
    for image, blocks in enumerate(selections):
        for steps, used, visible in blocks:
            halves = projected[used].chunk(2, dim=1)
            key, value = (half.unflatten(1, (attention.num_heads, -1)).transpose(0, 1).unsqueeze(0) for half in halves)
            heads[image, :, steps] = nn.functional.scaled_dot_product_attention(
                query[image : image + 1, :, steps], key, value, attn_mask=visible, scale=1.0
            ).squeeze(0)
    return attention.out_proj(heads.transpose(1, 2).flatten(2))


def _make_patch_states(patches: Patches, replacements: Float[Tensor, "b_or_1 n d"], keep: Keep) -> States:
    num_images, num_patches, _ = patches.shape
    indices = torch.arange(num_images * num_patches, device=keep.device).view(num_images, 1, num_patches)
    baseline_indices = indices[: len(replacements)] + num_images * num_patches
    features = torch.cat([patches.flatten(0, 1), replacements.flatten(0, 1)])
    return _drop_unused(States(features, torch.where(keep, indices, baseline_indices)))


def _drop_unused(states: States) -> States:
    present = torch.zeros(len(states.features), dtype=torch.bool, device=states.features.device)
    present[states.chosen.flatten()] = True
    if bool(present.all()):
        return states
    return States(states.features[present], (present.cumsum(0) - 1)[states.chosen])


def _pool(states: States, rows: int, cols: int, stage: HiTStage) -> States:
    """Pool states into the next stage: the state of a pooled cell is the tuple of its four children's states."""
    num_images, num_steps, _ = states.chosen.shape
    children = states.chosen.view(num_images, num_steps, rows // 2, 2, cols // 2, 2).permute(0, 2, 4, 1, 3, 5)
    children = children.reshape(-1, num_steps, 4)
    # Cells change rarely along a curve: search for equal states among the changes only.
    changed = torch.ones(children.shape[:2], dtype=torch.bool, device=children.device)
    changed[:, 1:] = (children[:, 1:] != children[:, :-1]).any(-1)
    distinct, which = _find_unique_rows(children[changed], len(states.features))
    chosen = which[changed.flatten().cumsum(0) - 1].view(num_images, -1, num_steps).mT
    features = states.features[distinct].mean(1)
    return States(stage.project(features), chosen)


def _find_unique_rows(quads: Int[Tensor, "m 4"], num_states: int) -> tuple[Int[Tensor, "u 4"], Int[Tensor, " m"]]:
    """Return the distinct rows, and the index of every row among them; pairs are coded twice, to stay within 64 bits."""
    pairs, pair_of = torch.unique(quads[:, ::2] * num_states + quads[:, 1::2], return_inverse=True)
    codes, which = torch.unique(pair_of[:, 0] * len(pairs) + pair_of[:, 1], return_inverse=True)
    chosen = pairs[torch.stack([codes // len(pairs), codes % len(pairs)], 1)]
    return torch.stack([chosen // num_states, chosen % num_states], 2).flatten(1), which

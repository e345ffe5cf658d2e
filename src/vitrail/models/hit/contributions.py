"""Exact contributions of patches and layers to a logit of HiT: the model's own arithmetic, split without remainder.

The final class token is `z = z_0 + sum_l update_l`, and logit c is `g_c · z` plus a constant (`vitrail.models.hit.linear_logits`). Going
back through the layers, `g_c` is carried through the projections of the pooled stages, and patch p contributes
`sum_h weights_h[p] (g_c W_out)_h · value_h[p]` in layer l: a scalar product, without gradients.

Source: arXiv:2502.17196, section 3.

Differs: exact for both variants and with or without positions; the published maps are not always (their no-pool map omits
the class token's position, their pooled layer view divides constants by the number of patches).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vitrail.core.types import Logits
from vitrail.models.hit.layer_split import collect_updates, split_by_layer
from vitrail.models.hit.layers import ClassAttention, Gathered, HiTStage
from vitrail.models.hit.linear_logits import NormMean, TargetChoice, linearize

__all__ = ["Contributions", "NormMean", "decompose", "spread_attention"]


@dataclass(frozen=True)
class Contributions:
    """Logits split into patches, and into layers.

    For every image and chosen class, the logit is the sum of `patches` plus `patch_bias`, and also the sum of `layers` plus
    `layer_bias`.

    Attributes:
        logits: All logits.
        targets: The chosen classes.
        patches: Contribution of each patch.
        patch_bias: The remainder: the initial class token and all biases.
        layers: Contribution of each layer's update of the class token.
        layer_bias: The remainder: the initial class token, and the biases of the final norm and the head.
        layer_patches: Contribution of each patch in each layer, if requested; summed over the layers, `patches`.
    """

    logits: Logits
    targets: Int[Tensor, "b targets"]
    patches: Float[Tensor, "b targets rows cols"]
    patch_bias: Float[Tensor, "b targets"]
    layers: Float[Tensor, "b targets l"]
    layer_bias: Float[Tensor, "b targets"]
    layer_patches: Float[Tensor, "b targets l rows cols"] | None = None

    def target_logits(self) -> Float[Tensor, "b targets"]:
        """Return the logits of the chosen classes."""
        return self.logits.gather(1, self.targets)

    def completeness_error(self) -> Float[Tensor, ""]:
        """Return the largest difference between a logit and the sum of its parts, relative to the largest logit."""
        logits = self.target_logits()
        by_patch = self.patches.sum((-2, -1)) + self.patch_bias - logits
        by_layer = self.layers.sum(-1) + self.layer_bias - logits
        return torch.maximum(by_patch.abs().max(), by_layer.abs().max()) / self.logits.abs().max().clamp_min(1e-12)


def decompose(
    observed: Sequence[tuple[HiTStage, ClassAttention, Gathered]],
    initial: Float[Tensor, "b first"],
    final: Float[Tensor, "b last"],
    norm: nn.LayerNorm,
    head: nn.Linear,
    grid_size: tuple[int, int],
    targets: TargetChoice,
    norm_mean: NormMean,
    by_layer: bool = False,
) -> Contributions:
    """Split the logits of a forward pass.

    Args:
        observed: Per layer, in order: its stage, its attention, and the result of the attention.
        initial: The class token before the first layer.
        final: The class token after the last.
        norm: The final norm.
        head: The final linear map.
        grid_size: Rows and columns of patches before any pooling.
        targets: Classes to explain, as `HiT.contributions` takes them.
        norm_mean: How to book the mean that the final norm subtracts.
        by_layer: Whether to return the patches' contributions per layer as well.
    """
    linear = linearize(final, norm, head, targets, norm_mean)
    direction, classes = linear.direction, linear.targets
    updates = collect_updates([(stage, gathered) for stage, _, gathered in observed], initial)
    layers, layer_bias = split_by_layer(linear, updates)
    rows, cols = grid_size[0] // 2 ** (observed[-1][0].index), grid_size[1] // 2 ** (observed[-1][0].index)
    patches = direction.new_zeros(*classes.shape, rows, cols)
    patch_bias = layer_bias
    later: HiTStage | None = None
    shares = list[Tensor]()
    for stage, attention, gathered in reversed(observed):
        if later is not None and later is not stage:
            patches = spread_cells(patches, 2)
            if isinstance(later.project, nn.Linear):
                direction = direction @ later.project.weight
        share = _split_attention(attention, gathered, direction).unflatten(-1, patches.shape[-2:])
        patches = patches + share
        if by_layer:
            shares.append(spread_cells(share, 2**stage.index))
        patch_bias = patch_bias + direction @ attention.out_proj.bias
        later = stage
    layer_patches = torch.stack(shares[::-1], 2) if by_layer else None
    return Contributions(linear.logits, classes, patches, patch_bias, layers, layer_bias, layer_patches)


def spread_attention(weights: Sequence[Float[Tensor, "b h _"]], grid_size: tuple[int, int]) -> Float[Tensor, "b rows cols"]:
    """Return the rollout view: attention of the class token, mean over heads, sum over layers, on the grid of patches.

    Args:
        weights: Per layer, the class token's attention over that stage's cells.
        grid_size: Rows and columns of patches before any pooling.
    """
    rows, cols = grid_size
    maps = []
    for layer in weights:
        factor = math.isqrt(rows * cols // layer.shape[2])
        maps.append(spread_cells(layer.mean(1).unflatten(1, (rows // factor, cols // factor)), factor))
    return torch.stack(maps).sum(0)


def spread_cells(cells: Float[Tensor, "*b rows cols"], factor: int) -> Float[Tensor, "*b finer_rows finer_cols"]:
    """Spread every pooled cell evenly over its `factor` x `factor` block of patches, keeping sums."""
    return cells.repeat_interleave(factor, -2).repeat_interleave(factor, -1) / factor**2


def _split_attention(
    attention: ClassAttention, gathered: Gathered, direction: Float[Tensor, "b targets d"]
) -> Float[Tensor, "b targets n"]:
    """Return the contribution of every patch along `direction` in one layer."""
    weights = gathered.weights[:, 0]
    value_weight, value_bias = attention.value_projection()
    probe = (direction @ attention.out_proj.weight).unflatten(-1, value_bias.shape)
    if probe.shape[1] * attention.num_heads < direction.shape[2]:
        # Few classes: project the directions back to the patches' space, without computing values.
        projected = torch.einsum("bche,hed->bchd", probe, value_weight).flatten(1, 2) @ gathered.patches.mT
        shares = projected.unflatten(1, probe.shape[1:3]) + torch.einsum("bche,he->bch", probe, value_bias).unsqueeze(-1)
        return torch.einsum("bchn,bhn->bcn", shares, weights)
    values = torch.einsum("bnd,hed->bnhe", gathered.patches, value_weight) + value_bias
    weighted = values * weights.mT.unsqueeze(-1)
    return probe.flatten(2) @ weighted.flatten(2).mT

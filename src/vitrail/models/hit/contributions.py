"""Which patch, and which layer, gave how much to a logit: the model's own arithmetic, split without remainder.

The final class token is `z = z_0 + sum_l update_l`. The final norm is linear once its mean and variance are fixed at this
image's values, and the head is linear, so logit c is `g_c · z` plus a constant, for one direction g_c per image. Going back
through the layers, `g_c` is carried through the pooled stages' projections, and what patch p gives in layer l is
`sum_h weights_h[p] (g_c W_out)_h · value_h[p]`: a scalar product, no gradient.

The mean that the final norm subtracts can be booked in two ways, both complete. "shared", as published: it is a constant like
the biases. "own": every part loses its own mean, so a part that is the same number in all dimensions, which the norm wipes
out, gets no credit.

Source: arXiv:2502.17196, section 3.

Differs: exact for both variants and with or without positions; the published maps are not always (their no-pool map forgets
the class token's position, their pooled layer view divides constants by the number of patches).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vitrail.core.errors import InvalidInputError
from vitrail.core.types import Logits
from vitrail.models.hit.layers import ClassAttention, Gathered, HiTStage

AskedTargets = int | Int[Tensor, "..."] | Callable[[Logits], Int[Tensor, "..."]] | None

NormMean = Literal["shared", "own"]


@dataclass(frozen=True)
class Contributions:
    """Logits, split into patches and into layers.

    For every image and asked class, `patches` summed over the grid plus `patch_bias` is the logit, and so is `layers` summed
    plus `layer_bias`.

    Attributes:
        logits: All logits.
        targets: The asked classes.
        patches: What each patch gave to each asked logit.
        patch_bias: What no patch gave: the initial class token and all biases.
        layers: What each layer's update of the class token gave.
        layer_bias: What no layer gave: the initial class token, and the biases of the final norm and the head.
        layer_patches: What each patch gave through each layer, where that was asked for; summed over the layers, `patches`.
    """

    logits: Logits
    targets: Int[Tensor, "b asked"]
    patches: Float[Tensor, "b asked rows cols"]
    patch_bias: Float[Tensor, "b asked"]
    layers: Float[Tensor, "b asked l"]
    layer_bias: Float[Tensor, "b asked"]
    layer_patches: Float[Tensor, "b asked l rows cols"] | None = None

    def target_logits(self) -> Float[Tensor, "b asked"]:
        """The logits of the asked classes."""
        return self.logits.gather(1, self.targets)

    def completeness_error(self) -> Float[Tensor, ""]:
        """Largest difference between a logit and the sum of its parts, over the largest logit in magnitude."""
        logits = self.target_logits()
        by_patch = self.patches.sum((-2, -1)) + self.patch_bias - logits
        by_layer = self.layers.sum(-1) + self.layer_bias - logits
        return torch.maximum(by_patch.abs().max(), by_layer.abs().max()) / self.logits.abs().max().clamp_min(1e-12)


@dataclass(frozen=True)
class LayerSplit:
    """Logits, split into layers, and the logits that are left without some of them: all from one forward pass.

    Attributes:
        logits: All logits.
        targets: The asked classes.
        layers: What each layer's update of the class token gave to each asked logit.
        bias: What no layer gave: the initial class token, and the biases of the final norm and the head.
        ablated: All logits, for every set of kept layers.
    """

    logits: Logits
    targets: Int[Tensor, "b asked"]
    layers: Float[Tensor, "b asked l"]
    bias: Float[Tensor, "b asked"]
    ablated: Float[Tensor, "b k c"]

    def target_logits(self) -> Float[Tensor, "b asked"]:
        """The logits of the asked classes."""
        return self.logits.gather(1, self.targets)

    def completeness_errors(self) -> Float[Tensor, " b"]:
        """Per image, the largest difference between a logit and the sum of its parts, over the largest logit in magnitude."""
        missing = (self.layers.sum(-1) + self.bias - self.target_logits()).abs().amax(-1)
        return missing / self.logits.abs().amax(-1).clamp_min(1e-12)


def decompose(
    observed: Sequence[tuple[HiTStage, ClassAttention, Gathered]],
    initial: Float[Tensor, "b first"],
    final: Float[Tensor, "b last"],
    norm: nn.LayerNorm,
    head: nn.Linear,
    grid_size: tuple[int, int],
    targets: AskedTargets,
    norm_mean: NormMean,
    by_layer: bool = False,
) -> Contributions:
    """Split the logits of a forward pass.

    Args:
        observed: Per layer, in order: its stage, its attention, and what that did.
        initial: The class token before the first layer.
        final: The class token after the last.
        norm: The final norm.
        head: The final linear map.
        grid_size: Rows and columns of patches before any pooling.
        targets: The asked classes, as `HiT.contributions` takes them.
        norm_mean: How the mean that the final norm subtracts is booked.
        by_layer: Whether the patches' parts are kept apart by layer as well.
    """
    linear = _linearize(final, norm, head, targets, norm_mean)
    direction, asked = linear.direction, linear.targets
    updates = layer_sums([(stage, gathered) for stage, _, gathered in observed], initial)
    layers, layer_bias = _split(linear, updates)
    rows, cols = grid_size[0] // 2 ** (observed[-1][0].index), grid_size[1] // 2 ** (observed[-1][0].index)
    patches = direction.new_zeros(*asked.shape, rows, cols)
    patch_bias = layer_bias
    later: HiTStage | None = None
    shares = list[Tensor]()
    for stage, attention, gathered in reversed(observed):
        if later is not None and later is not stage:
            # A pooled cell's share is spread evenly over the four cells under it.
            patches = patches.repeat_interleave(2, -2).repeat_interleave(2, -1) / 4
            if isinstance(later.project, nn.Linear):
                direction = direction @ later.project.weight
        share = _patch_shares(attention, gathered, direction).unflatten(-1, patches.shape[-2:])
        patches = patches + share
        if by_layer:
            side = 2**stage.index
            shares.append(share.repeat_interleave(side, -2).repeat_interleave(side, -1) / side**2)
        patch_bias = patch_bias + direction @ attention.out_proj.bias
        later = stage
    apart = torch.stack(shares[::-1], 2) if by_layer else None
    return Contributions(linear.logits, asked, patches, patch_bias, layers, layer_bias, apart)


def split_layers(
    updates: Float[Tensor, "b parts last"],
    final: Float[Tensor, "b last"],
    norm: nn.LayerNorm,
    head: nn.Linear,
    keep: Bool[Tensor, "k l"],
    targets: AskedTargets,
    norm_mean: NormMean,
) -> LayerSplit:
    """Split the logits of a forward pass into layers, and leave layers out.

    Args:
        updates: What `layer_sums` gives: the initial class token, then one update per layer.
        final: The class token after the last layer.
        norm: The final norm.
        head: The final linear map.
        keep: One row a set of layers; True = the layer's update is kept.
        targets: The asked classes, as `HiT.contributions` takes them.
        norm_mean: How the mean that the final norm subtracts is booked.
    """
    linear = _linearize(final, norm, head, targets, norm_mean)
    layers, bias = _split(linear, updates)
    return LayerSplit(linear.logits, linear.targets, layers, bias, head(norm(kept_sums(updates, keep))))


def kept_sums(updates: Float[Tensor, "b parts last"], keep: Bool[Tensor, "k l"]) -> Float[Tensor, "b k last"]:
    """The class token as a sum of its initial value and the kept updates alone, for every set of layers.

    Args:
        updates: What `layer_sums` gives: the initial class token, then one update per layer.
        keep: One row a set of layers; True = the layer's update is kept.

    Raises:
        InvalidInputError: A mask over another number of layers.
    """
    if keep.shape[1] != updates.shape[1] - 1:
        raise InvalidInputError(f"expected a mask over {updates.shape[1] - 1} layers, got {keep.shape[1]}")
    return updates[:, :1] + torch.einsum("kl,bld->bkd", keep.to(updates), updates[:, 1:])


def layer_sums(
    observed: Sequence[tuple[HiTStage, Gathered]], initial: Float[Tensor, "b first"]
) -> Float[Tensor, "b layers last"]:
    """The initial class token and every layer's update, carried into the last stage's width."""
    parts, entered = initial.unsqueeze(1), observed[0][0]
    for stage, gathered in observed:
        if stage is not entered:
            parts, entered = stage.project(parts), stage
        parts = torch.cat([parts, gathered.update], dim=1)
    return parts


def spread_attention(weights: Sequence[Float[Tensor, "b h _"]], grid_size: tuple[int, int]) -> Float[Tensor, "b rows cols"]:
    """The rollout view: mean over heads, sum over layers; a pooled cell's share is spread evenly over its patches.

    Args:
        weights: Per layer, the class token's attention over that stage's cells.
        grid_size: Rows and columns of patches before any pooling.
    """
    rows, cols = grid_size
    maps = []
    for layer in weights:
        factor = math.isqrt(rows * cols // layer.shape[2])
        cells = layer.mean(1).unflatten(1, (rows // factor, cols // factor))
        maps.append(cells.repeat_interleave(factor, 1).repeat_interleave(factor, 2) / factor**2)
    return torch.stack(maps).sum(0)


def expand_targets(targets: int | Int[Tensor, "..."] | None, logits: Logits) -> Int[Tensor, "b asked"]:
    """Bring targets to one row of classes per image, and check them."""
    (num_images, num_classes), device = logits.shape, logits.device
    if targets is None:
        return torch.arange(num_classes, device=device).expand(num_images, -1)
    asked = torch.as_tensor(targets, device=device)
    if asked.ndim < 2:
        asked = asked.reshape(-1, 1).expand(num_images, 1) if asked.numel() in (1, num_images) else asked.reshape(1, -1)
    if asked.ndim != 2 or len(asked) != num_images or asked.is_floating_point() or asked.dtype == torch.bool:
        raise InvalidInputError(
            f"expected integer targets: one, one per image ({num_images}), or ({num_images}, classes), "
            f"got {tuple(asked.shape)} of {asked.dtype}"
        )
    if asked.numel() and not (int(asked.min()) >= 0 and int(asked.max()) < num_classes):
        raise InvalidInputError(
            f"expected targets between 0 and {num_classes - 1}, got {int(asked.min())} to {int(asked.max())}"
        )
    return asked.long()


class _Linear(NamedTuple):
    """All logits, and the asked ones as `direction · z + constant`, for this image's own norm statistics."""

    logits: Tensor
    targets: Tensor
    direction: Tensor
    constant: Tensor


def _linearize(
    final: Float[Tensor, "b d"], norm: nn.LayerNorm, head: nn.Linear, targets: AskedTargets, norm_mean: NormMean
) -> _Linear:
    logits: Tensor = head(norm(final))
    asked = expand_targets(targets(logits) if callable(targets) else targets, logits)
    deviation = (final.var(-1, correction=0) + norm.eps).sqrt().unsqueeze(-1)
    weight = head.weight[asked]
    direction = weight * norm.weight / deviation.unsqueeze(-1)
    bias = weight @ norm.bias + head.bias[asked]
    if norm_mean == "own":
        return _Linear(logits, asked, direction - direction.mean(-1, keepdim=True), bias)
    return _Linear(logits, asked, direction, bias - direction.sum(-1) * final.mean(-1, keepdim=True))


def _split(
    linear: _Linear, updates: Float[Tensor, "b parts last"]
) -> tuple[Float[Tensor, "b asked l"], Float[Tensor, "b asked"]]:
    """What every layer gave, and what none did."""
    parts = torch.einsum("bcd,bld->bcl", linear.direction, updates)
    return parts[..., 1:], linear.constant + parts[..., 0]


def _patch_shares(
    attention: ClassAttention, gathered: Gathered, direction: Float[Tensor, "b asked d"]
) -> Float[Tensor, "b asked n"]:
    """What every patch gave along `direction` in one layer."""
    weights = gathered.weights[:, 0]
    value_weight, value_bias = attention.value_projection()
    probe = (direction @ attention.out_proj.weight).unflatten(-1, value_bias.shape)
    if probe.shape[1] * attention.num_heads < direction.shape[2]:
        # Few classes: project the directions back to the patches' space, so that no value is ever formed.
        seen = torch.einsum("bche,hed->bchd", probe, value_weight).flatten(1, 2) @ gathered.patches.mT
        shares = seen.unflatten(1, probe.shape[1:3]) + torch.einsum("bche,he->bch", probe, value_bias).unsqueeze(-1)
        return torch.einsum("bchn,bhn->bcn", shares, weights)
    values = torch.einsum("bnd,hed->bnhe", gathered.patches, value_weight) + value_bias
    weighted = values * weights.mT.unsqueeze(-1)
    return probe.flatten(2) @ weighted.flatten(2).mT

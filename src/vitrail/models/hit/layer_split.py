"""Exact contributions of HiT's layers to a logit, and logits without some of the layers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vitrail.core.errors import InvalidInputError
from vitrail.core.types import Logits
from vitrail.models.hit.layers import Gathered, HiTStage
from vitrail.models.hit.linear_logits import LinearLogits, NormMean, TargetChoice, linearize


@dataclass(frozen=True)
class LayerSplit:
    """Logits split into layers, and the logits without some of the layers, from one forward pass.

    Attributes:
        logits: All logits.
        targets: The chosen classes.
        layers: Contribution of each layer's update of the class token.
        bias: The remainder: the initial class token, and the biases of the final norm and the head.
        ablated: All logits, for every set of kept layers.
    """

    logits: Logits
    targets: Int[Tensor, "b targets"]
    layers: Float[Tensor, "b targets l"]
    bias: Float[Tensor, "b targets"]
    ablated: Float[Tensor, "b k c"]

    def target_logits(self) -> Float[Tensor, "b targets"]:
        """Return the logits of the chosen classes."""
        return self.logits.gather(1, self.targets)

    def completeness_errors(self) -> Float[Tensor, " b"]:
        """Return, per image, the largest difference between a logit and the sum of its parts, relative to the largest logit."""
        missing = (self.layers.sum(-1) + self.bias - self.target_logits()).abs().amax(-1)
        return missing / self.logits.abs().amax(-1).clamp_min(1e-12)


def split_layers(
    updates: Float[Tensor, "b parts last"],
    final: Float[Tensor, "b last"],
    norm: nn.LayerNorm,
    head: nn.Linear,
    keep: Bool[Tensor, "k l"],
    targets: TargetChoice,
    norm_mean: NormMean,
) -> LayerSplit:
    """Split the logits of a forward pass into layers, and compute them without some of the layers.

    Args:
        updates: Result of `collect_updates`: the initial class token, then one update per layer.
        final: The class token after the last layer.
        norm: The final norm.
        head: The final linear map.
        keep: One row per set of layers; True = the layer's update is kept.
        targets: Classes to explain, as `HiT.contributions` takes them.
        norm_mean: How to book the mean that the final norm subtracts.
    """
    linear = linearize(final, norm, head, targets, norm_mean)
    layers, bias = split_by_layer(linear, updates)
    return LayerSplit(linear.logits, linear.targets, layers, bias, head(norm(sum_kept_updates(updates, keep))))


def split_by_layer(
    linear: LinearLogits, updates: Float[Tensor, "b parts last"]
) -> tuple[Float[Tensor, "b targets l"], Float[Tensor, "b targets"]]:
    """Return the contribution of every layer, and the remainder."""
    parts = torch.einsum("bcd,bld->bcl", linear.direction, updates)
    return parts[..., 1:], linear.constant + parts[..., 0]


def collect_updates(
    observed: Sequence[tuple[HiTStage, Gathered]], initial: Float[Tensor, "b first"]
) -> Float[Tensor, "b layers last"]:
    """Return the initial class token and every layer's update, projected into the last stage's width.

    Args:
        observed: Per layer, in order: its stage, and the result of its attention.
        initial: The class token before the first layer.
    """
    parts, current = initial.unsqueeze(1), observed[0][0]
    for stage, gathered in observed:
        if stage is not current:
            parts, current = stage.project(parts), stage
        parts = torch.cat([parts, gathered.update], dim=1)
    return parts


def sum_kept_updates(updates: Float[Tensor, "b parts last"], keep: Bool[Tensor, "k l"]) -> Float[Tensor, "b k last"]:
    """Sum the initial class token and the kept updates, for every set of layers.

    Args:
        updates: Result of `collect_updates`.
        keep: One row per set of layers; True = the layer's update is kept.

    Raises:
        InvalidInputError: The mask covers another number of layers.
    """
    if keep.shape[1] != updates.shape[1] - 1:
        raise InvalidInputError(f"expected a mask over {updates.shape[1] - 1} layers, got {keep.shape[1]}")
    return updates[:, :1] + torch.einsum("kl,bld->bkd", keep.to(updates), updates[:, 1:])

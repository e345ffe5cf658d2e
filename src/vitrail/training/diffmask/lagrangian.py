"""The Lagrangian that trains DiffMask: gates and placeholder minimize it, the Lagrange multipliers maximize it (dual ascent).

Minimize the expected number of kept patches subject to KL(p || p masked) <= eps. Every layer has its own multiplier, alpha.
"""

from typing import Any, NamedTuple, final

import torch
from jaxtyping import Bool, Float
from timm.optim.lookahead import Lookahead
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from vitrail.adapters import ViTAdapter
from vitrail.core.divergence import kl_divergence
from vitrail.core.outputs import decisions
from vitrail.core.types import Images
from vitrail.explainers._masking import masked_logits, record_states
from vitrail.models.diffmask import DiffMask
from vitrail.training.diffmask.config import MaskConfig


class MaskedBatch(NamedTuple):
    """Objective and constraint for one batch, differentiable with respect to the gates.

    Attributes:
        kl: KL(p || p masked) per image, which the constraint bounds by eps.
        log_kept: Mean over tokens of log P(kept) per image: the objective that the gates minimize.
        norm: Mean over tokens of P(kept) per image: the expected L0 norm of the mask.
        kept: Mean over patches of P(kept) per image, without prefix tokens.
        agrees: Whether the masked image gets the same predicted class.
    """

    kl: Float[Tensor, " b"]
    log_kept: Float[Tensor, " b"]
    norm: Float[Tensor, " b"]
    kept: Float[Tensor, " b"]
    agrees: Bool[Tensor, " b"]


def mask_batch(vit: ViTAdapter, mask: DiffMask, images: Images, noise: Float[Tensor, "b t gates"]) -> MaskedBatch:
    """Sample a mask from the first gates and measure what it removes and how far the prediction moves.

    The ViT runs twice: on the whole images without gradients, keeping only the hidden states that the gates read, and on the
    masked patches with gradients.

    Args:
        vit: ViT in evaluation mode with frozen weights.
        mask: Gates and placeholder.
        images: Normalized batch.
        noise: Uniform noise in [0, 1); its last axis sets how many gates vote.

    Source: Nalmpantis et al. 2023, equations 6 to 9, arXiv:2304.06391. As in the published code, prefix tokens count in the norm.
    """
    with torch.no_grad():
        recorded = record_states(vit, images, noise.shape[-1])
    votes, num_prefix = mask(recorded.states), vit.num_prefix_tokens
    kept = votes.sample(noise)
    masked = masked_logits(vit, mask, recorded.patches, kept[:, num_prefix:], recorded.grid_size)
    log_kept = votes.log_kept()[..., -1]
    return MaskedBatch(
        kl=kl_divergence(recorded.logits, masked, vit.output),
        log_kept=log_kept.mean(1),
        norm=log_kept.exp().mean(1),
        kept=log_kept[:, num_prefix:].exp().mean(1),
        agrees=decisions(recorded.logits) == decisions(masked),
    )


def lagrangian(masked: MaskedBatch, alpha: Float[Tensor, ""], eps: float) -> Float[Tensor, ""]:
    """Compute alpha * (KL - eps) + log norm, averaged over the batch; the multiplier gets no gradient."""
    return (alpha.detach() * (masked.kl - eps) + masked.log_kept).mean()


@final
class LagrangeMultipliers(nn.ParameterList):
    """One Lagrange multiplier alpha per layer, kept in [0, max_alpha].

    Args:
        num_layers: Number of gates.
        alpha: Initial value.
        max_alpha: Largest value.

    Source: Nalmpantis et al. 2023, section 3.3, arXiv:2304.06391.
    """

    def __init__(self, num_layers: int, alpha: float, max_alpha: float) -> None:
        super().__init__(nn.Parameter(torch.tensor(alpha)) for _ in range(num_layers))
        self.max_alpha = max_alpha

    def ascend(self, optimizer: Optimizer, layer: int, violation: Float[Tensor, ""]) -> None:
        """Take a dual ascent step: raise a layer's multiplier where the constraint is violated, lower it where there is slack.

        Args:
            optimizer: Optimizer of all multipliers; not Lightning's wrapper, which would count a training step.
            layer: Layer whose gates masked the batch.
            violation: KL - eps, the gradient of the Lagrangian with respect to the multiplier.
        """
        optimizer.zero_grad()
        # Optimizers descend, multipliers ascend.
        self[layer].grad = -violation.to(self[layer])
        optimizer.step()
        with torch.no_grad():
            self[layer].clamp_(0, self.max_alpha)

    def mean(self) -> Float[Tensor, ""]:
        """Return the mean multiplier of all layers."""
        return torch.stack([alpha.detach() for alpha in self]).mean()


def create_primal_optimizer(mask: DiffMask, config: MaskConfig) -> Lookahead:
    """Create the optimizer of gates and placeholder, which have separate learning rates: Lookahead around Adam.

    Source: Lookahead, arXiv:1907.08610. timm's version, like the published one, copies the slow weights at the first
        synchronization, which therefore changes nothing; unlike there, its state is saved and restored.
    """
    groups: list[dict[str, Any]] = [{"params": list(mask.gates.parameters()), "lr": config.learning_rate}]
    if mask.placeholder is not None:
        groups.append({"params": [mask.placeholder], "lr": config.placeholder_learning_rate})
    return _with_lookahead(Adam(groups), config)


def create_dual_optimizer(multipliers: LagrangeMultipliers | list[nn.Parameter], config: MaskConfig) -> Lookahead:
    """Create the optimizer of the Lagrange multipliers, see `LagrangeMultipliers.ascend`."""
    return _with_lookahead(Adam(list(multipliers), lr=config.alpha_learning_rate), config)


def _with_lookahead(optimizer: Adam, config: MaskConfig) -> Lookahead:
    for group in optimizer.param_groups:
        group["full_lr"] = group["lr"]
    return Lookahead(optimizer, config.lookahead_alpha, config.lookahead_steps)


def warm_up(optimizer: Lookahead, step: int, warmup_steps: int) -> float:
    """Set the learning rates of a step, counted from 0, and return their factor: linear from 0 to 1, then constant."""
    factor = min(step / warmup_steps, 1.0) if warmup_steps else 1.0
    for group in optimizer.param_groups:
        group["lr"] = factor * group["full_lr"]
    return factor

"""Two players: gates and placeholder descend, the Lagrange multipliers ascend; both by Lookahead around Adam."""

from collections.abc import Iterable
from typing import Any

from timm.optim.lookahead import Lookahead
from torch import Tensor
from torch.optim import Adam

from vitrail.models.diffmask import DiffMask
from vitrail.training.diffmask.config import MaskConfig


def primal_optimizer(mask: DiffMask, config: MaskConfig) -> Lookahead:
    """The optimizer of the gates and, at a rate of its own, of the placeholder.

    Source: Lookahead, arXiv:1907.08610. timm's, like the published one, makes its slow copy at the first synchronization, so that
        the first one changes nothing; its state is saved and restored with that of Adam.
    """
    groups: list[dict[str, Any]] = [{"params": list(mask.gates.parameters()), "lr": config.learning_rate}]
    if mask.placeholder is not None:
        groups.append({"params": [mask.placeholder], "lr": config.placeholder_learning_rate})
    return _with_lookahead(Adam(groups), config)


def dual_optimizer(multipliers: Iterable[Tensor], config: MaskConfig) -> Lookahead:
    """The optimizer of the multipliers; their gradients must point downhill, so they are given the negative constraint."""
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

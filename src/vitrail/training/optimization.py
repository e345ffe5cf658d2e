"""The optimizer and the course of its learning rate: timm's, under named settings."""

from typing import Any

from timm.optim import create_optimizer_v2, param_groups_weight_decay
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import Optimizer

from vitrail.core.errors import InvalidInputError
from vitrail.models.intr import INTR
from vitrail.training.sections import OptimizerConfig, ScheduleConfig

TIMM_SCHEDULES = {"cosine": "cosine", "linear": "poly", "step": "step", "constant": "constant"}


def create_optimizer(module: nn.Module, config: OptimizerConfig, images_per_step: int) -> Optimizer:
    """Create the optimizer of the weights that ask for a gradient; norms and biases do not decay.

    Args:
        module: The network.
        config: Settings.
        images_per_step: Images of all devices and accumulated batches together.

    Raises:
        InvalidInputError: The optimizer has no such setting.
    """
    if config.layer_decay is not None and not hasattr(module, "group_matcher"):
        raise InvalidInputError(
            f"expected a network of timm for optimizer.layer_decay, which groups its weights by depth, got {type(module).__name__}, "
            "which does not; leave it out"
        )
    rate = config.learning_rate * (images_per_step / config.scale_to if config.scale_to else 1)
    weights: nn.Module | list[dict[str, Any]] = module
    if config.backbone_learning_rate is not None:
        weights = _with_backbone(module, config.backbone_learning_rate / config.learning_rate, config.weight_decay)
    asked: dict[str, Any] = {"betas": config.betas, "eps": config.epsilon, "layer_decay": config.layer_decay}
    given = {key: value for key, value in asked.items() if value is not None}
    try:
        optimizer: Optimizer = create_optimizer_v2(
            weights, opt=config.name, lr=rate, weight_decay=config.weight_decay, momentum=config.momentum, **given
        )
    except (TypeError, ValueError, AssertionError) as error:
        raise InvalidInputError(f"cannot create the optimizer {config.name!r} with {given}: {error}") from error
    # timm leaves out what it cannot use, without a word or with a warning.
    for key, name in (("betas", "betas"), ("eps", "epsilon")):
        if key in given and key not in optimizer.param_groups[0]:
            raise InvalidInputError(f"the optimizer {config.name!r} has no {name}; leave out optimizer.{name}")
    return optimizer


def _with_backbone(module: nn.Module, share: float, decay: float) -> list[dict[str, Any]]:
    """Two learning rates: groups of weights that decay and that do not; the backbone's come last and take a share of the rate.

    The share is timm's `lr_scale`, by which its schedules multiply whatever they set, warm-up and end included.
    """
    if not isinstance(module, INTR):
        raise InvalidInputError(
            f"expected an INTR for optimizer.backbone_learning_rate, got {type(module).__name__}, which has no backbone; leave it out"
        )
    slow = {id(parameter) for parameter in module.backbone.parameters()}
    groups = [
        {**group, "params": [weight for weight in group["params"] if (id(weight) in slow) is is_slow], "lr_scale": scale}
        for is_slow, scale in ((False, 1.0), (True, share))
        for group in param_groups_weight_decay(module, decay)
    ]
    return [group for group in groups if group["params"]]


def create_schedule(optimizer: Optimizer, config: ScheduleConfig, num_steps: int) -> Scheduler:
    """Create the course of the learning rate, counted in optimizer steps.

    Args:
        optimizer: Whose rate it is.
        config: Settings, in epochs.
        num_steps: Optimizer steps of all epochs.
    """
    schedule: Scheduler
    schedule, _ = create_scheduler_v2(
        optimizer,
        TIMM_SCHEDULES[config.name],
        num_epochs=num_steps,
        updates_per_epoch=1,
        step_on_epochs=False,
        warmup_epochs=min(round(num_steps * config.warmup_epochs / config.epochs), num_steps - 1),
        warmup_lr=config.warmup_learning_rate,
        min_lr=config.min_learning_rate,
        decay_epochs=max(round(num_steps * config.decay_epochs / config.epochs), 1),
        decay_rate=1.0 if config.name == "linear" else config.decay_rate,  # of a polynomial, its power
    )
    return schedule

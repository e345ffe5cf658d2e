"""Optimizer and learning rate schedule, by timm."""

from typing import Any

from timm.optim import create_optimizer_v2, param_groups_weight_decay
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import Optimizer

from vitrail.core.errors import InvalidInputError, failures_as
from vitrail.models.intr import INTR
from vitrail.training.sections import OptimizerConfig, ScheduleConfig

TIMM_SCHEDULES = {"cosine": "cosine", "linear": "poly", "step": "step", "constant": "constant"}


def create_optimizer(module: nn.Module, config: OptimizerConfig, images_per_step: int) -> Optimizer:
    """Create the optimizer of the trainable weights, without weight decay on norms and biases.

    Args:
        config: Section `optimizer` of the recipe.
        images_per_step: Images of all devices and accumulated batches together.

    Raises:
        InvalidInputError: The optimizer or the network does not support a setting.
    """
    if config.layer_decay is not None and not hasattr(module, "group_matcher"):
        raise InvalidInputError(
            f"expected a timm network for optimizer.layer_decay, which needs weights grouped by depth, got {type(module).__name__}; leave "
            "it out"
        )
    rate = config.learning_rate * (images_per_step / config.scale_to if config.scale_to else 1)
    weights: nn.Module | list[dict[str, Any]] = module
    if config.backbone_learning_rate is not None:
        weights = _split_backbone(module, config.backbone_learning_rate / config.learning_rate, config.weight_decay)
    settings: dict[str, Any] = {"betas": config.betas, "eps": config.epsilon, "layer_decay": config.layer_decay}
    options = {key: value for key, value in settings.items() if value is not None}
    with failures_as(
        InvalidInputError,
        f"cannot create the optimizer {config.name!r} with {options}",
        causes=(TypeError, ValueError, AssertionError),
    ):
        optimizer: Optimizer = create_optimizer_v2(
            weights, opt=config.name, lr=rate, weight_decay=config.weight_decay, momentum=config.momentum, **options
        )
    # timm drops unsupported options with a warning at most.
    for key, name in (("betas", "betas"), ("eps", "epsilon")):
        if key in options and key not in optimizer.param_groups[0]:
            raise InvalidInputError(f"the optimizer {config.name!r} has no {name}; leave out optimizer.{name}")
    return optimizer


def _split_backbone(module: nn.Module, lr_scale: float, weight_decay: float) -> list[dict[str, Any]]:
    """Split the weights of an INTR into parameter groups with and without weight decay; those of the backbone come last.

    timm's schedules multiply every learning rate of a group, warm-up and minimum included, by its `lr_scale`.
    """
    if not isinstance(module, INTR):
        raise InvalidInputError(
            f"expected an INTR for optimizer.backbone_learning_rate, got {type(module).__name__}, which has no backbone; leave it out"
        )
    backbone = {id(parameter) for parameter in module.backbone.parameters()}
    groups = [
        {
            **group,
            "params": [weight for weight in group["params"] if (id(weight) in backbone) is in_backbone],
            "lr_scale": scale,
        }
        for in_backbone, scale in ((False, 1.0), (True, lr_scale))
        for group in param_groups_weight_decay(module, weight_decay)
    ]
    return [group for group in groups if group["params"]]


def create_schedule(optimizer: Optimizer, config: ScheduleConfig, num_steps: int) -> Scheduler:
    """Create the learning rate schedule, which counts optimizer steps.

    Args:
        optimizer: Optimizer whose learning rate it sets.
        config: Section `schedule` of the recipe, in epochs.
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
        decay_rate=1.0 if config.name == "linear" else config.decay_rate,  # the power of a polynomial schedule
    )
    return schedule

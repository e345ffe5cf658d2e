"""Checkpoints of the published Vision DiffMask: its names, and the settings that it keeps beside the weights."""

import logging
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vitrail.core.errors import CheckpointError
from vitrail.models.checkpoints import Checkpoint, in_single
from vitrail.models.diffmask.network import DiffMaskConfig

logger = logging.getLogger(__name__)

PARTS = {
    "f.0.weight_g": "inner.parametrizations.weight.original0",
    "f.0.weight_v": "inner.parametrizations.weight.original1",
    "f.0.bias": "inner.bias",
    "f.2.weight_g": "outer.parametrizations.weight.original0",
    "f.2.weight_v": "outer.parametrizations.weight.original1",
    "f.2.bias": "outer.bias",
    "add_activation": "add_activation",
}
"""Of a gate: its published names, and ours."""

GATE = re.compile(r"gate\.g_hat\.(\d+)\.(.+)")
PLACEHOLDER = "gate.placeholder"

SCALE = 10.0
"""What the published code scales logits by where nobody says otherwise; its command line says 15."""

SETTINGS = "hyper_parameters"
MODEL = "model_cfg"
"""Under the settings: transformers' configuration of the explained ViT; later files need not have it."""


def is_published(state: Mapping[str, Tensor]) -> bool:
    """Whether weights have the published names."""
    return any(GATE.fullmatch(name) for name in state)


def published_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The gates under our names; multipliers, running figures and the ViT itself are left out."""
    ours = {}
    for name, tensor in state.items():
        found = GATE.fullmatch(name)
        if found:
            ours[f"gates.{found[1]}.{PARTS.get(found[2], found[2])}"] = tensor
    if PLACEHOLDER in state:
        # Without a learned one it is a buffer of zeros there, which is as good.
        ours["placeholder"] = state[PLACEHOLDER].reshape(-1)
    return in_single(ours)


def published_config(checkpoint: Checkpoint) -> DiffMaskConfig:
    """The shape of published gates, and the scale of their logits, which stands among the training's settings.

    Raises:
        CheckpointError: The weights are not those of gates, or the settings tell of other ones.
    """
    state = checkpoint.state
    settings = checkpoint.extra.get(SETTINGS)
    settings = settings if isinstance(settings, Mapping) else {}
    if "mul_activation" not in settings:
        logger.warning(
            "the published DiffMask checkpoint does not say its mul_activation; taken as %g, and masks are wrong where it was trained "
            "with another, such as 15, the default of the published command line",
            SCALE,
        )
    numbers = {int(found[1]) for name in state if (found := GATE.fullmatch(name))}
    try:
        hidden, inputs = state["gate.g_hat.0.f.0.weight_v"].shape
        config = DiffMaskConfig(
            width=inputs // 2,
            depth=len(numbers) - 2,
            hidden=hidden,
            mul_activation=_as_float(settings.get("mul_activation", SCALE)),
            # What the gates began with; what became of it is among the weights.
            add_activation=_as_float(settings.get("add_activation", 5.0)),
            placeholder=PLACEHOLDER in state,
        )
    except (KeyError, ValueError, OverflowError) as error:
        raise CheckpointError(f"the weights or settings are not those of published DiffMask gates: {error}") from error
    _expect_same_model(config, settings.get(MODEL))
    return config


def _as_float(value: Any) -> Any:
    """A whole number as a float; what is no number stays, and is refused with all else that a shape cannot be made of."""
    return float(value) if type(value) is int else value


def _expect_same_model(config: DiffMaskConfig, model: Any) -> None:
    """Refuse settings that tell of another ViT than the weights do."""
    fields = model if isinstance(model, Mapping) else getattr(model, "__dict__", {})
    for field, word, ours in (("hidden_size", "width", config.width), ("num_hidden_layers", "depth", config.depth)):
        told = fields.get(field, ours)
        if not isinstance(told, int) or told != ours:
            raise CheckpointError(
                f"the checkpoint contradicts itself: its {MODEL} tells of a ViT of {word} {told!r}, its gates are for "
                f"{word} {ours}"
            )

"""Checkpoints of the published Vision DiffMask: names of its weights, and settings stored beside them."""

import logging
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vitrail.core.errors import CheckpointError
from vitrail.models.checkpoints import Checkpoint, to_single_precision
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
"""vitrail's name by the published name, within a gate."""

GATE = re.compile(r"gate\.g_hat\.(\d+)\.(.+)")
PLACEHOLDER = "gate.placeholder"

SCALE = 10.0
"""Scale of the logits in the published class; the published command line sets 15."""

SETTINGS = "hyper_parameters"
MODEL = "model_cfg"
"""Setting with transformers' configuration of the explained ViT; may be missing."""


def is_published(state: Mapping[str, Tensor]) -> bool:
    """Return whether weights have the published names."""
    return any(GATE.fullmatch(name) for name in state)


def published_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the gates to vitrail's names; drop multipliers, running statistics and the ViT."""
    renamed = {}
    for name, tensor in state.items():
        match = GATE.fullmatch(name)
        if match:
            renamed[f"gates.{match[1]}.{PARTS.get(match[2], match[2])}"] = tensor
    if PLACEHOLDER in state:
        # If it is not learned, the published code stores a buffer of zeros, which is equivalent.
        renamed["placeholder"] = state[PLACEHOLDER].reshape(-1)
    return to_single_precision(renamed)


def published_config(checkpoint: Checkpoint) -> DiffMaskConfig:
    """Infer the configuration of published gates from their weights and training settings.

    Raises:
        CheckpointError: The weights are not those of gates, or contradict the settings.
    """
    state = checkpoint.state
    settings = checkpoint.extra.get(SETTINGS)
    settings = settings if isinstance(settings, Mapping) else {}
    if "mul_activation" not in settings:
        logger.warning(
            "the published DiffMask checkpoint does not say its mul_activation; taken as %g, and masks are wrong if it was trained "
            "with another, such as 15, the default of the published command line",
            SCALE,
        )
    numbers = {int(match[1]) for name in state if (match := GATE.fullmatch(name))}
    try:
        hidden, inputs = state["gate.g_hat.0.f.0.weight_v"].shape
        config = DiffMaskConfig(
            width=inputs // 2,
            depth=len(numbers) - 2,
            hidden=hidden,
            mul_activation=_as_float(settings.get("mul_activation", SCALE)),
            # Only the initial value; the trained one is among the weights.
            add_activation=_as_float(settings.get("add_activation", 5.0)),
            placeholder=PLACEHOLDER in state,
        )
    except (KeyError, ValueError, OverflowError) as error:
        raise CheckpointError(f"the weights or settings are not those of published DiffMask gates: {error}") from error
    _expect_same_model(config, settings.get(MODEL))
    return config


def _as_float(value: Any) -> Any:
    """Convert an integer to a float; the configuration refuses other types."""
    return float(value) if type(value) is int else value


def _expect_same_model(config: DiffMaskConfig, model: Any) -> None:
    """Refuse settings that describe another ViT than the weights."""
    fields = model if isinstance(model, Mapping) else getattr(model, "__dict__", {})
    for field, word, expected in (("hidden_size", "width", config.width), ("num_hidden_layers", "depth", config.depth)):
        value = fields.get(field, expected)
        if not isinstance(value, int) or value != expected:
            raise CheckpointError(
                f"the checkpoint contradicts itself: its {MODEL} tells of a ViT of {word} {value!r}, its gates are for "
                f"{word} {expected}"
            )

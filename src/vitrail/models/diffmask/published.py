"""Checkpoints of the published Vision DiffMask: its names, and the settings that it keeps beside the weights."""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vitrail.errors import CheckpointError, InvalidInputError
from vitrail.models.checkpoints import Checkpoint
from vitrail.models.diffmask.network import DiffMaskConfig

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


def looks_published(state: Mapping[str, Tensor]) -> bool:
    """Whether weights have the published names."""
    return any(GATE.fullmatch(name) for name in state)


def published_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The gates under our names; multipliers, running figures and the ViT itself are left out."""
    ours = {}
    for name, tensor in state.items():
        found = GATE.fullmatch(name)
        if found:
            ours[f"gates.{found[1]}.{PARTS.get(found[2], found[2])}"] = tensor.float()
    if PLACEHOLDER in state:
        ours["placeholder"] = state[PLACEHOLDER].float().reshape(-1)
    return ours


def published_config(checkpoint: Checkpoint) -> DiffMaskConfig:
    """The shape of published gates, and the scale of their logits, which stands among the training's settings.

    Raises:
        CheckpointError: The weights are not those of gates.
    """
    state = checkpoint.state
    numbers = sorted({int(found[1]) for name in state if (found := GATE.fullmatch(name))})
    try:
        inner = state["gate.g_hat.0.f.0.weight_v"]
        settings = checkpoint.extra.get("hyper_parameters", {})
        return DiffMaskConfig(
            width=inner.shape[1] // 2,
            depth=len(numbers) - 2,
            hidden=inner.shape[0],
            mul_activation=_number(settings, "mul_activation", 10.0),
            add_activation=_number(settings, "add_activation", 5.0),
            placeholder=PLACEHOLDER in state,
        )
    except (KeyError, IndexError, InvalidInputError) as error:
        raise CheckpointError(f"the weights are not those of published DiffMask gates: {error}") from error


def _number(settings: Any, name: str, default: float) -> float:
    value = settings.get(name, default) if isinstance(settings, Mapping) else default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CheckpointError(f"expected a number as {name} in the checkpoint's hyper_parameters, got {value!r}")
    return float(value)

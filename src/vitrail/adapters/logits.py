"""What a network returns for a batch: logits, or a refusal; and whether two ways to the same logits agree."""

from typing import Any

import torch
from torch import Tensor, nn

from vitrail.core.errors import UnsupportedModelError
from vitrail.core.types import Logits

TOLERANCES = {torch.float64: 1e-7, torch.float32: 2e-4, torch.float16: 0.02, torch.bfloat16: 0.06}
"""How far two ways to the same logits may be apart, as a share of the largest logit, by precision."""

TOLERANCE_ELSEWHERE = 4e-3
"""In single precision on other devices than the CPU, whose products may be rounded to fewer digits."""

TOLERANCE_QUANTIZED = 0.1
"""Of networks with quantized layers, whose rounding depends on all numbers of a batch."""


def expect_logits(output: Any, num_images: int, name: str) -> Logits:
    """Pass logits on, and refuse everything else that networks return.

    Raises:
        UnsupportedModelError: A tuple, a dictionary, features with places, or one number per image without an axis of classes.
    """
    if isinstance(output, Tensor) and output.ndim == 2 and output.is_floating_point() and len(output) == num_images:
        return output
    if isinstance(output, Tensor):
        got = f"a tensor of shape {tuple(output.shape)} and {output.dtype}"
    elif isinstance(output, tuple | list):
        got = f"a {type(output).__name__} of {len(output)}"
    else:
        got = f"a {type(output).__name__}"
    raise UnsupportedModelError(
        f"expected {name} to return logits of shape ({num_images} images, classes), got {got}; wrap it in a module that returns one row "
        "of logits per image"
    )


def agree(module: nn.Module, logits: Logits, expected: Logits) -> bool:
    """Whether two ways to the logits of a network agree up to rounding."""
    if logits.shape != expected.shape or not bool(torch.isfinite(logits).all()):
        return False
    tolerance = TOLERANCES.get(expected.dtype, TOLERANCES[torch.float32])
    if any("quantized" in type(part).__module__ for part in module.modules()):
        tolerance = TOLERANCE_QUANTIZED
    elif expected.device.type != "cpu" and expected.dtype == torch.float32:
        tolerance = TOLERANCE_ELSEWHERE
    return bool((logits - expected).abs().max() <= tolerance * expected.abs().max())

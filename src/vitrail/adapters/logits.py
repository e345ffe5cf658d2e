"""Check the logits that a network returns, what they mean, and whether two computations of them agree."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from vitrail.core.errors import UnsupportedModelError
from vitrail.core.outputs import Output
from vitrail.core.types import Logits

TOLERANCES = {torch.float64: 1e-7, torch.float32: 2e-4, torch.float16: 0.02, torch.bfloat16: 0.06}
"""Tolerated difference between two computations of the same logits, relative to the largest logit, by precision."""

TOLERANCE_ELSEWHERE = 4e-3
"""Tolerance in single precision on devices other than the CPU, which may round products to fewer digits."""

TOLERANCE_QUANTIZED = 0.1
"""Tolerance for networks with quantized layers, whose rounding depends on the whole batch."""


MASK_MAGNITUDE = 1e4
"""Logits as large are masks, such as -1e9 for classes that are ruled out: they do not set the scale of the others."""


def expect_logits(output: Any, num_images: int, name: str, key: int | str | None = None) -> Logits:
    """Return a network's output if it is logits of shape (images, classes), or one number per image.

    Args:
        output: What the network returned.
        name: Name of the network, for messages.
        key: Index or key of the logits in a tuple, list, dictionary or output object.

    Raises:
        UnsupportedModelError: The output is anything else, such as a feature map, or a tuple without a key.
    """
    if key is not None:
        output = _select_output(output, key, name)
    is_dense = isinstance(output, Tensor) and output.layout is torch.strided and output.is_floating_point()
    if is_dense and output.ndim in (1, 2) and len(output) == num_images and output.numel():
        return output if output.ndim == 2 else output[:, None]
    raise UnsupportedModelError(
        f"expected {name} to return logits of shape ({num_images} images, classes), got {_describe_output(output)}; "
        + (
            "wrap it in a module that returns one row of logits per image"
            if isinstance(output, Tensor)
            else "name its logits by output_key, an index or a key, as in vitrail.adapt(..., output_key=0) or --output-key 0"
        )
    )


def _select_output(output: Any, key: int | str, name: str) -> Any:
    try:
        if isinstance(output, Tensor):
            raise TypeError("a tensor has rows, not keys")
        return getattr(output, key) if isinstance(key, str) and hasattr(output, key) else output[key]
    except (LookupError, TypeError) as error:
        raise UnsupportedModelError(
            f"expected {name} to return something with the output_key {key!r}, got {_describe_output(output)}; give one of its keys"
        ) from error


def _describe_output(output: Any) -> str:
    if isinstance(output, Tensor):
        kind = "tensor" if output.layout is torch.strided else "sparse tensor"
        return f"a {kind} of shape {tuple(output.shape)} and {output.dtype}"
    if isinstance(output, Mapping):
        return f"a {type(output).__name__} with the keys {', '.join(map(repr, output))}"
    return f"a {type(output).__name__}" + (f" of {len(output)}" if isinstance(output, tuple | list) else "")


def logits_agree(module: nn.Module, logits: Logits, expected: Logits, tolerance: float = 1.0) -> bool:
    """Return whether two computations of a network's logits agree up to rounding.

    Args:
        tolerance: Tolerated difference relative to the largest logit, where less than another order of the same sums may need.
    """
    if logits.shape != expected.shape or not bool(torch.isfinite(logits).all()):
        return False
    tolerance = min(tolerance, _default_tolerance(module, expected))
    magnitude = expected.abs()
    return bool(((logits - expected).abs() <= tolerance * magnitude.clamp_min(magnitude[find_unmasked(expected)].max())).all())


def _default_tolerance(module: nn.Module, expected: Logits) -> float:
    if any("quantized" in type(part).__module__ for part in module.modules()):
        return TOLERANCE_QUANTIZED
    if expected.device.type != "cpu" and expected.dtype == torch.float32:
        return TOLERANCE_ELSEWHERE
    return TOLERANCES.get(expected.dtype, TOLERANCES[torch.float32])


def find_unmasked(logits: Logits) -> Bool[Tensor, "b c"]:
    """Find the logits that are no masks, see `MASK_MAGNITUDE`; all of them where all are as large."""
    unmasked = logits.abs() < MASK_MAGNITUDE
    return unmasked if bool(unmasked.any()) else torch.ones_like(unmasked)


def configured_output(module: nn.Module) -> Output:
    """Read the meaning of a network's logits off transformers' `problem_type`; "softmax" if not set."""
    config: Any = getattr(module, "config", None)
    meanings: dict[str | None, Output] = {"regression": "none", "multi_label_classification": "sigmoid"}
    return meanings.get(getattr(config, "problem_type", None), "softmax")

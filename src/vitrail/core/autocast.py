"""torch's autocast, with clear errors on devices that do not support it."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

from vitrail.core.errors import InvalidInputError

Precision = Literal["full", "bf16", "fp16"]

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context that computes in the precision of the inputs, also inside of `in_precision`."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def in_precision(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """Return a context that runs the network in a given precision.

    Raises:
        InvalidInputError: The device supports only full precision.
    """
    if precision == "full":
        return without_autocast(device)
    if not torch.amp.is_autocast_available(device.type):
        raise InvalidInputError(
            f"expected full precision on {device}, for which torch has no autocast, got {precision!r}; leave precision out, or choose "
            "another device"
        )
    return torch.autocast(device.type, DTYPES[precision])

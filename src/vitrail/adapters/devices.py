"""Choose the device of a network."""

import torch

from vitrail.core.errors import InvalidInputError, first_line

DEVICES = ("cpu", "cuda", "mps", "xpu")
"""Supported types of devices. torch knows others, which hold no data or are obsolete."""


def default_device() -> torch.device:
    """Return CUDA if available, else MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def check_device(device: str | torch.device | None) -> torch.device:
    """Return a usable device; `default_device()` if None.

    Raises:
        InvalidInputError: There is no such device, or vitrail does not support it.
    """
    if device is None:
        return default_device()
    try:
        chosen = torch.device(device)
        if chosen.type not in DEVICES:
            raise RuntimeError(f"vitrail does not compute on {chosen.type!r}")
        torch.empty(0, device=chosen)
    except Exception as error:  # Missing devices raise many kinds of errors, import errors among them.
        raise InvalidInputError(
            f"cannot use device {str(device)!r}: {first_line(error)}; expected cpu, cuda, cuda:0 or mps"
        ) from error
    return chosen

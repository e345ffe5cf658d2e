"""Where networks are put."""

import torch

from vitrail.core.errors import InvalidInputError

DEVICES = ("cpu", "cuda", "mps", "xpu")
"""Kinds of devices that results can be computed on; torch knows others that hold no numbers, or are no longer made."""


def default_device() -> torch.device:
    """CUDA where there is one, else MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def check_device(device: str | torch.device | None) -> torch.device:
    """The device that a model goes to; the fastest there is if none is named.

    Raises:
        InvalidInputError: There is no such device, or nothing can be computed on it.
    """
    if device is None:
        return default_device()
    try:
        chosen = torch.device(device)
        if chosen.type not in DEVICES:
            raise RuntimeError(f"vitrail does not compute on {chosen.type!r}")
        torch.empty(0, device=chosen)
    except Exception as error:  # A device that is not there fails in many ways, also by a module that is missing.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidInputError(f"cannot use device {str(device)!r}: {reason}; expected cpu, cuda, cuda:0 or mps") from error
    return chosen

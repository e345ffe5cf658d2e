"""Where tests of devices run: on a pretended one anywhere, on the real ones that a machine has; and what they run there."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.util import find_spec

import networks
import torch
from pretend_device import OnDevice, PretendDevice
from torch import Tensor

from vitrail.adapters import Classifier
from vitrail.explainers import EXPLAINERS, make_explainer

REAL = {
    "cuda": torch.cuda.is_available,
    "mps": torch.backends.mps.is_available,
    "xla": lambda: find_spec("torch_xla") is not None,
}
"""Devices that a machine may have."""

PLACES = ("pretended", *(name for name, there in REAL.items() if there()))

FEWER = ("timm", "hit", "intr")
"""Where metrics run: removal in tokens, in the states of a HiT, and in pixels."""

OPTIONS = {
    "rise": {"num_masks": 16},
    "integrated-gradients": {"num_steps": 4, "baseline": "blur"},
    "shapley": {"num_passes": 100, "region": 2},
}
"""Less work of the same kind."""

FEW_SAMPLES = {
    **{metric: {"num_subsets": 4} for metric in ("faithfulness-correlation", "infidelity")},
    **{metric: {"num_samples": 2} for metric in ("max-sensitivity", "stability")},
}


@contextmanager
def entered(place: str, **options) -> Iterator[torch.device]:
    """One of these devices, for the time of the block."""
    if place == "pretended":
        with PretendDevice(without=[torch.float64], **options) as device:
            yield device
    else:
        yield import_module("torch_xla").device() if place == "xla" else torch.device(place, 0)


@cache
def classifier(name: str, place: str = "") -> Classifier:
    """A network for all tests of a place; its library's own lookups may come from the CPU."""
    found = networks.intr() if name == "intr" else networks.network(name)
    if place:
        with entered(place) as device:
            found.module.to(device)
    return found


def photos(name: str) -> Tensor:
    shape = (3, 32, 48) if name == "intr" else (3, *networks.SIZES[name])
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(1), device="cpu")


def build(method: str, name: str, place: str = "", **options):
    trained = {"checkpoint": gates(name)} if EXPLAINERS[method].needs_training else {}
    return make_explainer(method, classifier(name, place), **{**OPTIONS.get(method, {}), **trained, **options})


@cache
def gates(name: str):
    """Of the network on the CPU, which lie there."""
    return networks.gates(classifier(name))


def expect_on(device: torch.device, *tensors: Tensor) -> None:
    for tensor in tensors:
        assert tensor.device.type == device.type
        assert isinstance(tensor, OnDevice) == (device.type == "lazy")

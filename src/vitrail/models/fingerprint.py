"""Fingerprints of a network's weights."""

import hashlib

import torch
from torch import Tensor, nn

from vitrail.models.hit import HiT

LENGTH = 32
"""Hexadecimal digits of a fingerprint."""


def weights_fingerprint(module: nn.Module) -> str:
    """Return a digest of all used parameters: shapes and values in single precision, whatever their names, order and precision.

    The same network has the same fingerprint in all versions of its library. DiffMask files store it.
    """
    unused = _list_unused(module)
    digests = []
    for name, parameter in module.named_parameters():
        if name not in unused:
            values = parameter.detach().to("cpu", torch.float32).contiguous()
            digest = hashlib.sha256(f"{tuple(values.shape)}\n".encode())
            digest.update(_view_bytes(values))
            digests.append(digest.digest())
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()[:LENGTH]


def state_fingerprint(module: nn.Module) -> str:
    """Return a digest of all used weights and buffers: names, shapes, precision and values.

    Any change that may alter a result alters it. Run folders store it.
    """
    digest, unused = hashlib.sha256(), _list_unused(module)
    for name, value in sorted(module.state_dict().items()):
        if name in unused:
            continue
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(_view_bytes(value.detach().cpu().contiguous()))
        else:
            digest.update(f"{name} {value!r}\n".encode())
    return digest.hexdigest()[:LENGTH]


def _list_unused(module: nn.Module) -> set[str]:
    return set(module.unused_names()) if isinstance(module, HiT) else set()


def _view_bytes(values: Tensor) -> memoryview:
    return values.flatten().view(torch.uint8).numpy().data

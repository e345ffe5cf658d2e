"""Whether two networks have the same weights, whatever they are called."""

import hashlib

import torch
from torch import nn

from vitrail.models.hit import HiT


def weights_fingerprint(module: nn.Module) -> str:
    """A digest of all parameters that matter: shapes and values in single precision.

    Names and order do not count: other versions of a library have other ones.
    """
    idle = set(module.unused_names()) if isinstance(module, HiT) else set[str]()
    digests = []
    for name, parameter in module.named_parameters():
        if name not in idle:
            values = parameter.detach().to("cpu", torch.float32).contiguous()
            digest = hashlib.sha256(f"{tuple(values.shape)}\n".encode())
            digest.update(values.flatten().view(torch.uint8).numpy().data)
            digests.append(digest.digest())
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()[:32]

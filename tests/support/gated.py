"""DiffMask with gates made for its network."""

import networks
import torch

from vitrail.explainers.diffmask import VisionDiffMask


def diffmask(name: str = "timm", dtype: torch.dtype = torch.float32, seed: int = 0, **options) -> VisionDiffMask:
    vit = networks.network(name)
    vit.module.to(dtype)
    return VisionDiffMask(vit, networks.gates(vit, seed), **options)

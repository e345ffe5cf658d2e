"""Tiny seeded networks of every kind, no downloads."""

from collections.abc import Callable

import timm
import torch
from torch import nn

from vitrail.adapters import Classifier, Preprocessing, adapt
from vitrail.models.hit import HiT

CLASS_NAMES = ("ant", "bee", "cat", "dog", "emu")


def shaken(module: nn.Module, seed: int = 0, spread: float = 0.2) -> nn.Module:
    """Give every parameter noise, so that no zero initialisation hides a term."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * spread)
    return module.eval()


def hit(**fields) -> HiT:
    shape = {"image_size": (16, 16), "patch_size": 4, "depths": (2,), "widths": (16,), "num_heads": 4, "num_classes": 5}
    torch.manual_seed(0)
    return shaken(HiT(**(shape | {"mlp_ratio": 2.0} | fields)))


def hit_pooled(**fields) -> HiT:
    return hit(**({"depths": (1, 2, 1), "widths": (16, 16, 24)} | fields))


def hit_wide() -> HiT:
    """A non-square image, pooled."""
    return hit(image_size=(16, 32), depths=(1, 1), widths=(16, 24))


def timm_vit(**options) -> nn.Module:
    shape = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 5}
    torch.manual_seed(0)
    return shaken(timm.models.VisionTransformer(**(shape | options)), spread=0.05)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "hit": hit,
    "hit-pooled": hit_pooled,
    "hit-wide": hit_wide,
    "hit-no-positions": lambda: hit_pooled(position_embedding=False),
    "timm": timm_vit,
    "timm-wide": lambda: timm_vit(img_size=(32, 48)),
    "timm-registers": lambda: timm_vit(reg_tokens=4, no_embed_class=True),
    "timm-average": lambda: timm_vit(global_pool="avg"),
}
"""Prefix tokens 1 and 5, square and not, pooled and not."""

SIZES = {"hit-wide": (16, 32), "timm": (32, 32), "timm-wide": (32, 48), "timm-registers": (32, 32), "timm-average": (32, 32)}


def network(name: str) -> Classifier:
    size = SIZES.get(name, (16, 16))
    preprocessing = Preprocessing(size=size, crop_fraction=1.0, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    return adapt(NETWORKS[name](), name=name, preprocessing=preprocessing, class_names=CLASS_NAMES)


def images(name: str, count: int = 3, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, 3, *SIZES.get(name, (16, 16)), generator=torch.Generator().manual_seed(seed))

"""Tiny seeded models of open_clip, and a network without a head with a text tower of its own; no downloads."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import networks
import open_clip
import torch
from torch import Tensor, nn

from vitrail.adapters import Classifier, adapt
from vitrail.adapters.directions import TextTower
from vitrail.core.outputs import Output

VISION: dict[str, Any] = {"layers": 2, "width": 24, "head_width": 8, "patch_size": 8, "image_size": 32}
TEXT: dict[str, Any] = {"width": 16, "heads": 2, "layers": 1}
PROMPTS = ["a photo of a cat", "a photo of a dog", "a diagram"]


def open_clip_model(
    kind: type[nn.Module] = open_clip.CLIP, sigmoid: bool = False, text: dict[str, Any] | None = None, **vision: Any
) -> Any:
    torch.manual_seed(0)
    bias = {"init_logit_bias": -0.7} if sigmoid else {}
    return networks.shaken(kind(16, VISION | vision, TEXT | (text or {}), **bias), spread=0.1)


def images(count: int = 2, size: int = 32) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


@dataclass(frozen=True, eq=False)
class LetterText(TextTower):
    """Embeds a text by its letters."""

    meaning: Output = "softmax"
    bias: float = 0.0
    scale: float = 8.0
    width: int = 24

    @property
    def output(self) -> Output:
        return self.meaning

    def encode(self, texts: Sequence[str]) -> Tensor:
        rows = []
        for text in texts:
            generator = torch.Generator().manual_seed(sum(map(ord, text)))
            rows.append(torch.randn(self.width, generator=generator) * len(text))
        return torch.stack(rows)


def headless(**options: Any) -> Classifier:
    """torchvision's ViT without its head, (b, 24)."""
    module = networks.torchvision_vit(**({"num_layers": 3} | options))
    module.heads = nn.Identity()
    return adapt(module, name="tower")


def with_text(classifier: Classifier, **text: Any) -> Classifier:
    return replace(classifier, text=LetterText(**text))

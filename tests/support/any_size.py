"""A tiny classifier that takes whole photos, so that images differ in size."""

import torch
from networks import CLASS_NAMES, shaken
from torch import nn

from vitrail.adapters import Classifier, Preprocessing
from vitrail.adapters.plain import adapt_plain


def any_size(limits: tuple[int, int] = (32, 48)) -> Classifier:
    """Convolutions under a global pool; cells of 8 pixels. Padding would change what it says."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 5, stride=2, padding=2), nn.GELU(), nn.Conv2d(8, 8, 3, padding=1), nn.GELU()]
    module = shaken(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)), spread=0.4)
    preprocessing = Preprocessing(limits, 1.0, "whole", "bilinear", (0.5,) * 3, (0.25,) * 3)
    return adapt_plain(module, "any size", CLASS_NAMES, preprocessing, cell_size=8)

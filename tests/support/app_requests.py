"""Bundled models, loaded once, and their results for drawn birds."""

from functools import cache

import torch
from PIL import Image

from vitrail.adapters import Classifier, load
from vitrail.app.explain_request import ExplainRequest, ExplainResult, answer_request
from vitrail.datasets.synthetic.birds import Birds
from vitrail.metrics import PROTOCOLS, Curves


@cache
def load_model(name: str) -> Classifier:
    return load(f"vitrail:{name}", device="cpu")


@cache
def draw_bird(index: int = 1) -> Image.Image:
    return Birds(size=96, num_classes=6).draw("test", index).image


@cache
def explain_bird(name: str, *methods: str, target: str | None = None, index: int = 1) -> ExplainResult:
    """The result for one bird; cached, so that tests must not change it."""
    return answer_request(load_model(name), ExplainRequest(draw_bird(index), methods, target, f"bird {index}.png"))


def make_curves(insertion: float, deletion: float) -> Curves:
    """Flat curves of one image by the protocol `hit`."""
    protocol = PROTOCOLS["hit"]
    heights = torch.tensor([insertion if curve.direction == "insertion" else deletion for curve in protocol.curves])
    scores = heights[None, :, None].expand(1, -1, 5).clone()
    return Curves(protocol, torch.linspace(0, 1, 5), scores, torch.tensor([[[0.0, 1.0]] * len(heights)]))

"""Bundled models, opened once, and answers by them."""

from functools import cache

from PIL import Image

from vitrail.adapters import Classifier, load
from vitrail.app.explain_request import ExplainRequest, ExplainResult, answer
from vitrail.datasets.synthetic.birds import Birds


@cache
def model(name: str) -> Classifier:
    return load(f"vitrail:{name}", device="cpu")


@cache
def bird(index: int = 1) -> Image.Image:
    return Birds(size=96, num_classes=6).draw("test", index).image


def ask(name: str, *methods: str, target: str | None = None, index: int = 1) -> ExplainResult:
    return answer(model(name), ExplainRequest(bird(index), methods, target, f"bird {index}.png"))

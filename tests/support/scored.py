"""What suites of scoring share: the additive classifier reading PNG images, methods with known maps, and scores made by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from additive import AdditiveClassifier, additive_classifier
from PIL import Image

from vitrail.adapters import Preprocessing
from vitrail.evaluation.scoring import Column, Scores
from vitrail.evaluation.scoring.cost import Cost
from vitrail.explainers import Explainer
from vitrail.explainers.base import Attribution, ChooseTargets
from vitrail.metrics import Measure, Protocol

SHADES = (
    (255, 255, 255, 255, 255, 255),
    (51, 204, 102, 153, 255, 0),
    (255, 51, 0, 204, 102, 153),
    (0, 255, 204, 51, 51, 255),
    (102, 0, 255, 255, 204, 51),
)
"""Five images of the additive classifier: the gray of every cell, row by row."""

LOGIT = Protocol(
    description="a cell at a time, zero, logit", source="tests", cells_per_step=1, baselines=("zero",), scores=("logit",)
)


def additive() -> AdditiveClassifier:
    """The additive classifier, which reads white as 1 and black as 0."""
    seen = Preprocessing((8, 12), crop_fraction=1.0, crop_mode="squash", mean=(0.0,) * 3, std=(1.0,) * 3)
    return replace(additive_classifier(), preprocessing=seen)


def gray_photos(folder: Path, shades: Sequence[Sequence[int]] = SHADES) -> Path:
    """Write an image of 8x12 pixels for every six shades of gray; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, cells in enumerate(shades):
        pixels = np.kron(np.array(cells, dtype=np.uint8).reshape(2, 3), np.ones((4, 4), dtype=np.uint8))
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@dataclass(frozen=True, eq=False)
class Exact(Explainer):
    """The true relevance of the additive classifier: weight x shade; what it says it leaves to no cell is `bias`."""

    bias: float = 0.0
    sign: float = 1.0

    paper: ClassVar[str] = "tests"
    needs_model: ClassVar[str] = "any"

    def attribution(self, images: Any, choose: ChooseTargets) -> Attribution:
        logits = self.model.logits(images)
        cells = torch.nn.functional.avg_pool2d(images[:, 0], 4)
        relevance = self.sign * cells * self.model.module.weights.view(2, 3)
        return Attribution(logits, choose(logits), relevance, torch.full((len(images),), self.bias))


@dataclass(frozen=True, eq=False)
class Recording(Explainer):
    """Brightness of cells, for any classifier; remembers the sum of every image that it is given, and can be made to fail.

    Args:
        model: Any classifier.
        seen: Where sums are remembered.
        fails_at: The call that fails, from 0; none if below.
    """

    seen: list = None  # type: ignore[assignment, type-arg]
    fails_at: int = -1

    paper: ClassVar[str] = "tests"
    needs_model: ClassVar[str] = "any"

    def __post_init__(self) -> None:
        object.__setattr__(self, "calls", [])
        if self.seen is None:
            object.__setattr__(self, "seen", [])

    def attribution(self, images: Any, choose: ChooseTargets) -> Attribution:
        logits = self.model.logits(images)
        targets = choose(logits)
        if len(self.calls) == self.fails_at:
            raise RuntimeError("the power went out")
        self.calls.append(len(images))
        self.seen.extend(images.double().sum((1, 2, 3)).tolist())
        relevance = torch.nn.functional.adaptive_avg_pool2d(images.mean(1), self.model.grid_size(images))
        return Attribution(logits, targets, relevance)


class AlsoRecording(Recording):
    """The same under another name."""


def column(
    name: str, better: str | None = "higher", metric: str | None = None, low: float = 0.0, high: float = float("inf")
) -> Column:
    """A column of a metric; "metric.measure" or one name for both."""
    return Column(name, metric or name.split(".")[0], Measure(name.split(".")[-1], better, low, high, f"what {name} is"))  # type: ignore[arg-type]


def hand_made(
    values: Mapping[str, Any], columns: Sequence[Column], model: str = "model", places: Sequence[int] | None = None
) -> Scores:
    """Scores of numbers written by hand: per method, a row an image."""
    arrays = np.array(list(values.values()), dtype=np.float64)
    count = arrays.shape[1]
    at = np.arange(count) if places is None else np.array(places)
    return Scores(
        model=model,
        methods=tuple(values),
        columns=tuple(columns),
        values=arrays,
        targets=np.zeros(count, dtype=np.int64),
        target_names=["yes"] * count,
        paths=[f"photos/{place}.png" for place in at],
        indices=at,
        protocols={},
        cost={name: Cost(passes=1.0 + i, seconds=0.002 * (i + 1)) for i, name in enumerate(values)},
    )

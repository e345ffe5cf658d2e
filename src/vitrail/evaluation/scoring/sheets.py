"""Contact sheets of what was scored: where a method is best and worst, and what masks keep."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from vitrail.adapters import Classifier
from vitrail.datasets.dataset import LabeledImages, Sample
from vitrail.datasets.ground_truth import GroundTruthImages
from vitrail.evaluation.scoring.plan import Plan
from vitrail.evaluation.scoring.scores import Scores
from vitrail.explainers import Explainer
from vitrail.explanation import Explanation
from vitrail.metrics.masks import Masks, cut
from vitrail.viz.sheet import SheetRow, contact_sheet

NUM_EXTREMES = 3
"""Images of each kind: enough to see, and little to scroll."""
NUM_SHOWN = 12

EXTREMES, MASKS = "extremes.png", "masks.png"


def write_sheets(
    folder: Path,
    scores: Scores,
    plan: Plan,
    images: LabeledImages,
    explainers: Sequence[Explainer],
) -> dict[str, str]:
    """Write the contact sheets of a model's scores.

    The best, median and worst images of the first method, by the first measure that has a direction; and, where maps were cut
    into masks, what these keep. Maps are made once more: nobody keeps those of all images.

    Args:
        folder: Where to write.
        scores: What was measured.
        plan: Of these scores.
        images: Of these scores.
        explainers: Of these scores.

    Returns:
        Their captions, by file name.
    """
    captions = dict[str, str]()
    draw = _Rows(images, explainers, dict(zip(scores.places.tolist(), scores.targets.tolist(), strict=True)))
    directed = [i for i, column in enumerate(scores.columns) if column.measure.better]
    if directed:
        column, method = scores.columns[directed[0]], scores.methods[0]
        chosen = _extremes(scores.values[0, :, directed[0]], column.measure.better == "higher")
        rows = [draw.row(int(scores.places[at]), f"{word} {value:.3f}: ") for word, at, value in chosen]
        if found := [row for row in rows if row is not None]:
            contact_sheet(found, folder / EXTREMES)
            captions[EXTREMES] = (
                f"The best, median and worst images of {method} by {column.name}, with the maps of all methods."
            )
    masks = next((metric for metric in plan.metrics.values() if isinstance(metric, Masks)), None)
    if masks is not None:
        some = {images.spread(NUM_SHOWN).name(i) for i in range(len(images.spread(NUM_SHOWN)))}
        places = [int(place) for place, path in zip(scores.places, scores.paths, strict=True) if path in some]
        rows = [draw.row(place, "", masks.threshold) for place in places]
        if not (found := [row for row in rows if row is not None]):
            return captions
        contact_sheet(found, folder / MASKS)
        captions[MASKS] = (
            "Some images, what is kept of them where their maps are cut into masks, and ground_truth where they are known."
        )
    return captions


def _extremes(values: np.ndarray, higher: bool) -> list[tuple[str, int, float]]:
    """Kind, place and value of the best, the median and the worst images; each image once."""
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(-values[known] if higher else values[known], kind="stable")]
    count = min(NUM_EXTREMES, -(-len(order) // 3))
    middle = max((len(order) - count) // 2, 0)
    kinds = {"best": order[:count], "median": order[middle : middle + count], "worst": order[len(order) - count :]}
    seen = dict[int, tuple[str, int, float]]()
    for word, places in kinds.items():
        for at in places.tolist():
            seen.setdefault(at, (word, at, float(values[at])))
    return list(seen.values())


class _Rows:
    """Rows of a sheet, each explained by itself."""

    def __init__(self, images: LabeledImages, explainers: Sequence[Explainer], targets: Mapping[int, int]) -> None:
        self.images, self.explainers, self.targets = images, explainers, targets
        self.classifier: Classifier = explainers[0].model

    def row(self, place: int, before: str, threshold: float | None = None) -> SheetRow | None:
        """The row of one image, or None where it cannot be read any more."""
        sample = self.images[place]
        if not isinstance(sample, Sample):
            return None
        photo, name = self.images.open(place), self.images.name(place)
        batch = sample.image.unsqueeze(0).to(self.classifier.device, self.classifier.dtype)
        target = torch.tensor([self.targets[place]], device=batch.device)
        found = [explainer.explain(batch, target) for explainer in self.explainers]
        kept = {}
        if threshold is not None:
            for explainer, one in zip(self.explainers, found, strict=True):
                kept[one.method] = cut(one.relevance, threshold, explainer.gives_probabilities)[0].float().cpu()
        answer = self.images.answer(place) if isinstance(self.images, GroundTruthImages) else None
        preprocessing = (
            self.images.transform if hasattr(self.images.transform, "visible_box") else self.classifier.preprocessing
        )
        box = preprocessing.visible_box(photo.height, photo.width)
        title = before + "/".join(Path(name).parts[-2:])
        return SheetRow(photo, box, [_on_cpu(one) for one in found], title, answer, kept).reduced()


def _on_cpu(explanation: Explanation) -> Explanation:
    tensors = {name: getattr(explanation, name).cpu() for name in ("relevance", "targets", "logits")}
    return replace(explanation, **tensors, bias=None if explanation.bias is None else explanation.bias.cpu())

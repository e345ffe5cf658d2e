"""Draw contact sheets of scored images: the best and worst of a method, and what masks keep."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from vitrail.adapters import Classifier
from vitrail.datasets.dataset import LabeledImages, Sample
from vitrail.datasets.ground_truth import GroundTruthImages
from vitrail.evaluation.scoring.plan import Plan
from vitrail.evaluation.scoring.scores import Scores
from vitrail.evaluation.scoring.verdict import reach_verdict
from vitrail.explainers import Explainer
from vitrail.explanation import Explanation
from vitrail.metrics.masks import Masks, threshold_relevance
from vitrail.viz.sheet import SheetRow, contact_sheet
from vitrail.viz.styles import is_control

NUM_EXTREMES = 3
"""Number of best, median and worst images each."""

NUM_MASKS = 12
"""Number of images whose masks are shown."""

EXTREMES, MASKS = "extremes.png", "masks.png"


def write_sheets(
    folder: Path,
    scores: Scores,
    plan: Plan,
    images: LabeledImages,
    explainers: Sequence[Explainer],
) -> dict[str, str]:
    """Write the contact sheets of a model's scores.

    extremes.png has the best, median and worst images of the recommended method, or of the best one if none is recommended, by the first
    measure that has a direction and tells images apart; masks.png, if maps were cut into masks, what these keep. The images are
    explained again, since relevance is not stored.

    Returns:
        Captions of the sheets by file name.
    """
    sheets = {
        EXTREMES: _extreme_rows(scores, images, explainers),
        MASKS: _mask_rows(scores, plan, images, explainers),
    }
    captions = dict[str, str]()
    for name, (rows, caption) in sheets.items():
        if rows:
            contact_sheet(rows, folder / name)
            captions[name] = caption
    return captions


def _extreme_rows(scores: Scores, images: LabeledImages, explainers: Sequence[Explainer]) -> tuple[list[SheetRow], str]:
    directed = [i for i, column in enumerate(scores.columns) if column.measure.better]
    if not directed:
        return [], ""
    method = reach_verdict(scores).method or _best_method(scores)
    measured = scores.values[scores.methods.index(method)]
    # A measure that is the same for all images tells no best from a worst.
    telling = [i for i in directed if len(np.unique(measured[~np.isnan(measured[:, i]), i])) > 2]
    index = (telling or directed)[0]
    column, maker = scores.columns[index], _RowMaker(scores, images, explainers)
    extremes = _find_extremes(measured[:, index], column.measure.better == "higher")
    rows = [maker.make_row(int(scores.indices[i]), f"{kind} {value:z.3f}\n") for kind, i, value in extremes]
    direction = f"({column.measure.better} is better)"
    caption = f"The best, median and worst images of {method} by {column.name} {direction}, explained by all methods."
    return [row for row in rows if row is not None], caption


def _best_method(scores: Scores) -> str:
    """Return the method with the best mean rank; controls only if there is nothing else."""
    table = scores.table
    ranks = dict(zip(table.methods, np.nan_to_num(table.mean_ranks, nan=np.inf).tolist(), strict=True))
    return min(scores.methods, key=lambda name: (is_control(name), ranks[name]))


def _mask_rows(
    scores: Scores, plan: Plan, images: LabeledImages, explainers: Sequence[Explainer]
) -> tuple[list[SheetRow], str]:
    masks = next((metric for metric in plan.metrics.values() if isinstance(metric, Masks)), None)
    if masks is None:
        return [], ""
    maker, shown = _RowMaker(scores, images, explainers), images.subsample(NUM_MASKS)
    names = {shown.name(i) for i in range(len(shown))}
    indices = [int(index) for index, path in zip(scores.indices, scores.paths, strict=True) if path in names]
    rows = [maker.make_row(index, "", masks.threshold) for index in indices]
    caption = "Images, the parts that each method's mask keeps, and the ground truth if it is known."
    return [row for row in rows if row is not None], caption


def _find_extremes(values: np.ndarray, higher: bool) -> list[tuple[str, int, float]]:
    """Return kind, index and value of the best, median and worst images, each image once."""
    defined = np.flatnonzero(~np.isnan(values))
    order = defined[np.argsort(-values[defined] if higher else values[defined], kind="stable")]
    count = min(NUM_EXTREMES, -(-len(order) // 3))
    middle = max((len(order) - count) // 2, 0)
    kinds = {"best": order[:count], "median": order[middle : middle + count], "worst": order[len(order) - count :]}
    extremes = dict[int, tuple[str, int, float]]()
    for kind, indices in kinds.items():
        for index in indices.tolist():
            extremes.setdefault(index, (kind, index, float(values[index])))
    return list(extremes.values())


class _RowMaker:
    """Makes rows of a sheet; each image is explained by itself, for its target in the scores."""

    def __init__(self, scores: Scores, images: LabeledImages, explainers: Sequence[Explainer]) -> None:
        self.images, self.explainers = images, explainers
        self.targets = dict(zip(scores.indices.tolist(), scores.targets.tolist(), strict=True))
        self.classifier: Classifier = explainers[0].model

    def make_row(self, index: int, prefix: str, threshold: float | None = None) -> SheetRow | None:
        """Return the row of one image; None if it can no longer be read.

        Args:
            index: Index of the image in the data set.
            prefix: Put before the name of the image.
            threshold: Where relevance is cut into a mask, if masks are shown.
        """
        sample = self.images[index]
        if not isinstance(sample, Sample):
            return None
        photo, name = self.images.open(index), self.images.name(index)
        batch = sample.image.unsqueeze(0).to(self.classifier.device, self.classifier.dtype)
        target = torch.tensor([self.targets[index]], device=batch.device)
        explanations = [explainer.explain(batch, target) for explainer in self.explainers]
        kept = {}
        if threshold is not None:
            for explainer, explanation in zip(self.explainers, explanations, strict=True):
                mask = threshold_relevance(explanation.relevance, threshold, explainer.gives_probabilities)
                kept[explanation.method] = mask[0].float().cpu()
        ground_truth = self.images.ground_truth(index) if isinstance(self.images, GroundTruthImages) else None
        preprocessing = (
            self.images.transform if hasattr(self.images.transform, "visible_box") else self.classifier.preprocessing
        )
        box = preprocessing.visible_box(photo.height, photo.width)
        explanations = [explanation.to("cpu") for explanation in explanations]
        title = prefix + self._name_label(index, explanations[0]) + "/".join(Path(name).parts[-2:])
        return SheetRow(photo, box, explanations, title, ground_truth, kept).reduced()

    def _name_label(self, index: int, explanation: Explanation) -> str:
        """Return a line with the label of an image, if it is a class of the model that the model does not predict; else nothing."""
        label = self.images.labels[index]
        name = self.images.class_names[label] if 0 <= label < len(self.images.class_names) else None
        if name not in self.classifier.class_names or explanation.output == "embedding":
            return ""
        predicted = explanation.top_classes(0, 1)[0][0]
        return "" if name == predicted else f"label: {name}\n"

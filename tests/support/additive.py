"""A patch scorer whose logit is a weighted sum of patches: nearly everything that is measured of it has a closed form."""

import torch

from vitrail.adapters import Classifier, Preprocessing
from vitrail.explanation import Explanation

WEIGHTS = (3.0, -1.0, 2.0, 0.5, 0.0, 1.0)
"""Of the cells of a 2x3 grid, row by row."""


class _Weights(torch.nn.Module):
    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(weights)


class AdditiveClassifier(Classifier):
    """Of images of 8x12 pixels: logit 0 is the sum over the 2x3 cells of weight x mean of the first channel, logit 1 is 0.

    On images of ones a cell gives its weight; a cell that is replaced by zero gives nothing.
    """

    num_classes = 2

    def grid_size(self, images):
        return 2, 3

    def logits(self, images):
        cells = torch.nn.functional.avg_pool2d(images[:, :1], 4).flatten(1)
        return torch.stack([cells @ self.module.weights, torch.zeros(len(images), dtype=images.dtype)], 1)


def additive_classifier(weights=WEIGHTS) -> AdditiveClassifier:
    return AdditiveClassifier(_Weights(torch.tensor(weights)), Preprocessing((8, 12)), ("yes", "no"), "additive")


def ones(count: int = 1) -> torch.Tensor:
    """Images of which every cell gives exactly its weight."""
    return torch.ones(count, 3, 8, 12)


def explained(classifier, images, relevance, targets=None) -> Explanation:
    """An explanation of these maps, of the predicted class if none is given."""
    with torch.no_grad():
        logits = classifier.logits(images)
    return Explanation(relevance, logits.argmax(-1) if targets is None else targets, logits)


def own_map(classifier, count: int = 1) -> torch.Tensor:
    """The true relevance of images of ones: the weights."""
    return classifier.module.weights.detach().view(1, 2, 3).expand(count, -1, -1)

"""Layer ablation and layer saliency of a HiT: the numbers per image, and their means."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from vitrail.core.types import Targets
from vitrail.datasets.dataset import Unreadable
from vitrail.viz.layers import Mean


class Ablation(NamedTuple):
    """A set of layers whose updates are kept; the others are left out of the sum.

    Attributes:
        kind: "first": the first k layers; "without_first": all but the first k; "single": layer k alone; "without": all but layer k.
        k: Number of layers, or index of the layer.
        kept: Indices of the kept layers.
    """

    kind: str
    k: int
    kept: tuple[int, ...]


class Contribution(NamedTuple):
    """The contribution of a layer to the logit of the predicted class, over images.

    Attributes:
        name: Index of the layer; "bias" for what no layer contributes; "logit" for the sum of all.
        value: Mean contribution.
        magnitude: Mean magnitude of the contribution.
    """

    name: str
    value: Mean
    magnitude: Mean


@dataclass(frozen=True)
class LayerReport:
    """Layer contributions to the predicted class of every image, and predictions without some of the layers.

    An ablation leaves updates out of the sum that is the final class token. The other updates stay those of the full forward pass: the
    network is not run again, where later layers would respond to a different class token.

    Attributes:
        model: Name of the model.
        ablations: The k sets of layers.
        paths: Name of every image.
        targets: Predicted class of every image.
        target_names: Its name.
        labels: Label of every image; None if labels are not known.
        label_names: Its name; None if labels are not known.
        no_labels: Why labels are not known; None if they are.
        confidence: Probability of the predicted class.
        logits: Logit of the predicted class.
        layers: Contribution of each layer's update to that logit.
        bias: The part of the logit that no layer contributes; layers and bias add up to the logit.
        predicted: Class that each ablation predicts; for a network of a single logit, -1 where its decision (yes or no) changes, else 0.
        probabilities: Probability that each ablation gives to the class predicted by the full model.
        completeness_error: Maximum over images of |sum of parts - logit| / largest |logit| of the image.
        unreadable: Files that were skipped.

    Source: Jeanneret, Simon, Jurie 2025, arXiv:2502.17196: accuracy by layers, and mean layer saliency.

    Differs: The contributions are exact, where the published code's are not for pooled networks and for positions; and saliency is that
        of the class predicted by the full model, not of the class predicted by the last ablation.
    """

    model: str
    ablations: Sequence[Ablation]
    paths: Sequence[str]
    targets: Targets
    target_names: Sequence[str]
    labels: Targets | None
    label_names: Sequence[str] | None
    no_labels: str | None
    confidence: Float[Tensor, " b"]
    logits: Float[Tensor, " b"]
    layers: Float[Tensor, "b l"]
    bias: Float[Tensor, " b"]
    predicted: Int[Tensor, "b k"]
    probabilities: Float[Tensor, "b k"]
    completeness_error: float
    unreadable: list[Unreadable]

    @property
    def num_layers(self) -> int:
        """Number of layers."""
        return self.layers.shape[1]

    def measures(self) -> dict[str, Float[Tensor, "b k"]]:
        """Return top1 (if labels are known), agreement and probability: a number from 0 to 1 per image and ablation."""
        return _measures(self.predicted, self.targets.unsqueeze(1), self.labels, self.probabilities)

    def whole(self) -> dict[str, Float[Tensor, " b"]]:
        """Return the same measures of the full model per image; its agreement with itself is 1."""
        whole = _measures(self.targets.unsqueeze(1), self.targets.unsqueeze(1), self.labels, self.confidence.unsqueeze(1))
        return {name: values[:, 0] for name, values in whole.items()}

    def mean(self, measure: str, kind: str) -> dict[int, Mean]:
        """Return the mean of a measure for every k of a kind of ablation."""
        values = self.measures()[measure]
        return {k: Mean.over_images(values[:, i]) for i, (name, k, _) in enumerate(self.ablations) if name == kind}

    def contributions(self) -> list[Contribution]:
        """Return the mean contribution of every layer, of the bias, and of the logit that they add up to."""
        parts = {str(layer): values for layer, values in enumerate(self.layers.T)} | {"bias": self.bias, "logit": self.logits}
        return [Contribution(name, Mean.over_images(values), Mean.over_images(values.abs())) for name, values in parts.items()]


def _measures(
    predicted: Int[Tensor, "b k"], targets: Int[Tensor, "b 1"], labels: Targets | None, probabilities: Float[Tensor, "b k"]
) -> dict[str, Float[Tensor, "b k"]]:
    accuracy = {} if labels is None else {"top1": (predicted == labels.unsqueeze(1)).float()}
    return {**accuracy, "agreement": (predicted == targets).float(), "probability": probabilities}

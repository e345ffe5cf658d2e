"""Insertion and deletion: does the score follow the patches that the map calls relevant?"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vitrail.adapters import Classifier
from vitrail.core.errors import InvalidInputError
from vitrail.core.outputs import Output
from vitrail.core.types import Images
from vitrail.explanation import Explanation
from vitrail.metrics.base import Again, ImageMetric, Measure, View, at_least_float32, check_place
from vitrail.metrics.curve_scores import measure
from vitrail.metrics.curves import Curves
from vitrail.metrics.protocols import Protocol
from vitrail.metrics.steps import Steps
from vitrail.metrics.undefined import describe_undefined

logger = logging.getLogger(__name__)


def perturbation_curves(classifier: Classifier, images: Images, explanation: Explanation, protocol: Protocol) -> Curves:
    """Measure the curves of a batch.

    Insertion starts from the baseline and brings in the image's cells; deletion starts from the image and takes them out.

    Args:
        classifier: The explained model.
        images: The explained images.
        explanation: Their relevance and targets.
        protocol: What to measure.

    Raises:
        InvalidInputError: Images elsewhere than the model, not one map an image, or maps that are not finite.
        UnsupportedModelError: Patches are to be taken out of a network that has none.

    Source: Petsiuk et al. 2018 (RISE), arXiv:1806.07421.
    """
    check_place(classifier, images)
    if len(explanation) != len(images):
        raise InvalidInputError(f"expected an explanation of {len(images)} images, got one of {len(explanation)}")
    relevance = explanation.relevance.to(images.device)
    with classifier.inspecting(), torch.no_grad():
        # All orders and directions in one call: an adapter may share work between them.
        found = [steps.logits(classifier, images, relevance) for steps in protocol_steps(protocol)]
    return assemble_curves(protocol, images, explanation, found, classifier.output)


def protocol_steps(protocol: Protocol) -> list[Steps]:
    """The steps of a protocol, baseline by baseline."""
    return [Steps(protocol, baseline, protocol.list_directions(baseline)) for baseline in protocol.baselines]


def assemble_curves(
    protocol: Protocol,
    images: Images,
    explanation: Explanation,
    found: Sequence[Float[Tensor, "b curves s c"]],
    output: Output = "softmax",
) -> Curves:
    """The curves, where what the model said is known.

    Args:
        protocol: What was measured.
        images: The explained images.
        explanation: Their relevance and targets.
        found: For each of `protocol_steps`, the logits of all points of its curves.
        output: What they mean, see `Classifier.output`.
    """
    targets, ends, scores = explanation.targets.to(images.device), list[Tensor](), list[Tensor]()
    for steps, said in zip(protocol_steps(protocol), found, strict=True):
        logits, (curve, point) = at_least_float32(said), steps.clean
        for score in protocol.scores:
            measured = measure(logits, logits[:, curve, point], targets, score, output)
            scores.append(measured[..., steps.on_curve])
            ends.append(steps.ends(measured))
    num_items = images[0, 0].numel() if protocol.unit == "pixels" else explanation.relevance[0].numel()
    fractions = protocol.fractions(num_items, scores[0])
    return Curves(protocol, fractions, torch.cat(scores, 1), torch.cat(ends, 1))


class InsertionDeletion(ImageMetric):
    """Areas under the curves of a protocol, over a data set; reduces over processes by itself.

    Which are better high and which low, `Curve.better` tells.

    Args:
        protocol: What to measure.

    Source: Petsiuk et al. 2018 (RISE), arXiv:1806.07421.
    """

    curve_scores: list[Tensor]
    curve_ends: list[Tensor]
    num_cells: Tensor

    def __init__(self, protocol: Protocol, **kwargs: Any) -> None:
        self.protocol = protocol
        self.measures = tuple(
            Measure(
                curve.name,
                curve.better,
                float("-inf") if curve.score == "logit" else 0.0,
                float("inf") if curve.score in ("logit", "kl") else protocol.largest_auc,
                f"area under the {curve.direction} curve ({curve.score}, {curve.baseline}, {curve.order} relevant first)",
            )
            for curve in protocol.curves
        )
        super().__init__(**kwargs)
        # Before the scores: where processes met other grids, that is to be said before their curves are put together.
        self.add_state("num_cells", default=torch.tensor(0), dist_reduce_fx=_one_grid)
        self.add_state("curve_scores", default=[], dist_reduce_fx="cat")
        self.add_state("curve_ends", default=[], dist_reduce_fx="cat")

    def measure(self, view: View, explanation: Explanation, again: Again | None = None) -> Float[Tensor, "b measures"]:
        return self.measure_curves(view, explanation).auc()

    def measure_curves(self, view: View, explanation: Explanation) -> Curves:
        """The curves of a batch."""
        return perturbation_curves(view.classifier, view.images, explanation, self.protocol)

    def update(
        self,
        classifier: Classifier,
        images: Images,
        explanation: Explanation,
        ground_truth: Tensor | None = None,
        again: Again | None = None,
    ) -> None:
        """Measure a batch.

        Raises:
            InvalidInputError: Its curves have other points than those before.
        """
        if self.protocol.cells_per_step is not None:
            num_cells = self.num_cells.new_tensor(explanation.relevance[0].numel())
            self.num_cells = _one_grid(torch.stack([self.num_cells, num_cells]))
        curves = perturbation_curves(classifier, images, explanation, self.protocol)
        self.curve_scores.append(curves.scores)
        self.curve_ends.append(curves.ends)
        self.values.append(curves.auc().to(self.values[0]))

    def curves(self) -> Curves:
        """All curves so far.

        Raises:
            InvalidInputError: Nothing was measured yet.
        """
        if not len(self.curve_scores):
            raise InvalidInputError("expected at least one measured image, got none")
        parts = (self.curve_scores, self.curve_ends)
        scores, ends = (torch.cat(list(part)) if isinstance(part, list) else part for part in parts)
        return Curves(self.protocol, self.protocol.fractions(int(self.num_cells), scores), scores, ends)

    def compute(self) -> dict[str, Tensor]:
        """`Curves.summary` of all images so far. A warning tells of how many images a mean leaves out."""
        curves = self.curves()
        raw = {name: count for name, count in curves.num_undefined().items() if name in curves.names}
        if words := describe_undefined(raw, len(curves.scores)):
            logger.warning("%s: %s", type(self).__name__, words)
        return {name: torch.tensor(area) for name, area in curves.summary().items()}


def _one_grid(num_cells: Int[Tensor, " some"]) -> Int[Tensor, ""]:
    """The number of cells that all agree on; 0 where nothing was measured, or any grid will do."""
    seen = num_cells[num_cells > 0].unique()
    if len(seen) > 1:
        raise InvalidInputError(
            f"expected maps of one grid, got some of {seen[0]} and some of {seen[1]} cells, whose curves have other points; "
            "score them apart, or by a protocol with num_steps"
        )
    return num_cells.amax()

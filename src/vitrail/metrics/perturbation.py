"""Insertion and deletion: how the score changes as the most relevant cells are inserted or deleted."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vitrail.adapters import Classifier
from vitrail.core.errors import InvalidInputError
from vitrail.core.float32 import at_least_float32
from vitrail.core.outputs import Output
from vitrail.core.progress import portion
from vitrail.core.types import Images
from vitrail.explanation import Explanation
from vitrail.metrics.base import ExplainFunction, ImageMetric, Measure, Measurements, MetricBatch, check_device
from vitrail.metrics.curves import Curves, score_logits
from vitrail.metrics.protocol import Protocol
from vitrail.metrics.steps import Steps
from vitrail.metrics.undefined import describe_undefined

logger = logging.getLogger(__name__)


def perturbation_curves(classifier: Classifier, images: Images, explanation: Explanation, protocol: Protocol) -> Curves:
    """Measure the curves of a batch.

    Insertion starts from the baseline and inserts the image's cells; deletion starts from the image and removes them.

    Args:
        classifier: The explained model.
        images: The explained images.
        explanation: Their relevance and targets.
        protocol: Which curves to measure.

    Raises:
        InvalidInputError: Images on another device than the model, another number of maps than images, or maps that are not finite.
        UnsupportedModelError: The baseline "removed" with a network that is no Vision Transformer.

    Source: Petsiuk et al. 2018 (RISE), arXiv:1806.07421.
    """
    check_device(classifier, images)
    if len(explanation) != len(images):
        raise InvalidInputError(f"expected an explanation of {len(images)} images, got one of {len(explanation)}")
    relevance = explanation.relevance.to(images.device)
    with classifier.inspecting(), torch.no_grad():
        # All orders and directions in one call, so that adapters can share work between them.
        all_steps, logits = protocol_steps(protocol), list[Tensor]()
        for i, steps in enumerate(all_steps):
            with portion(i, len(all_steps)):
                logits.append(steps.logits(classifier, images, relevance))
    return assemble_curves(protocol, images, explanation, logits, classifier.output)


def protocol_steps(protocol: Protocol) -> list[Steps]:
    """Return the steps of a protocol for each of its baselines."""
    return [Steps(protocol, baseline, protocol.list_directions(baseline)) for baseline in protocol.baselines]


def assemble_curves(
    protocol: Protocol,
    images: Images,
    explanation: Explanation,
    logits: Sequence[Float[Tensor, "b _ _ c"]],
    output: Output = "softmax",
) -> Curves:
    """Build the curves from the logits at all points.

    Args:
        protocol: The measured protocol.
        images: The explained images.
        explanation: Their relevance and targets.
        logits: For each of `protocol_steps`, the logits at all points of its curves.
        output: What logits mean, see `Classifier.output`.
    """
    targets, ends, scores = explanation.targets.to(images.device), list[Tensor](), list[Tensor]()
    for steps, step_logits in zip(protocol_steps(protocol), map(at_least_float32, logits), strict=True):
        curve, point = steps.clean
        for score in protocol.scores:
            step_scores = score_logits(step_logits, step_logits[:, curve, point], targets, score, output)
            scores.append(step_scores[..., steps.on_curve])
            ends.append(steps.ends(step_scores))
    num_items = images[0, 0].numel() if protocol.unit == "pixels" else explanation.relevance[0].numel()
    fractions = protocol.fractions(num_items, scores[0])
    return Curves(protocol, fractions, torch.cat(scores, 1), torch.cat(ends, 1))


class InsertionDeletion(ImageMetric):
    """The area under the curves of a protocol, averaged over a data set.

    `Curve.better` is the direction of every curve.

    Args:
        protocol: Which curves to measure.

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
        # Registered before the scores, so that processes with other grids fail before their curves are concatenated.
        self.add_state("num_cells", default=torch.tensor(0), dist_reduce_fx=_check_one_grid)
        self.add_state("curve_scores", default=[], dist_reduce_fx="cat")
        self.add_state("curve_ends", default=[], dist_reduce_fx="cat")

    def measure(self, batch: MetricBatch, explanation: Explanation, explainer: ExplainFunction | None = None) -> Measurements:
        return self.measure_curves(batch, explanation).auc()

    def measure_curves(self, batch: MetricBatch, explanation: Explanation) -> Curves:
        """Measure the curves of a batch."""
        return perturbation_curves(batch.classifier, batch.images, explanation, self.protocol)

    def _store(self, batch: MetricBatch, explanation: Explanation, explainer: ExplainFunction | None) -> None:
        """Store the curves as well; refuse other points than those of earlier batches."""
        if self.protocol.cells_per_step is not None:
            num_cells = self.num_cells.new_tensor(explanation.relevance[0].numel())
            self.num_cells = _check_one_grid(torch.stack([self.num_cells, num_cells]))
        curves = self.measure_curves(batch, explanation)
        self.curve_scores.append(curves.scores)
        self.curve_ends.append(curves.ends)
        self.values.append(curves.auc().to(self.values[0]))

    def curves(self) -> Curves:
        """Return the curves of all images.

        Raises:
            InvalidInputError: No image was measured.
        """
        if not len(self.curve_scores):
            raise InvalidInputError("expected at least one measured image, got none")
        states = (self.curve_scores, self.curve_ends)
        scores, ends = (torch.cat(list(state)) if isinstance(state, list) else state for state in states)
        return Curves(self.protocol, self.protocol.fractions(int(self.num_cells), scores), scores, ends)

    def compute(self) -> dict[str, Tensor]:
        """Return `Curves.summary` of all images. A warning reports how many images each mean leaves out."""
        curves = self.curves()
        raw = {name: count for name, count in curves.num_undefined().items() if name in curves.names}
        if message := describe_undefined(raw, len(curves.scores)):
            logger.warning("%s: %s", type(self).__name__, message)
        return {name: torch.tensor(auc) for name, auc in curves.summary().items()}


def _check_one_grid(num_cells: Int[Tensor, " some"]) -> Int[Tensor, ""]:
    """Return the number of cells if all agree; 0 if nothing was measured, or the protocol does not depend on the grid."""
    distinct = num_cells[num_cells > 0].unique()
    if len(distinct) > 1:
        raise InvalidInputError(
            f"expected maps of one grid, got some with {distinct[0]} and some with {distinct[1]} cells, whose curves have different "
            "points; score them separately, or use a protocol with num_steps"
        )
    return num_cells.amax()

"""The base class of metrics: one number per image and measure, with a direction, a range and a source."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchmetrics import Metric

from vitrail.adapters import Classifier
from vitrail.core.errors import InvalidInputError
from vitrail.core.float32 import at_least_float32
from vitrail.core.registry import Registry
from vitrail.core.types import Images, Logits, Relevance, Targets
from vitrail.explanation import Explanation
from vitrail.metrics.undefined import describe_undefined, replace_infinite

logger = logging.getLogger(__name__)

Better = Literal["higher", "lower"]

GroundTruthMasks = Bool[Tensor, "b height width"]
"""The pixels known to decide, at the size of the images; True = decides."""

Measurements = Float[Tensor, "b measures"]
"""One number per image and measure; NaN where a measure is undefined."""

ExplainFunction = Callable[[Images, Targets], Relevance]
"""The explained method, which some metrics call again: with other images, or while the model is changed."""


@runtime_checkable
class PatchReplacer(Protocol):
    """What the `masks` metric can use of a method, if the method has it."""

    gives_probabilities: ClassVar[bool]
    """Whether relevance is the probability of keeping a patch."""

    def placeholder_logits(self, images: Images, keep: Bool[Tensor, "b n"]) -> Logits | None:
        """Return logits with removed patches replaced by the method's own placeholder; None if it has none."""


T = TypeVar("T")


@dataclass(frozen=True)
class Measure:
    """One number per image.

    Attributes:
        name: Column name in tables.
        better: Which values are better; None for purely descriptive numbers.
        low, high: Smallest and largest possible value; may be infinite.
        description: One line, with the unit if there is one.
        depends_on_scale: Whether it changes with the scale of a map although the order of its cells does not: methods differ on it for
            reasons other than what they find, so that it has no say in a verdict.
    """

    name: str
    better: Better | None
    low: float
    high: float
    description: str
    depends_on_scale: bool = False


@dataclass(eq=False)
class MetricBatch:
    """A batch of images to measure, with a cache for results that several metrics or methods share.

    Attributes:
        classifier: The explained model.
        images: A normalized batch.
        ground_truth: The pixels known to decide, or None if unknown; all False in an image where nothing decides.
    """

    classifier: Classifier
    images: Images
    ground_truth: GroundTruthMasks | None = None
    _cache: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def cached(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return the result of `compute`, which is called once per batch and key."""
        if key not in self._cache:
            self._cache[key] = compute()
        return self._cache[key]

    @property
    def logits(self) -> Logits:
        """Logits of the unchanged images, in single precision or better."""

        def compute() -> Logits:
            with self.classifier.inspecting(), torch.no_grad():
                return at_least_float32(self.classifier.logits(self.images))

        return self.cached("logits", compute)

    @property
    def patch_grid(self) -> tuple[int, int]:
        """Rows and columns of the cells that `Classifier.perturbed_logits` takes."""
        return self.classifier.grid_size(self.images)


class ImageMetric(Metric, ABC):
    """Rates every image's map by one number per measure, and averages them over a data set.

    A metric implements `measure` and lists its `measures`. It is a torchmetrics `Metric`, so it synchronizes between processes.

    Attributes:
        paper: Where it was published: authors, year, arXiv number; several with semicolons.
        measures: The measures, in the order of their columns.
        needs_ground_truth: Whether it compares maps with ground truth.
        needs_method: Whether it calls the method again.
    """

    full_state_update = False
    higher_is_better = None  # depends on the measure
    paper: ClassVar[str] = ""
    needs_ground_truth: ClassVar[bool] = False
    needs_method: ClassVar[bool] = False
    measures: tuple[Measure, ...]
    values: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("values", default=[], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        super().reset()
        # Never an empty list: processes without images take part in gathering too.
        self.values = [torch.empty(0, len(self.measures), device=self.device)]

    @abstractmethod
    def measure(self, batch: MetricBatch, explanation: Explanation, explainer: ExplainFunction | None = None) -> Measurements:
        """Measure every image of a batch; NaN where a measure is undefined.

        Args:
            batch: The images, on the model's device.
            explanation: Their relevance and targets, on the same device.
            explainer: The method that explained them; given if the metric `needs_method`.
        """

    def update(
        self,
        classifier: Classifier,
        images: Images,
        explanation: Explanation,
        ground_truth: GroundTruthMasks | None = None,
        explainer: ExplainFunction | None = None,
    ) -> None:
        """Measure a batch and store the numbers.

        Args:
            classifier: The explained model.
            images: The explained images.
            explanation: Their relevance and targets.
            ground_truth: The pixels known to decide.
            explainer: The method that explained them.

        Raises:
            InvalidInputError: Images on another device than the model, another number of maps than images, maps that are not finite,
                or a missing argument that the metric needs.
        """
        self._store(MetricBatch(classifier, images, ground_truth), explanation, explainer)

    def _store(self, batch: MetricBatch, explanation: Explanation, explainer: ExplainFunction | None) -> None:
        self.values.append(self.measure_batch(batch, explanation, explainer).to(self.values[0]))

    def measure_batch(
        self, batch: MetricBatch, explanation: Explanation, explainer: ExplainFunction | None = None
    ) -> Measurements:
        """Check the arguments, then `measure` the batch.

        Raises:
            InvalidInputError: See `update`.
        """
        name = type(self).__name__
        check_device(batch.classifier, batch.images)
        if len(explanation) != len(batch.images):
            raise InvalidInputError(f"expected an explanation of {len(batch.images)} images, got one of {len(explanation)}")
        if not torch.isfinite(explanation.relevance).all():
            raise InvalidInputError("expected finite relevance, got NaN or infinite values")
        if self.needs_ground_truth and batch.ground_truth is None:
            raise InvalidInputError(f"expected ground_truth for {name}, which compares maps with it, got none")
        if self.needs_method and explainer is None:
            raise InvalidInputError(f"expected the method for {name}, which calls it again, got none; pass explainer=...")
        # Saved explanations are loaded on the CPU, wherever the model is.
        return self.measure(batch, explanation.to(batch.images.device), explainer)

    def per_image(self) -> Float[Tensor, "images measures"]:
        """Return the numbers of all images, in the order of the updates."""
        return torch.cat(self.values) if isinstance(self.values, list) else self.values

    def compute(self) -> dict[str, Tensor]:
        """Return the mean of every measure by name, over the images where it is defined; NaN if there are none.

        Infinite values count as undefined. A warning reports how many images each mean leaves out.

        Raises:
            InvalidInputError: No image was measured.
        """
        values = self.per_image()
        if not len(values):
            raise InvalidInputError("expected at least one measured image, got none")
        values, names = replace_infinite(values.cpu().double()), [measure.name for measure in self.measures]
        counts = dict(zip(names, values.isnan().sum(0).tolist(), strict=True))
        if message := describe_undefined(counts, len(values)):
            logger.warning("%s: %s", type(self).__name__, message)
        return dict(zip(names, values.nanmean(0), strict=True))


METRICS: Registry[type[ImageMetric]] = Registry("metric")
"""Metrics by name; insertion and deletion curves are named by `vitrail.metrics.protocols.PROTOCOLS`."""


def check_outputs(classifier: Classifier) -> None:
    """Check that a model has outputs to measure.

    Raises:
        InvalidInputError: It gives an embedding.
    """
    if classifier.output == "embedding":
        raise InvalidInputError(
            f"expected a model with classes or values to measure, got {classifier.name}, which gives an embedding; give it classes by "
            "prompts, reference images, a probe or a direction (vitrail.similarity, or --prompts, --references, --probe)"
        )


def check_device(classifier: Classifier, images: Images) -> None:
    """Check that a model has outputs to measure, and images on its device.

    Raises:
        InvalidInputError: It gives an embedding, or the images are elsewhere.
    """
    check_outputs(classifier)
    if images.device != classifier.device:
        raise InvalidInputError(
            f"expected images on {classifier.device}, like the model, got images on {images.device}; move them with "
            "images.to(model.device)"
        )


def check_seed(seed: int) -> None:
    """Check for a seed that torch accepts.

    Raises:
        InvalidInputError: It is no whole number from 0 to 2^63 - 1.
    """
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise InvalidInputError(f"expected seed as a whole number of at least 0 and below 2^63, got {seed!r}")

"""What a metric of explanations is: numbers per image, each with a direction, a range and a source."""

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
from vitrail.core.registry import Registry
from vitrail.core.types import Images, Logits, Relevance, Targets
from vitrail.explanation import Explanation
from vitrail.metrics.undefined import defined_only, describe_undefined

logger = logging.getLogger(__name__)

Better = Literal["higher", "lower"]

Answers = Bool[Tensor, "b height width"]
"""What is known to decide, in the pixels that the maps cover; True = it decides."""

Again = Callable[[Images, Targets], Relevance]
"""The method that made an explanation, to be asked once more: of other images, or of the model while it is changed."""


@runtime_checkable
class Replacing(Protocol):
    """What the metric of masks asks of a method besides, if it can tell."""

    gives_probabilities: ClassVar[bool]
    """Whether relevance is the probability that a patch is to be kept."""

    def logits_without(self, images: Images, keep: Bool[Tensor, "b n"]) -> Logits | None:
        """Logits where removed patches are what the method itself puts in their place, or None where it has nothing."""


T = TypeVar("T")


@dataclass(frozen=True)
class Measure:
    """One number per image.

    Attributes:
        name: Its column in tables.
        better: What speaks for the map; None for what only describes it.
        low: Its smallest possible value; may be -inf.
        high: Its largest possible value; may be inf.
        description: One line, with the unit where there is one.
    """

    name: str
    better: Better | None
    low: float
    high: float
    description: str


@dataclass(eq=False)
class View:
    """A batch as metrics see it. What several metrics or methods need is computed once.

    Attributes:
        classifier: The explained model.
        images: A normalized batch.
        ground_truth: What is known to decide, or None where nobody knows. An image without any has an empty answer.
    """

    classifier: Classifier
    images: Images
    ground_truth: Answers | None = None
    _known: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """What `compute` returns; under the same key it is called once a batch."""
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]

    @property
    def logits(self) -> Logits:
        """Of the images as they are, in single precision or better; from one forward pass."""

        def compute() -> Logits:
            with self.classifier.inspecting(), torch.no_grad():
                return at_least_float32(self.classifier.logits(self.images))

        return self.once("logits", compute)

    @property
    def patch_grid(self) -> tuple[int, int]:
        """Rows and columns of the cells that `Classifier.perturbed_logits` takes."""
        return self.classifier.grid_size(self.images)


class ImageMetric(Metric, ABC):
    """Numbers per image that say how good its map is; over a data set their means. Reduces over processes by itself.

    A metric writes `measure` and names what it gives in `measures`. It sees explanations and the model, never a method.

    Attributes:
        measures: What it gives, in the order of its columns.
        needs_ground_truth: Whether it compares maps with what is known to decide.
        needs_method: Whether it asks the method once more.
    """

    full_state_update = False
    higher_is_better = None  # One or the other, by measure.
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
        # Never an empty list: a process that had no image takes part in gathering too.
        self.values = [torch.empty(0, len(self.measures), device=self.device)]

    @abstractmethod
    def measure(self, view: View, explanation: Explanation, again: Again | None = None) -> Float[Tensor, "b measures"]:
        """Measure every image of a batch; NaN where a measure is undefined.

        Args:
            view: The batch; its images are where the model is.
            explanation: Their maps and explained classes, on the same device.
            again: The method that made them; only for a metric that `needs_method`.
        """

    def update(
        self,
        classifier: Classifier,
        images: Images,
        explanation: Explanation,
        ground_truth: Answers | None = None,
        again: Again | None = None,
    ) -> None:
        """Measure a batch and remember the numbers.

        Args:
            classifier: The explained model.
            images: The explained images.
            explanation: Their relevance and targets.
            ground_truth: What is known to decide.
            again: The method that made the explanation, an `Explainer`.

        Raises:
            InvalidInputError: Images elsewhere than the model, not one map an image, maps that are not finite, or something missing
                that the metric needs.
        """
        found = self.checked(View(classifier, images, ground_truth), explanation, again)
        self.values.append(found.to(self.values[0]))

    def checked(self, view: View, explanation: Explanation, again: Again | None = None) -> Float[Tensor, "b measures"]:
        """`measure`, of what can be measured.

        Raises:
            InvalidInputError: As `update` does.
        """
        name = type(self).__name__
        check_place(view.classifier, view.images)
        if len(explanation) != len(view.images):
            raise InvalidInputError(f"expected an explanation of {len(view.images)} images, got one of {len(explanation)}")
        if not torch.isfinite(explanation.relevance).all():
            raise InvalidInputError("expected finite relevance, got NaN or infinite values")
        if self.needs_ground_truth and view.ground_truth is None:
            raise InvalidInputError(
                f"expected ground_truth for {name}, which compares maps with what is known to decide, got none"
            )
        if self.needs_method and again is None:
            raise InvalidInputError(f"expected the method for {name}, which asks it once more, got none; give again=...")
        # A saved explanation comes back on the CPU, wherever its model is.
        return self.measure(view, explanation.to(view.images.device), again)

    def per_image(self) -> Float[Tensor, "images measures"]:
        """The numbers of all images so far, in the order in which they came."""
        return torch.cat(self.values) if isinstance(self.values, list) else self.values

    def compute(self) -> dict[str, Tensor]:
        """Means over the images where a measure is defined, by name; NaN where it is nowhere.

        What is infinite counts as undefined. A warning tells of how many images a mean leaves out.

        Raises:
            InvalidInputError: Nothing was measured yet.
        """
        values = self.per_image()
        if not len(values):
            raise InvalidInputError("expected at least one measured image, got none")
        values, names = defined_only(values.cpu().double()), [each.name for each in self.measures]
        counts = dict(zip(names, values.isnan().sum(0).tolist(), strict=True))
        if words := describe_undefined(counts, len(values)):
            logger.warning("%s: %s", type(self).__name__, words)
        return dict(zip(names, values.nanmean(0), strict=True))


METRICS: Registry[type[ImageMetric]] = Registry("metric")
"""Metrics by name; those of the curves of a protocol are in `vitrail.metrics.protocols.PROTOCOLS`."""


def check_place(classifier: Classifier, images: Images) -> None:
    """Refuse images that lie elsewhere than the model.

    Raises:
        InvalidInputError: They do.
    """
    if images.device != classifier.device:
        raise InvalidInputError(
            f"expected images on {classifier.device}, as the model is, got images on {images.device}; bring them there by "
            "images.to(model.device)"
        )


def check_seed(seed: int) -> None:
    """Refuse what torch cannot take for a seed.

    Raises:
        InvalidInputError: It is no whole number from 0 up to 2^63.
    """
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise InvalidInputError(f"expected seed as a whole number of at least 0 and below 2^63, got {seed!r}")


def at_least_float32(values: Tensor) -> Tensor:
    """Half precision is for networks: areas and divergences are sums of many numbers."""
    return values.to(torch.promote_types(values.dtype, torch.float32))

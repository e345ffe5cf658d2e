"""Whether a map stays when its image hardly changes."""

import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from vitrail.core.errors import InvalidInputError
from vitrail.core.outputs import decisions
from vitrail.core.types import Images
from vitrail.explanation import Explanation
from vitrail.metrics.base import METRICS, Again, ImageMetric, Measure, View, at_least_float32, check_seed
from vitrail.metrics.similarity import check_share, spearman, top_overlap


@METRICS.register("max-sensitivity")
@final
class MaxSensitivity(ImageMetric):
    """How far a map can move, relative to its length, when every pixel moves a little. Asks the method once a sample.

    The target stays. A map that is zero everywhere has no length to compare with: NaN.

    Args:
        radius: How far a pixel moves at most, in units of the normalized image; uniform in a cube, as in captum and Quantus.
        num_samples: How many moved images; more of them can only raise the measure.
        seed: Of the moves, which are the same for all images of a shape.

    Source: Yeh et al. 2019, arXiv:1901.09392, definition of SENS_MAX, estimated by sampling.

    Differs: As captum and Quantus, divided by the Frobenius norm of the map, so that its scale does not count. captum leaves
    maps of norm zero undivided.
    """

    needs_method: ClassVar[bool] = True
    measures = (
        Measure("max_sensitivity", "lower", 0.0, math.inf, "largest change of the map under small noise, over its norm"),
    )

    def __init__(self, radius: float = 0.02, num_samples: int = 10, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _check_positive("radius", radius)
        _check_samples(num_samples)
        check_seed(seed)
        self.radius, self.num_samples, self.seed = radius, num_samples, seed

    def measure(self, view: View, explanation: Explanation, again: Again | None = None) -> Float[Tensor, "b measures"]:
        original = at_least_float32(explanation.relevance)
        # To a largest number of 1: squares of tiny or huge ones are no numbers of single precision.
        unit = original.abs().amax((1, 2), keepdim=True).clamp_min(torch.finfo(original.dtype).tiny)
        length = (original / unit).flatten(1).norm(dim=1)
        furthest = torch.zeros_like(length)
        for noise in noises(view.images, self.num_samples, self.seed, torch.rand):
            moved = view.images + (2 * noise - 1).mul(self.radius).to(view.images)
            found = again(moved, explanation.targets)  # type: ignore[misc]  # `checked` made sure
            furthest = furthest.maximum(((found.to(original) - original) / unit).flatten(1).norm(dim=1))
        return (furthest / length.masked_fill(length == 0, torch.nan)).unsqueeze(1)


@METRICS.register("stability")
@final
class Stability(ImageMetric):
    """How alike the maps of an image and of the image under Gaussian noise are. Asks method and model once a sample.

    The target stays, also where noise changes what the model predicts: `same_class` tells how often it does not. Each measure
    is the mean over the samples where it is defined; NaN where it is nowhere, as for constant maps.

    Args:
        noise: Standard deviation of the noise, in units of the normalized image.
        num_samples: How many noisy images.
        seed: Of the noise, which is the same for all images of a shape.
        share: How many of the cells count as the top, at least one.

    Source: local stability as in Alvarez-Melis & Jaakkola 2018, arXiv:1806.08049, with rank correlation and the overlap of the
    top features as in Ghorbani et al. 2019, arXiv:1710.10547.

    Differs: Random noise, not the worst that can be found; overlap is intersection over union, not over size.
    """

    needs_method: ClassVar[bool] = True
    measures = (
        Measure("spearman", "higher", -1.0, 1.0, "rank correlation with the maps of noisy images"),
        Measure("top_overlap", "higher", 0.0, 1.0, "intersection over union of the top cells with those of noisy images"),
        Measure("same_class", None, 0.0, 1.0, "share of noisy images of which the decision stays"),
    )

    def __init__(self, noise: float = 0.1, num_samples: int = 5, seed: int = 0, share: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _check_positive("noise", noise)
        _check_samples(num_samples)
        check_share(share)
        check_seed(seed)
        self.noise, self.num_samples, self.seed, self.share = noise, num_samples, seed, share

    def measure(self, view: View, explanation: Explanation, again: Again | None = None) -> Float[Tensor, "b measures"]:
        original, predicted, found = at_least_float32(explanation.relevance), decisions(view.logits), []
        for noise in noises(view.images, self.num_samples, self.seed, torch.randn):
            noisy = view.images + noise.mul(self.noise).to(view.images)
            relevance = again(noisy, explanation.targets).to(original)  # type: ignore[misc]  # `checked` made sure
            with view.classifier.inspecting(), torch.no_grad():
                logits = view.classifier.logits(noisy)
            same = (decisions(logits) == predicted).to(original).where(logits.isfinite().all(-1), torch.nan)
            alike = spearman(original, relevance), top_overlap(original, relevance, self.share)
            found.append(torch.stack([*(each.to(original) for each in alike), same], 1))
        return torch.stack(found).nanmean(0)


def noises(
    images: Images, num_samples: int, seed: int, draw: Callable[..., Tensor]
) -> Iterator[Float[Tensor, "c height width"]]:
    """Noise of the shape of one image, on the CPU, the same for every image: what it is set beside does not matter.

    Args:
        images: Whose shape it has.
        num_samples: How many; the first are the same, however many follow.
        seed: Another seed, another noise.
        draw: `torch.rand` or `torch.randn`.
    """
    generator = torch.Generator().manual_seed(seed)
    for _ in range(num_samples):
        yield draw(images.shape[1:], generator=generator, device="cpu", dtype=torch.float32)


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise InvalidInputError(f"expected a {name} above 0, in units of the normalized image, got {value}")


def _check_samples(num_samples: int) -> None:
    if num_samples < 1:
        raise InvalidInputError(f"expected at least 1 sample, got {num_samples}")

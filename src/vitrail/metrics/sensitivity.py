"""Robustness: how much a map changes under small changes of its image."""

import math
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from vitrail.core.errors import InvalidInputError
from vitrail.core.float32 import at_least_float32
from vitrail.core.outputs import same_decision
from vitrail.core.types import Images
from vitrail.explanation import Explanation
from vitrail.metrics.base import METRICS, ExplainFunction, ImageMetric, Measure, Measurements, MetricBatch, check_seed
from vitrail.metrics.similarity import check_share, spearman, top_overlap


@METRICS.register("max-sensitivity")
@final
class MaxSensitivity(ImageMetric):
    """Largest change of a map under small uniform noise, relative to its norm. Calls the method once per sample.

    The target stays the same. NaN for a map of zeros.

    Args:
        radius: Largest change of a pixel, in units of the normalized image; uniform in a cube, as in captum and Quantus.
        num_samples: Number of noisy images; more of them can only increase the measure.
        seed: Seed of the noise, which is the same for all images of a shape.

    Source: Yeh et al. 2019, arXiv:1901.09392, definition of SENS_MAX, estimated by sampling.

    Differs: divided by the Frobenius norm of the map, as in captum and Quantus, so that its scale does not matter. captum does not
    divide maps of norm zero.
    """

    paper: ClassVar[str] = "Yeh et al. 2019, arXiv:1901.09392"
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

    def measure(self, batch: MetricBatch, explanation: Explanation, explainer: ExplainFunction | None = None) -> Measurements:
        original = at_least_float32(explanation.relevance)
        # Scale the largest number to 1, since squares of tiny or huge numbers leave the range of float32.
        unit = original.abs().amax((1, 2), keepdim=True).clamp_min(torch.finfo(original.dtype).tiny)
        length = (original / unit).flatten(1).norm(dim=1)
        largest = torch.zeros_like(length)
        for noise in draw_noise(batch.images, self.num_samples, self.seed, torch.rand):
            noisy = batch.images + (2 * noise - 1).mul(self.radius).to(batch.images)
            relevance = explainer(noisy, explanation.targets)  # type: ignore[misc]  # `measure_batch` checks
            largest = largest.maximum(((relevance.to(original) - original) / unit).flatten(1).norm(dim=1))
        return (largest / length.masked_fill(length == 0, torch.nan)).unsqueeze(1)


@METRICS.register("stability")
@final
class Stability(ImageMetric):
    """Similarity of the maps of an image and of the image with Gaussian noise. Calls method and model once per sample.

    The target stays the same, even if the noise changes the prediction; `same_class` is how often the prediction stays. Every
    measure is the mean over the samples where it is defined; NaN if there are none, as for constant maps.

    Args:
        noise: Standard deviation of the noise, in units of the normalized image.
        num_samples: Number of noisy images.
        seed: Seed of the noise, which is the same for all images of a shape.
        share: Share of the cells that count as top cells, at least one.

    Source: local stability as in Alvarez-Melis & Jaakkola 2018, arXiv:1806.08049, with rank correlation and the overlap of the
    top features as in Ghorbani et al. 2019, arXiv:1710.10547.

    Differs: random noise instead of the worst case; overlap is intersection over union instead of intersection over size.
    """

    paper: ClassVar[str] = "Alvarez-Melis and Jaakkola 2018, arXiv:1806.08049; Ghorbani et al. 2019, arXiv:1710.10547"
    needs_method: ClassVar[bool] = True
    measures = (
        Measure("spearman", "higher", -1.0, 1.0, "rank correlation with the maps of noisy images"),
        Measure("top_overlap", "higher", 0.0, 1.0, "intersection over union of the top cells with those of noisy images"),
        Measure("same_class", None, 0.0, 1.0, "share of noisy images with the same prediction"),
    )

    def __init__(self, noise: float = 0.1, num_samples: int = 5, seed: int = 0, share: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _check_positive("noise", noise)
        _check_samples(num_samples)
        check_share(share)
        check_seed(seed)
        self.noise, self.num_samples, self.seed, self.share = noise, num_samples, seed, share

    def measure(self, batch: MetricBatch, explanation: Explanation, explainer: ExplainFunction | None = None) -> Measurements:
        original, predicted, samples = at_least_float32(explanation.relevance), batch.logits, []
        for noise in draw_noise(batch.images, self.num_samples, self.seed, torch.randn):
            noisy = batch.images + noise.mul(self.noise).to(batch.images)
            relevance = explainer(noisy, explanation.targets).to(original)  # type: ignore[misc]  # `measure_batch` checks
            with batch.classifier.inspecting(), torch.no_grad():
                logits = batch.classifier.logits(noisy)
            same = same_decision(logits, predicted, batch.classifier.output).to(original)
            same = same.where(logits.isfinite().all(-1), torch.nan)
            similarities = spearman(original, relevance), top_overlap(original, relevance, self.share)
            samples.append(torch.stack([*(values.to(original) for values in similarities), same], 1))
        return torch.stack(samples).nanmean(0)


def draw_noise(
    images: Images, num_samples: int, seed: int, draw: Callable[..., Tensor]
) -> Iterator[Float[Tensor, "c height width"]]:
    """Yield noise with the shape of one image, on the CPU; all images of a batch share it, so results do not depend on the batch.

    Args:
        images: A batch of the wanted shape.
        num_samples: Number of samples; the first ones do not depend on it.
        seed: Seed of the noise.
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

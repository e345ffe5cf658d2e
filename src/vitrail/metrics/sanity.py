"""Sanity checks: does the map depend on the model's weights, and on the class?"""

from contextlib import ExitStack
from itertools import pairwise
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from vitrail.adapters import Classifier, ViTAdapter
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.hooks import shuffled
from vitrail.core.types import Targets
from vitrail.explanation import Explanation
from vitrail.metrics.base import METRICS, ExplainFunction, ImageMetric, Measure, Measurements, MetricBatch, check_seed
from vitrail.metrics.similarity import spearman


class _SanityCheck(ImageMetric):
    """Abstract: compares a map with others of the same method, as random numbers choose them."""

    needs_method: ClassVar[bool] = True

    def __init__(self, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_seed(seed)
        self.seed = seed


@METRICS.register("parameter-randomization")
@final
class ParameterRandomization(_SanityCheck):
    """Rank correlation between a map and the maps of the same model with shuffled weights.

    Cascading, from the head down: shuffle the head, then also the upper quarter of the blocks, half, three quarters (rounded up), then
    all weights. Independent: shuffle each quarter of the blocks alone. Maps are compared with their signs, for the same targets. A
    map that does not change does not depend on the shuffled weights. A change does not prove a map right, and its size also depends
    on the model, whose residual stream bypasses shuffled blocks, and on noise in the map (Hedström et al. 2024, arXiv:2401.06465):
    compare methods on one model, and with `random`, which fails.

    NaN if a map is constant; the mean is over the quarters where it is defined. Calls the method up to nine times. The weights are
    restored bit by bit; meanwhile they take twice the memory, and nothing else may use the model.

    Args:
        seed: Seed of the shuffling, which is the same for all images and steps.

    Source: Adebayo et al. 2018, arXiv:1810.03292, model parameter randomization test.

    Differs: shuffles the numbers of every parameter instead of drawing new ones, since a trained network does not record how it was
    initialized. This keeps their scale; a parameter of equal numbers (a norm before training) does not change. Randomizes whole
    blocks, by quarters. Targets stay the same, as in Quantus.
    """

    paper: ClassVar[str] = "Adebayo et al. 2018, arXiv:1810.03292"
    measures = (
        Measure("cascading_head", "lower", -1.0, 1.0, "rank correlation with the map after shuffling the head"),
        Measure("cascading_25", "lower", -1.0, 1.0, "also shuffling the upper quarter of the blocks"),
        Measure("cascading_50", "lower", -1.0, 1.0, "also shuffling the upper half of the blocks"),
        Measure("cascading_75", "lower", -1.0, 1.0, "also shuffling the upper three quarters of the blocks"),
        Measure("cascading_100", "lower", -1.0, 1.0, "shuffling all weights, including the embedding"),
        Measure("independent_mean", "lower", -1.0, 1.0, "shuffling one quarter of the blocks, mean over the quarters"),
    )

    def measure(self, batch: MetricBatch, explanation: Explanation, explainer: ExplainFunction | None = None) -> Measurements:
        parts = group_parameters_by_depth(batch.classifier)[::-1]
        # Part 0 is the head, then the blocks from the last to the first, then the embedding.
        num_blocks = len(parts) - 2
        ends = [1, *(1 - (-num_blocks * quarter // 4) for quarter in range(1, 5))]

        def shuffle(stack: ExitStack, start: int, end: int) -> None:
            for i in range(start, end):
                # Generators use 32 bits of their seed, so the two numbers are mixed instead of concatenated.
                stack.enter_context(shuffled(parts[i], (self.seed * 1_000_003 + i) % 2**32))

        def correlate() -> Tensor:
            relevance = explainer(batch.images, explanation.targets)  # type: ignore[misc]  # `measure_batch` checks
            return spearman(explanation.relevance, relevance.to(explanation.relevance))

        cascading: list[Tensor] = []
        independent: list[Tensor] = []
        with ExitStack() as stack:
            for start, end in pairwise([0, *ends[:-1], len(parts)]):
                shuffle(stack, start, end)
                # With fewer than four blocks some quarters are empty.
                cascading.append(correlate() if end > start else cascading[-1])
        for start, end in pairwise(ends):
            if end > start:
                with ExitStack() as stack:
                    shuffle(stack, start, end)
                    independent.append(correlate())
        return torch.stack([*cascading, torch.stack(independent).nanmean(0)], 1)


@METRICS.register("random-logit")
@final
class RandomLogit(_SanityCheck):
    """Rank correlation between the map of the target and that of a random other class. Calls the method once.

    A map that does not change does not depend on the class. NaN for a model with one class, and for constant maps.

    Args:
        seed: Seed of the choice; a target is always compared with the same other class.

    Source: Sixt et al. 2020, arXiv:1912.09818, random logit; also in Quantus.

    Differs: rank correlation instead of structural similarity, which needs maps with many pixels.
    """

    paper: ClassVar[str] = "Sixt et al. 2020, arXiv:1912.09818"
    measures = (Measure("random_logit", "lower", -1.0, 1.0, "rank correlation with the map of another class"),)

    def measure(self, batch: MetricBatch, explanation: Explanation, explainer: ExplainFunction | None = None) -> Measurements:
        num_classes = batch.classifier.num_classes
        if num_classes < 2:
            return torch.full((len(explanation), 1), torch.nan, device=batch.images.device)
        classes = draw_other_classes(explanation.targets, num_classes, self.seed)
        relevance = explainer(batch.images, classes)  # type: ignore[misc]  # `measure_batch` checks
        return spearman(explanation.relevance, relevance.to(explanation.relevance)).unsqueeze(1)


def draw_other_classes(targets: Targets, num_classes: int, seed: int) -> Targets:
    """Draw another class for every target, uniformly; equal targets get equal classes.

    Args:
        targets: The explained classes.
        num_classes: Number of classes of the model, at least 2.
        seed: Seed of the choice.
    """
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randint(1, num_classes, (num_classes,), generator=generator, device="cpu").to(targets.device)
    return (targets + steps[targets]) % num_classes


def group_parameters_by_depth(classifier: Classifier) -> list[list[nn.Parameter]]:
    """Group all parameters of a ViT: those of the embedding, then of every block, then of the head.

    The order of registration places parameters outside of blocks: before the blocks is the embedding (with positions shared by
    blocks), after them the head; between two blocks, a parameter belongs to the next one.

    Raises:
        UnsupportedModelError: No Vision Transformer, or a head that is not registered after the blocks.
    """
    if not isinstance(classifier, ViTAdapter):
        raise UnsupportedModelError(
            f"parameter-randomization cannot measure {classifier.name}: expected a Vision Transformer, whose blocks are shuffled "
            f"one after another, got {type(classifier).__name__}; leave this metric out"
        )
    block_of = {parameter: i for i, block in enumerate(classifier.blocks, 1) for parameter in block.parameters()}
    parts: list[list[nn.Parameter]] = [[] for _ in range(len(classifier.blocks) + 2)]
    depth = len(parts) - 1
    for parameter in reversed(list(classifier.module.parameters())):
        if parameter in block_of:
            depth = block_of[parameter]
        is_embedding = depth == 1 and parameter not in block_of
        parts[0 if is_embedding else depth].append(parameter)
    if not parts[-1]:
        raise UnsupportedModelError(
            f"parameter-randomization cannot measure {classifier.name}: expected parameters of a head after those of the blocks, "
            "got none; register the head after the blocks, or leave this metric out"
        )
    return parts

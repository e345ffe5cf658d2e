"""Whether a map looks at the model at all, and at the class it is asked about."""

from contextlib import ExitStack
from itertools import pairwise
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vitrail.adapters import Classifier, ViTAdapter
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.hooks import shuffled
from vitrail.core.types import Targets
from vitrail.explanation import Explanation
from vitrail.metrics.base import METRICS, Again, ImageMetric, Measure, View, check_seed
from vitrail.metrics.similarity import spearman


@METRICS.register("parameter-randomization")
@final
class ParameterRandomization(ImageMetric):
    """Rank correlation of a map with the maps of the same model after parts of it lost what they had learned.

    Cascading, from the head down: the head alone, then with the upper quarter of the blocks, half, three quarters (where they
    cannot be split evenly, the block more), then everything. Independent: every quarter of the blocks alone. Maps are compared
    with their signs; the targets stay. A map that does not change does not look at what was lost. That a map changes does not
    make it true, and how much it does hangs on the model as well, whose residual stream goes around what was lost, and on noise
    in the map (Hedström et al. 2024, arXiv:2401.06465): compare methods on one model, beside `random` as one that fails.

    NaN where a map is constant; the mean is over the quarters where it is not. Asks the method up to nine times. The model's
    weights are exact to the bit afterwards; meanwhile it holds them twice, and nobody else may use it.

    Args:
        seed: Of the shuffling, which is the same for all images and in all steps.

    Source: Adebayo et al. 2018, arXiv:1810.03292, model parameter randomization test.

    Differs: The numbers of every parameter are shuffled among themselves, not drawn anew from what it was initialized with,
    which a trained network does not tell. They keep their scale; a parameter of equal numbers (of a norm before training)
    stays. Layers are whole blocks, by quarters. Targets are held; Quantus as well.
    """

    needs_method: ClassVar[bool] = True
    measures = (
        Measure("cascading_head", "lower", -1.0, 1.0, "rank correlation with the map after the head was shuffled"),
        Measure("cascading_25", "lower", -1.0, 1.0, "the same with the upper quarter of the blocks"),
        Measure("cascading_50", "lower", -1.0, 1.0, "the same with the upper half of the blocks"),
        Measure("cascading_75", "lower", -1.0, 1.0, "the same with the upper three quarters of the blocks"),
        Measure("cascading_100", "lower", -1.0, 1.0, "the same with everything, the embedding too"),
        Measure("independent_mean", "lower", -1.0, 1.0, "the same after one quarter of the blocks, mean over the quarters"),
    )

    def __init__(self, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_seed(seed)
        self.seed = seed

    def measure(self, view: View, explanation: Explanation, again: Again | None = None) -> Float[Tensor, "b measures"]:
        parts = parameters_by_depth(view.classifier)[::-1]
        # Part 0 is the head, then come the blocks, the last first, then the embedding.
        num_blocks = len(parts) - 2
        ends = [1, *(1 - (-num_blocks * quarter // 4) for quarter in range(1, 5))]

        def shuffle(stack: ExitStack, start: int, end: int) -> None:
            for i in range(start, end):
                # The generator reads 32 bits of its seed: mix, do not append.
                stack.enter_context(shuffled(parts[i], (self.seed * 1_000_003 + i) % 2**32))

        def alike() -> Tensor:
            found = again(view.images, explanation.targets)  # type: ignore[misc]  # `checked` made sure
            return spearman(explanation.relevance, found.to(explanation.relevance))

        cascading: list[Tensor] = []
        independent: list[Tensor] = []
        with ExitStack() as stack:
            for start, end in pairwise([0, *ends[:-1], len(parts)]):
                shuffle(stack, start, end)
                # Of fewer than four blocks some quarters are empty.
                cascading.append(alike() if end > start else cascading[-1])
        for start, end in pairwise(ends):
            if end > start:
                with ExitStack() as stack:
                    shuffle(stack, start, end)
                    independent.append(alike())
        return torch.stack([*cascading, torch.stack(independent).nanmean(0)], 1)


@METRICS.register("random-logit")
@final
class RandomLogit(ImageMetric):
    """Rank correlation of the map of a class with that of another, drawn at random. Asks the method once.

    A map that does not change does not look at the class. NaN for a model of one class, and where a map is constant.

    Args:
        seed: Of the drawing: the same target always meets the same other class.

    Source: Sixt et al. 2020, arXiv:1912.09818, random logit; Quantus measures it as well.

    Differs: Rank correlation; there structural similarity, which wants maps of many pixels.
    """

    needs_method: ClassVar[bool] = True
    measures = (Measure("random_logit", "lower", -1.0, 1.0, "rank correlation with the map of another class"),)

    def __init__(self, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_seed(seed)
        self.seed = seed

    def measure(self, view: View, explanation: Explanation, again: Again | None = None) -> Float[Tensor, "b measures"]:
        num_classes = view.classifier.num_classes
        if num_classes < 2:
            return torch.full((len(explanation), 1), torch.nan, device=view.images.device)
        others = other_classes(explanation.targets, num_classes, self.seed)
        found = again(view.images, others)  # type: ignore[misc]  # `checked` made sure
        return spearman(explanation.relevance, found.to(explanation.relevance)).unsqueeze(1)


def other_classes(targets: Targets, num_classes: int, seed: int) -> Targets:
    """Another class for every target, uniform among the rest; it depends on the target, not on its place in the batch.

    Args:
        targets: The explained classes.
        num_classes: Of the model, at least 2.
        seed: Another seed, other classes.
    """
    generator = torch.Generator().manual_seed(seed)
    steps = torch.randint(1, num_classes, (num_classes,), generator=generator, device="cpu").to(targets.device)
    return (targets + steps[targets]) % num_classes


def parameters_by_depth(classifier: Classifier) -> list[list[nn.Parameter]]:
    """All parameters of a ViT: the embedding's, then every block's, then the head's.

    A parameter in no block goes by where the network has registered it: before the blocks is embedding (positions that blocks
    share too), behind them is head; between two it belongs to the one it leads to.

    Raises:
        UnsupportedModelError: No Vision Transformer, or one whose head is not behind its blocks.
    """
    if not isinstance(classifier, ViTAdapter):
        raise UnsupportedModelError(
            f"parameter-randomization cannot measure {classifier.name}: expected a Vision Transformer, whose blocks it shuffles "
            f"one after the other, got {type(classifier).__name__}; leave this metric out"
        )
    block_of = {parameter: i for i, block in enumerate(classifier.blocks, 1) for parameter in block.parameters()}
    parts: list[list[nn.Parameter]] = [[] for _ in range(len(classifier.blocks) + 2)]
    depth = len(parts) - 1
    for parameter in reversed(list(classifier.module.parameters())):
        if parameter in block_of:
            depth = block_of[parameter]
        leads_in = depth == 1 and parameter not in block_of
        parts[0 if leads_in else depth].append(parameter)
    if not parts[-1]:
        raise UnsupportedModelError(
            f"parameter-randomization cannot measure {classifier.name}: expected parameters of a head behind those of the blocks, "
            "got none; register the head after the blocks, or leave this metric out"
        )
    return parts

"""Greedy: the order of patches that is found by trying every remaining patch at every step, a ceiling for other methods."""

from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from vitrail.core.errors import InvalidInputError
from vitrail.core.float32 import at_least_float32
from vitrail.core.outputs import probabilities, select_targets
from vitrail.core.types import Images, Keep
from vitrail.explainers._greedy import find_order
from vitrail.explainers._presence import PresenceExplainer, choose_baseline, presence_logits
from vitrail.explainers.base import EXPLAINERS, Attribution, ChooseTargets


@EXPLAINERS.register("greedy")
@final
@dataclass(frozen=True, eq=False)
class Greedy(PresenceExplainer):
    """The order in which patches best raise (or lower) the target's probability, found by trying every remaining patch at every step.

    A control like `random`, at the other end: it searches for what insertion or deletion measures, so it is never ranked among methods.
    Relevance falls evenly from 1 for the first patch. An image of n patches takes about n^2 / 2 runs of the network. For outputs without
    probabilities (`Classifier.output` "none"), the value itself takes the place of the probability.

    Args:
        model: Any classifier.
        order: "insertion" starts without patches and adds them; "deletion" starts from the image and takes them away.
        stride: Number of patches that change at a step; the cost falls in proportion.
        beam: Number of orders to continue at a step, of those with the highest sum of probabilities so far; the cost rises in proportion.
        baseline: Name in `vitrail.core.baselines` that replaces absent patches; None removes them where possible.
    """

    order: Literal["insertion", "deletion"] = "insertion"
    stride: int = 1
    beam: int = 1
    baseline: str | None = None

    paper: ClassVar[str] = "control"
    is_control: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stride < 1 or self.beam < 1 or (self.stride > 1 and self.beam > 1):
            raise InvalidInputError(
                f"expected stride and beam of at least 1, and one of them 1, got {self.stride} and {self.beam}"
            )

    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        grid_size, baseline = self.model.grid_size(images), choose_baseline(self.model, images, self.baseline)
        num_cells = torch.Size(grid_size).numel()
        logits = self.model.logits(images)
        targets = choose(logits)

        def values(keep: Keep) -> Tensor:
            stepped = presence_logits(self.model, images, keep.to(images.device), baseline)
            # In double precision, probabilities near 1 still differ.
            shares = probabilities(at_least_float32(stepped).cpu().double(), self.model.output)
            return select_targets(shares, targets.cpu())

        inserts = self.order == "insertion"
        order = find_order(values, len(images), num_cells, inserts, inserts, self.stride, self.beam)
        relevance = 1 - order.argsort(1) / num_cells
        return Attribution(logits, targets, relevance.unflatten(1, grid_size).to(at_least_float32(logits)))

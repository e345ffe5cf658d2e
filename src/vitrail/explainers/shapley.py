"""Shapley values: what a patch adds to the logit, averaged over all orders in which patches can be added."""

from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vitrail.adapters.memory import memory_budget
from vitrail.core.errors import InvalidInputError
from vitrail.core.float32 import at_least_float32
from vitrail.core.outputs import select_targets
from vitrail.core.progress import stretch
from vitrail.core.types import Images, Targets
from vitrail.explainers._presence import PresenceExplainer, absence_logits, choose_baseline, presence_logits
from vitrail.explainers._shapley import Ends, Sampler, Value, smallest_budget, solve
from vitrail.explainers._shapley_samplers import Permutations, Regression
from vitrail.explainers.base import EXPLAINERS, Attribution, ChooseTargets


@EXPLAINERS.register("shapley")
@final
@dataclass(frozen=True, eq=False)
class Shapley(PresenceExplainer):
    """What a patch adds to the target logit when it joins others, averaged over all orders in which patches can be added.

    Relevance sums to the difference between the logits with all and with no patches. Absent patches are removed from a Vision
    Transformer that can run without them; a network that cannot sees them replaced by zero. Sampled values have standard errors.

    Args:
        model: Any classifier.
        value: "shapley"; or "banzhaf", which averages over all subsets of the other patches instead, and does not sum to the difference.
        estimator: "kernel" is paired KernelSHAP, a regression on random subsets; "permutation" samples pairs of opposite orders.
        num_passes: Largest number of subsets to run per image. If all subsets fit, values are exact.
        max_error: Stop when every patch's standard error is at most this share of the difference; 0 uses all passes.
        region: Side of the squares of patches that are present or absent together; each patch of a square gets an equal share.
        baseline: Name in `vitrail.core.baselines` that replaces absent patches; None removes them where possible.
        seed: Seed of the subsets; all images share them.

    Source: Shapley 1953; Castro et al. 2009; Mitchell et al. 2022, arXiv:2104.12199; Covert & Lee 2021, arXiv:2012.01536; Witter
    et al. 2025, arXiv:2506.11849; removal of tokens: Covert et al. 2023, arXiv:2206.05282.

    Differs: runs the network itself on fewer tokens, without a surrogate fine-tuned for missing patches; values the logit, not the
    probability.
    """

    value: Value = "shapley"
    estimator: Literal["kernel", "permutation"] = "kernel"
    num_passes: int = 4096
    max_error: float = 0.02
    region: int = 1
    baseline: str | None = None
    seed: int = 0

    paper: ClassVar[str] = "Shapley 1953; Mitchell et al. 2022, arXiv:2104.12199; Covert & Lee 2021, arXiv:2012.01536"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.region < 1 or self.num_passes < 2 or not 0 <= self.max_error < 1:
            raise InvalidInputError(
                f"expected region of at least 1, num_passes of at least 2 and 0 <= max_error < 1, got {self.region}, {self.num_passes} and "
                f"{self.max_error}"
            )
        if self.value == "banzhaf" and self.estimator == "permutation":
            raise InvalidInputError(
                "expected estimator='kernel' for value='banzhaf', which no order defines, got 'permutation'"
            )

    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        grid_size, baseline = self.model.grid_size(images), choose_baseline(self.model, images, self.baseline)
        region_of = assign_regions(grid_size, self.region)
        num_players = int(region_of[-1]) + 1
        sampler = self._sampler(num_players)
        every_cell = torch.ones(len(images), 1, len(region_of), dtype=torch.bool, device=images.device)
        # Also the whole image takes the numerical path of the subsets.
        with stretch(0.0, 0.0):
            logits = presence_logits(self.model, images, every_cell, baseline)[:, 0]
            absent = absence_logits(self.model, images, baseline)
        targets = choose(logits)
        none, everything = (_gather(each[:, None], targets)[0] for each in (absent, logits))
        # Subsets whose logits take at most the memory of a batch.
        num_together = max(1, memory_budget(images.device) // (8 * logits[0].numel() * len(images)))

        num_played = 0

        def play(subsets: Tensor, games: Tensor) -> Tensor:
            nonlocal num_played
            chosen = games.to(images.device)
            values = []
            for keep in subsets[:, region_of].to(images.device).split(num_together):
                with stretch(num_played / self.num_passes, (num_played + len(keep)) / self.num_passes):
                    stepped = presence_logits(self.model, images[chosen], keep.expand(len(chosen), -1, -1), baseline)
                num_played += len(keep)
                values.append(_gather(stepped, targets[chosen]))
            return torch.cat(values)

        estimate = solve(
            play, num_players, Ends(none, everything), sampler, self.value, self.num_passes, self.max_error, self.seed
        )
        shares = region_of.bincount()[region_of, None]
        relevance, error = (
            (each[region_of] / shares).T.unflatten(1, grid_size).to(at_least_float32(logits))
            for each in (estimate.values, estimate.standard_error)
        )
        bias = none.to(relevance) if self.value == "shapley" else None
        return Attribution(logits, targets, relevance, bias, error)

    def _sampler(self, num_players: int) -> Sampler:
        sampler = Permutations() if self.estimator == "permutation" else Regression(self.value)
        if self.num_passes < (needed := smallest_budget(num_players, sampler)):
            raise InvalidInputError(
                f"expected num_passes of at least {needed} for {num_players} regions by estimator={self.estimator!r}, got "
                f"{self.num_passes}; raise it, or choose a larger region"
            )
        return sampler


def assign_regions(grid_size: tuple[int, int], side: int) -> Int[Tensor, " n"]:
    """Return the region of every cell: squares of `side` cells, smaller at the right and lower edge."""
    rows, cols = (torch.arange(length, device="cpu") // side for length in grid_size)
    return (rows[:, None] * (int(cols[-1]) + 1) + cols).flatten()


def _gather(logits: Float[Tensor, "b s c"], targets: Targets) -> Float[Tensor, "s b"]:
    """Return the logits of the targets in double precision, on the CPU: some devices have none."""
    return select_targets(logits, targets).T.cpu().double()

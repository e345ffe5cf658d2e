"""HiT's own explanations: the model's arithmetic, and its attention."""

from dataclasses import dataclass
from typing import ClassVar, final

from vitrail.adapters import Check, Classifier
from vitrail.core.types import Images
from vitrail.explainers.base import EXPLAINERS, Attribution, ChooseTargets, OwnPassExplainer
from vitrail.models.hit import Contributions, HiT
from vitrail.models.hit.contributions import NormMean, spread_attention


@dataclass(frozen=True, eq=False)
class HiTExplainer(OwnPassExplainer):
    """Abstract: what a HiT tells of itself in its own forward pass."""

    paper: ClassVar[str] = "Jeanneret et al. 2025, arXiv:2502.17196"
    needs_model: ClassVar[str] = "HiT"

    @classmethod
    def refusal(cls, model: Classifier) -> str | None:
        if isinstance(model.module, HiT):
            return None
        return "only a HiT is a sum over patches; train one, or choose a method for any ViT"


@EXPLAINERS.register("hit")
@final
@dataclass(frozen=True, eq=False)
class HiTContributions(HiTExplainer):
    """What each patch gave to the logit, exactly: relevance summed over the grid, plus `bias`, is the logit.

    Args:
        model: A HiT.
        norm_mean: How the mean that the final norm subtracts is booked: "shared", as published, or "own" (`HiT.contributions`).

    Source: Jeanneret et al. 2025, section 3, arXiv:2502.17196.

    Differs: exact for the no-pool variant too; constants are kept apart as `bias`, not spread over the patches.
    """

    norm_mean: NormMean = "shared"

    relies_on: ClassVar[tuple[Check, ...]] = ("parts",)

    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        split: Contributions = self.model.module.contributions(images, choose, self.norm_mean)  # type: ignore[operator]
        return Attribution(split.logits, split.targets[:, 0], split.patches[:, 0], split.patch_bias[:, 0])


@EXPLAINERS.register("hit-rollout")
@final
@dataclass(frozen=True, eq=False)
class HiTRollout(HiTExplainer):
    """The class token's attention, mean over heads, summed over layers. The same map for every class.

    Source: Jeanneret et al. 2025, arXiv:2502.17196, rollout view.
    """

    relies_on: ClassVar[tuple[Check, ...]] = ("attention",)

    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        with self.model.record(attentions=True) as trace:  # type: ignore[attr-defined]
            logits = self.model.logits(images)
        maps = spread_attention([weights[:, :, 0, 1:] for weights in trace.attentions], self.model.grid_size(images))
        return Attribution(logits, choose(logits), maps)

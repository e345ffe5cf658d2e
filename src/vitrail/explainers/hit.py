"""HiT's built-in explanations: the exact contributions of patches to the logit, and its attention."""

from dataclasses import dataclass
from typing import ClassVar, final

from vitrail.adapters import Check, Classifier
from vitrail.core.types import Images
from vitrail.explainers.base import EXPLAINERS, Attribution, ChooseTargets, Explainer
from vitrail.models.hit import Contributions, HiT
from vitrail.models.hit.contributions import NormMean, spread_attention


@dataclass(frozen=True, eq=False)
class HiTExplainer(Explainer):
    """Abstract base of the explanations that a HiT computes in its own forward pass."""

    paper: ClassVar[str] = "Jeanneret et al. 2025, arXiv:2502.17196"
    needs_model: ClassVar[str] = "HiT"

    @classmethod
    def refusal(cls, model: Classifier) -> str | None:
        if isinstance(model.module, HiT):
            return None
        return "only the logit of a HiT is a sum over patches; train a HiT, or choose another method"


@EXPLAINERS.register("hit")
@final
@dataclass(frozen=True, eq=False)
class HiTContributions(HiTExplainer):
    """The exact contribution of every patch to the logit: relevance summed over the grid, plus `bias`, is the logit.

    Args:
        model: A HiT.
        norm_mean: How to attribute the mean that the final norm subtracts: "shared", as published, or "own"; see
            `HiT.contributions`.

    Source: Jeanneret et al. 2025, section 3, arXiv:2502.17196.

    Differs: exact for the no-pool variant too; constants are kept in `bias`, not spread over the patches.
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
    """Attention of the class token, averaged over heads and summed over layers. The map is the same for every class.

    Args:
        model: A HiT.

    Source: Jeanneret et al. 2025, arXiv:2502.17196, rollout view.
    """

    relies_on: ClassVar[tuple[Check, ...]] = ("attention",)

    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        with self.model.record(attentions=True) as trace:  # type: ignore[attr-defined]
            logits = self.model.logits(images)
        maps = spread_attention([weights[:, :, 0, 1:] for weights in trace.attentions], self.model.grid_size(images))
        return Attribution(logits, choose(logits), maps)

"""MUTEX: finds the central patches of the attention network, and runs the model on them alone."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vitrail.adapters import Check, Classifier
from vitrail.core.errors import InvalidInputError
from vitrail.core.float32 import at_least_float32, matmul_float32
from vitrail.core.outputs import select_targets
from vitrail.core.types import Attentions, Images, Targets
from vitrail.explainers._attention import check_starting_block, expect_all_patches
from vitrail.explainers._multiplex import HEAD_REDUCTIONS, STATISTICS, check_names, degree_centralities, keep_strongest
from vitrail.explainers.base import EXPLAINERS, Attribution, ChooseTargets, Explainer


@EXPLAINERS.register("mutex")
@final
@dataclass(frozen=True, eq=False)
class Mutex(Explainer):
    """The target's probability with only the patches of a mask present, averaged over the masks that keep a patch.

    Each mask keeps the patches with the largest values of one statistic over blocks, of one centrality (in-degree or out-degree),
    in the attention network of one reduction of the heads: 3 x 2 x 9 masks. For outputs without probabilities (`Classifier.output`
    "none"), the value itself takes the place of the probability.

    Args:
        model: A ViT whose patches attend to each other.
        min_cut: In every block, drop arcs weaker than this share of the strongest arc.
        token_ratio: Share of patches that a mask discards. Of n patches, n - ceil(n * ratio) + 1 are kept, plus ties.
        starting_block: First block to use.
        head_reductions: One or more of "min", "max", "sum".
        statistics: One or more of the names in `_multiplex.STATISTICS`.

    Source: "Multiplex Network-Based Representation of Vision Transformers for Visual Explainability", Neural Computing and
    Applications 37:24385, 2025, DOI 10.1007/s00521-025-11591-x.

    Differs: class 0 can be explained. `token_ratio` may be 0 (all patches) and 1 (one patch, and ties). Equal masks of an image
    run once; empty masks do not run.
    """

    min_cut: float = 0.01
    token_ratio: float = 0.5
    starting_block: int = 0
    head_reductions: tuple[str, ...] = tuple(HEAD_REDUCTIONS)
    statistics: tuple[str, ...] = tuple(STATISTICS)

    paper: ClassVar[str] = "MUTEX 2025, doi:10.1007/s00521-025-11591-x"
    batches_passes: ClassVar[bool] = True
    needs_model: ClassVar[str] = "ViT with self-attention"
    relies_on: ClassVar[tuple[Check, ...]] = ("attention", "parts", "removal")

    @classmethod
    def refusal(cls, model: Classifier) -> str | None:
        reason = super().refusal(model)
        if reason is None and not model.patches_attend:  # type: ignore[attr-defined]
            return "its patches do not attend to each other, so there is no network of patches"
        return reason

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names("head_reductions", self.head_reductions, list(HEAD_REDUCTIONS))
        check_names("statistics", self.statistics, list(STATISTICS))
        if not (0 <= self.min_cut <= 1 and 0 <= self.token_ratio <= 1):
            raise InvalidInputError(f"expected min_cut and token_ratio from 0 to 1, got {self.min_cut} and {self.token_ratio}")
        check_starting_block(self.starting_block, len(self.vit.blocks))

    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        # Only degrees are recorded, so the attention of a block is freed before that of the next block is computed.
        grid_size = self.vit.grid_size(images)

        def measure(attentions: Attentions) -> Tensor:
            expect_all_patches(self.vit, attentions.shape[-1], grid_size)
            return self._degrees(attentions)

        with self.vit.record(attentions=measure, blocks=slice(self.starting_block, None)) as trace:
            logits = self.vit.logits(images)
        targets = choose(logits)
        masks = self.masks(torch.stack(trace.attentions, -2))
        confidences = self.confidences(images, masks, targets)
        kept = masks.to(confidences)
        relevance = matmul_float32(confidences.unsqueeze(1), kept).squeeze(1) / kept.sum(1).clamp_min(1)
        return Attribution(logits, targets, relevance.unflatten(1, grid_size))

    def _degrees(self, attentions: Attentions) -> Tensor:
        prefix = self.vit.num_prefix_tokens
        patches = at_least_float32(attentions[:, :, prefix:, prefix:])
        return degree_centralities(patches, self.head_reductions, self.min_cut)

    def masks(self, centralities: Float[Tensor, "b reductions directions l n"]) -> Bool[Tensor, "b masks n"]:
        """Return the masks of every image: for every reduction first in-degree, then out-degree, each by statistic."""
        values = torch.stack([STATISTICS[name](centralities) for name in self.statistics], -2)
        return keep_strongest(values, self.token_ratio).flatten(1, -2)

    def confidences(self, images: Images, masks: Bool[Tensor, "b masks n"], targets: Targets) -> Float[Tensor, "b masks"]:
        """Return the target's probability with only the patches of a mask present; 0 for an empty mask."""
        # An empty mask says nothing about any patch. The pass of another mask stands in for it, and costs nothing.
        filled = torch.where(masks.any(-1, keepdim=True), masks, _pick_largest(masks))
        probabilities = self.model.probabilities(self.vit.kept_logits(images, filled))
        return select_targets(probabilities, targets).where(masks.any(-1), 0)


def _pick_largest(masks: Bool[Tensor, "b masks n"]) -> Bool[Tensor, "b 1 n"]:
    """Return the mask of every image that keeps the most patches; all patches if every mask is empty."""
    largest = masks.take_along_dim(masks.sum(-1).argmax(1)[:, None, None], 1)
    return largest | ~largest.any(-1, keepdim=True)

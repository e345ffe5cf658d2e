"""MUTEX: attention as a multiplex network, whose central patches are tried out by the model."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vitrail.adapters import Check, Classifier
from vitrail.adapters.memory import in_batches
from vitrail.core.errors import InvalidInputError
from vitrail.core.types import Attentions, Images, Targets
from vitrail.explainers._multiplex import HEAD_REDUCTIONS, STATISTICS, check_names, degree_centralities, strongest
from vitrail.explainers._precision import at_least_single, product
from vitrail.explainers.base import EXPLAINERS, Attribution, ChooseTargets, OwnPassExplainer


@EXPLAINERS.register("mutex")
@final
@dataclass(frozen=True, eq=False)
class Mutex(OwnPassExplainer):
    """The target's probability when only a mask's patches are there, averaged per patch over the masks that keep it.

    Each mask keeps the patches in which one statistic, over blocks, of one centrality (in or out), in the network of one reduction
    of the heads, is largest: 3 x 2 x 9 masks.

    Args:
        model: A ViT whose patches attend to each other.
        min_cut: In every block, arcs below this share of the strongest are left out.
        token_ratio: Share of patches that a mask discards. Of n patches n - ceil(n * ratio) + 1 stay, and ties.
        starting_block: The first block that counts.
        head_reductions: Some of "min", "max", "sum".
        statistics: Some of those in `multiplex.STATISTICS`.

    Source: "Multiplex Network-Based Representation of Vision Transformers for Visual Explainability", Neural Computing and
    Applications 37:24385, 2025, DOI 10.1007/s00521-025-11591-x.

    Differs: class 0 is a class. `token_ratio` may be 0 (all patches) and 1 (one, and ties). Equal masks of an image run once, empty
    ones not at all.
    """

    min_cut: float = 0.01
    token_ratio: float = 0.5
    starting_block: int = 0
    head_reductions: tuple[str, ...] = tuple(HEAD_REDUCTIONS)
    statistics: tuple[str, ...] = tuple(STATISTICS)

    paper: ClassVar[str] = "MUTEX 2025, doi:10.1007/s00521-025-11591-x"
    needs_model: ClassVar[str] = "ViT with self-attention"
    relies_on: ClassVar[tuple[Check, ...]] = ("attention", "parts", "removal")

    @classmethod
    def refusal(cls, model: Classifier) -> str | None:
        reason = super().refusal(model)
        if reason is None and not model.patches_attend:  # type: ignore[attr-defined]
            return "its patches do not attend to each other, so that there is no network of patches"
        return reason

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names("head_reductions", self.head_reductions, list(HEAD_REDUCTIONS))
        check_names("statistics", self.statistics, list(STATISTICS))
        if not (0 <= self.min_cut <= 1 and 0 <= self.token_ratio <= 1):
            raise InvalidInputError(f"expected min_cut and token_ratio from 0 to 1, got {self.min_cut} and {self.token_ratio}")
        if not 0 <= self.starting_block < len(self.vit.blocks):
            raise InvalidInputError(
                f"expected a starting_block from 0 to {len(self.vit.blocks) - 1}, got {self.starting_block}"
            )

    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        # Only degrees are kept of every block: its attention is freed before the next one's is formed.
        with self.vit.record(attentions=self._degrees, blocks=slice(self.starting_block, None)) as trace:
            logits = self.vit.logits(images)
        targets = choose(logits)
        masks = self.masks(torch.stack(trace.attentions, -2))
        confidences = self.confidences(images, masks, targets)
        kept = masks.to(confidences)
        relevance = product(confidences.unsqueeze(1), kept).squeeze(1) / kept.sum(1).clamp_min(1)
        return Attribution(logits, targets, relevance.unflatten(1, self.vit.grid_size(images)))

    def _degrees(self, attentions: Attentions) -> Tensor:
        prefix = self.vit.num_prefix_tokens
        patches = at_least_single(attentions[:, :, prefix:, prefix:])
        return degree_centralities(patches, self.head_reductions, self.min_cut)

    def masks(self, centralities: Float[Tensor, "b reductions directions l n"]) -> Bool[Tensor, "b masks n"]:
        """The masks of every image: per reduction, first those of the in-degree, then those of the out-degree, by statistic."""
        values = torch.stack([STATISTICS[name](centralities) for name in self.statistics], -2)
        return strongest(values, self.token_ratio).flatten(1, -2)

    def confidences(self, images: Images, masks: Bool[Tensor, "b masks n"], targets: Targets) -> Float[Tensor, "b masks"]:
        """The target's probability with only a mask's patches present; 0 for an empty mask, which says nothing of any patch.

        Masks of all images run together, grouped by how many patches they keep.
        """
        grid_size, prefix = self.vit.grid_size(images), self.vit.num_prefix_tokens
        tokens = self.vit.assemble(self.vit.patch_embed(images), grid_size)
        owners = torch.arange(len(images), device=images.device).repeat_interleave(masks.shape[1])
        distinct, place = _distinct_rows(torch.cat([owners[:, None], masks.flatten(0, 1)], 1))
        owner, distinct_masks = distinct[:, 0], distinct[:, 1:].bool()
        counts = distinct_masks.sum(1)
        found = torch.zeros(len(distinct), device=images.device, dtype=at_least_single(tokens[:0]).dtype)
        for count in counts.unique().tolist():
            if not count:
                continue
            members = (counts == count).nonzero().squeeze(1)
            image, kept = owner[members], distinct_masks[members].nonzero()[:, 1].view(-1, count)

            def run(some: slice, image: Tensor = image, kept: Tensor = kept) -> Tensor:
                patches = tokens[image[some, None], prefix + kept[some]]
                remaining = torch.cat([tokens[image[some], :prefix], patches], 1)
                logits = self.vit.forward_tokens(remaining, grid_size, kept[some])
                return self.model.probabilities(logits).gather(1, targets[image[some], None]).squeeze(1)

            bytes_each = self.vit.bytes_per_pass(count, tokens.shape[2], tokens.element_size())
            found[members] = in_batches(run, len(members), bytes_each, images.device).to(found)
        return found[place].view(masks.shape[:2])


def _distinct_rows(rows: Int[Tensor, "rows columns"]) -> tuple[Int[Tensor, "distinct columns"], Int[Tensor, " rows"]]:
    """Every row once, and where each row is among them."""
    # Apple's GPUs cannot sort rows.
    there = rows.cpu() if rows.device.type == "mps" else rows
    distinct, place = there.unique(dim=0, return_inverse=True)
    return distinct.to(rows.device), place.to(rows.device)

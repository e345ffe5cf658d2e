"""Vision DiffMask: gates that learned which patches a ViT can do without."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vitrail.adapters import Check, Classifier
from vitrail.core.divergence import kl_divergence
from vitrail.core.errors import InvalidInputError
from vitrail.core.types import Images, Logits, Relevance
from vitrail.explainers._attention import on_grid
from vitrail.explainers._checks import check_images, expect_kind
from vitrail.explainers._masking import masked_logits, see
from vitrail.explainers._precision import at_least_single
from vitrail.explainers._trained_masks import find_mask, refuse_other_model
from vitrail.explainers.base import EXPLAINERS, Attribution, ChooseTargets, OwnPassExplainer
from vitrail.models.diffmask import DiffMask, TrainedMask
from vitrail.models.fingerprint import weights_fingerprint
from vitrail.models.hit import HiT

Masking = Literal["sampled", "expected", "hard"]


class MaskedPrediction(NamedTuple):
    """What is left of a ViT's decision when the gates have removed patches.

    Attributes:
        mask: Probability that every patch is kept, (b, rows, cols).
        layers: The same after every gate up to the asked one, (b, gates, rows, cols).
        share_kept: Mean of `mask` per image.
        logits: Of the whole images.
        masked_logits: With patches removed.
        kl: KL(p || p masked), per image.
    """

    mask: Relevance
    layers: Float[Tensor, "b gates rows cols"]
    share_kept: Float[Tensor, " b"]
    logits: Logits
    masked_logits: Logits
    kl: Float[Tensor, " b"]


@EXPLAINERS.register("diffmask")
@final
@dataclass(frozen=True, eq=False)
class VisionDiffMask(OwnPassExplainer):
    """The probability that a patch is kept by gates trained to remove all that the ViT's output does not need. One forward pass.

    Args:
        model: The ViT that the gates were trained on.
        checkpoint: Trained gates: a file, the folder of a training run, `vitrail:<bundled>`, or `TrainedMask`; the bundled ones
            that were trained on this very model if None.
        layer: The last gate that votes, as an index: 0 for the embedded patches, k for the input of block k, -1 for what leaves
            the last block.
        aggregated: Whether the gates before it vote too.
        check_weights: Whether a model with other weights than the gates were trained on is refused.

    Source: Nalmpantis et al. 2023, arXiv:2304.06391. The mask is the expected L0 norm of equation 8, without sampling.

    Differs: any ViT and any grid; the states are those of the forward pass that gives the logits. Where gates do not vote
    together, masks are drawn from the asked one alone, as they are shown; the published code draws them from all.
    """

    checkpoint: str | Path | TrainedMask | None = None
    layer: int = -1
    aggregated: bool = True
    check_weights: bool = True

    paper: ClassVar[str] = "Nalmpantis et al. 2023, arXiv:2304.06391"
    needs_training: ClassVar[bool] = True
    gives_probabilities: ClassVar[bool] = True
    relies_on: ClassVar[tuple[Check, ...]] = ("parts",)

    @classmethod
    def refusal(cls, model: Classifier) -> str | None:
        if isinstance(model.module, HiT) and len(model.module.config.widths) > 1:
            return "the patches of this HiT are merged from stage to stage, so that no gate can follow one"
        return super().refusal(model)

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_other_model(self.trained, self.vit, self.check_weights)
        num_gates = self.trained.network.config.num_gates
        if not -num_gates <= self.layer < num_gates:
            raise InvalidInputError(f"expected a layer from {-num_gates} to {num_gates - 1}, got {self.layer}")

    @cached_property
    def trained(self) -> TrainedMask:
        """The gates and what they belong to."""
        return self.checkpoint if isinstance(self.checkpoint, TrainedMask) else find_mask(self.checkpoint, self.vit)

    @cached_property
    def _moved(self) -> dict[tuple[torch.device, torch.dtype], DiffMask]:
        return {}

    @property
    def network(self) -> DiffMask:
        """The gates, where the model is now, in its precision or, of a model in half precision, in single."""
        given, place = self.trained.network, (self.model.device, torch.promote_types(self.model.dtype, torch.float32))
        if (given.device, given.dtype) == place:
            return given
        if place not in self._moved:
            self._moved[place] = deepcopy(given).to(*place)
        return self._moved[place]

    def learned(self) -> Mapping[str, str]:
        # Gates may be trained anew under the same path.
        return {"gates": weights_fingerprint(self.trained.network)}

    @property
    def num_states(self) -> int:
        """How many hidden states are read, and gates asked."""
        return self.layer % self.trained.network.config.num_gates + 1

    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        seen = see(self.vit, images, self.num_states)
        log_kept = self.network(seen.states, self.aggregated).log_kept()[..., -1]
        return Attribution(
            seen.logits, choose(seen.logits), on_grid(log_kept.exp(), self.vit.num_prefix_tokens, seen.grid_size)
        )

    def predict_masked(self, images: Images, masking: Masking = "sampled", seed: int = 0) -> MaskedPrediction:
        """Mask a batch, and ask the ViT again.

        Args:
            images: A normalized batch on the model's device.
            masking: "sampled" draws the gates once, as in training; "expected" keeps every patch in the measure of its
                probability; "hard" keeps the patches whose probability is at least one half.
            seed: Of the noise of "sampled": the same for every image, so that batches and single images agree, and on every
                device.

        Raises:
            InvalidInputError: Images that are not finite or not a batch, or another masking.
        """
        check_images(images, self.model)
        expect_kind("masking", masking, Masking)
        prefix = self.vit.num_prefix_tokens
        with torch.inference_mode(False), self.model.inspecting(), torch.no_grad(), self._autocast():
            seen = see(self.vit, images, self.num_states)
            votes = self.network(seen.states, self.aggregated)
            layers = votes.log_kept()[:, prefix:].exp().mT.unflatten(-1, seen.grid_size)
            mask = layers[:, -1]
            if masking == "sampled":
                shape, generator = votes.distribution.logits.shape, torch.Generator().manual_seed(seed)
                noise = torch.rand(shape[1:], generator=generator, device="cpu", dtype=torch.float32).to(images.device)
                kept = votes.sample(noise.expand(shape))[:, prefix:]
            else:
                kept = mask.flatten(1) if masking == "expected" else (mask.flatten(1) >= 0.5).to(mask.dtype)
            masked = masked_logits(self.vit, self.network, seen.patches, kept, seen.grid_size)
        logits, masked = at_least_single(seen.logits), at_least_single(masked)
        return MaskedPrediction(
            mask, layers, mask.mean((1, 2)), logits, masked, kl_divergence(logits, masked, self.model.output)
        )

    def logits_without(self, images: Images, keep: Bool[Tensor, "b n"]) -> Logits:
        """What the ViT says where some patches are the gates' placeholder.

        Args:
            images: A normalized batch on the model's device.
            keep: Over the patches, row by row; True = the patch of the image.
        """
        check_images(images, self.model)
        with torch.inference_mode(False), self.model.inspecting(), torch.no_grad(), self._autocast():
            patches, grid_size = self.vit.patch_embed(images), self.vit.grid_size(images)
            return at_least_single(masked_logits(self.vit, self.network, patches, keep.to(patches.dtype), grid_size))

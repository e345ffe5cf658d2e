"""Vision DiffMask: trained gates that mask the patches a ViT does not need."""

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
from vitrail.core.float32 import at_least_float32
from vitrail.core.options import check_option
from vitrail.core.outputs import has_probabilities
from vitrail.core.types import Images, Logits, Relevance
from vitrail.explainers._attention import to_grid
from vitrail.explainers._checks import check_images
from vitrail.explainers._masking import masked_logits, record_states
from vitrail.explainers._trained_masks import check_trained_on, find_mask
from vitrail.explainers.base import EXPLAINERS, Attribution, ChooseTargets, Explainer
from vitrail.models.diffmask import DiffMask, TrainedMask
from vitrail.models.fingerprint import weights_fingerprint
from vitrail.models.hit import HiT

Masking = Literal["sampled", "expected", "hard"]


class MaskedPrediction(NamedTuple):
    """A ViT's prediction before and after the gates mask patches.

    Attributes:
        mask: Probability of keeping every patch, (b, rows, cols).
        layers: The same after every gate up to `layer`, (b, gates, rows, cols).
        share_kept: Mean of `mask` per image.
        logits: Logits of the whole images.
        masked_logits: Logits of the masked images.
        kl: KL(p || p masked) per image, in nats.
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
class VisionDiffMask(Explainer):
    """The probability of keeping a patch, by gates trained to mask as much as possible without changing the ViT's output.

    One forward pass. The map is the same for every class.

    Args:
        model: The ViT that the gates were trained on.
        checkpoint: Trained gates: a file, the folder of a training run, `vitrail:<bundled>`, or a `TrainedMask`; None finds the
            bundled gates that were trained on exactly these weights.
        layer: Index of the last gate: 0 reads the embedded patches, k the input of block k, -1 the output of the last block.
        aggregated: Multiply the probabilities of all gates up to `layer`; False uses that gate alone.
        check_weights: Refuse a model with other weights than those the gates were trained on.

    Source: Nalmpantis et al. 2023, arXiv:2304.06391. The mask is the expected L0 norm of equation 8, without sampling.

    Differs: works for any ViT and any grid; hidden states come from the forward pass that computes the logits. With
    `aggregated=False`, sampled masks are drawn from the one gate that is shown; the published code draws them from all gates.
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
            return "the patches of this HiT are merged from stage to stage, so gates cannot follow them"
        if not has_probabilities(model.output):
            return "its gates compare probabilities, and this network gives numbers without; choose another method"
        return super().refusal(model)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_trained_on(self.trained, self.vit, self.check_weights)
        num_gates = self.trained.network.config.num_gates
        if not -num_gates <= self.layer < num_gates:
            raise InvalidInputError(f"expected a layer from {-num_gates} to {num_gates - 1}, got {self.layer}")

    @cached_property
    def trained(self) -> TrainedMask:
        """The gates with a description of the model they were trained on."""
        return self.checkpoint if isinstance(self.checkpoint, TrainedMask) else find_mask(self.checkpoint, self.vit)

    @cached_property
    def _moved(self) -> dict[tuple[torch.device, torch.dtype], DiffMask]:
        return {}

    @property
    def network(self) -> DiffMask:
        """The gates on the model's device, in the precision of its weights, at least float32."""
        network, target = self.trained.network, (self.model.device, torch.promote_types(self.model.dtype, torch.float32))
        if (network.device, network.dtype) == target:
            return network
        if target not in self._moved:
            self._moved[target] = deepcopy(network).to(*target)
        return self._moved[target]

    def trained_weights(self) -> Mapping[str, str]:
        # A training run may write other gates under the same path.
        return {"gates": weights_fingerprint(self.trained.network)}

    @property
    def num_states(self) -> int:
        """Number of gates up to `layer`, and of the hidden states they read."""
        return self.layer % self.trained.network.config.num_gates + 1

    def attribution(self, images: Images, choose: ChooseTargets) -> Attribution:
        recorded = record_states(self.vit, images, self.num_states)
        log_kept = self.network(recorded.states, self.aggregated).log_kept()[..., -1]
        relevance = to_grid(log_kept.exp(), self.vit, recorded.grid_size)
        return Attribution(recorded.logits, choose(recorded.logits), relevance)

    def predict_masked(self, images: Images, masking: Masking = "sampled", seed: int = 0) -> MaskedPrediction:
        """Mask a batch with the gates, and run the ViT on the masked images.

        Args:
            images: A normalized batch on the model's device.
            masking: "sampled" samples the gates once, as in training; "expected" blends every patch with the placeholder by its
                probability; "hard" keeps the patches with a probability of at least 0.5.
            seed: Seed of the noise of "sampled". The noise is the same for every image and device, so that batches and single
                images agree.

        Raises:
            InvalidInputError: Images that are not a finite batch, or an unknown masking.
        """
        check_images(images, self.model)
        check_option("masking", masking, Masking)
        prefix = self.vit.num_prefix_tokens
        with self._inspecting():
            recorded = record_states(self.vit, images, self.num_states)
            votes = self.network(recorded.states, self.aggregated)
            layers = votes.log_kept()[:, prefix:].exp().mT.unflatten(-1, recorded.grid_size)
            mask = layers[:, -1]
            if masking == "sampled":
                shape, generator = votes.distribution.logits.shape, torch.Generator().manual_seed(seed)
                noise = torch.rand(shape[1:], generator=generator, device="cpu", dtype=torch.float32).to(images.device)
                kept = votes.sample(noise.expand(shape))[:, prefix:]
            else:
                kept = mask.flatten(1) if masking == "expected" else (mask.flatten(1) >= 0.5).to(mask.dtype)
            masked = masked_logits(self.vit, self.network, recorded.patches, kept, recorded.grid_size)
        logits, masked = at_least_float32(recorded.logits), at_least_float32(masked)
        kl = kl_divergence(logits, masked, self.model.output)
        return MaskedPrediction(mask, layers, mask.mean((1, 2)), logits, masked, kl)

    def placeholder_logits(self, images: Images, keep: Bool[Tensor, "b n"]) -> Logits:
        """Return logits with removed patches replaced by the gates' trained placeholder.

        Args:
            images: A normalized batch on the model's device.
            keep: Mask over the patches, row by row; True = kept.
        """
        check_images(images, self.model)
        with self._inspecting():
            patches, grid_size = self.vit.patch_embed(images), self.vit.grid_size(images)
            return at_least_float32(masked_logits(self.vit, self.network, patches, keep.to(patches.dtype), grid_size))

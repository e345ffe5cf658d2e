"""Run a network with some cells present and the others absent: their tokens removed, or their content replaced by a baseline."""

import logging
from typing import ClassVar, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vitrail.adapters import Check, Classifier, ViTAdapter
from vitrail.core.baselines import check_baseline
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.types import Images, Keep, Logits, Targets
from vitrail.explainers.base import ChooseTargets, Explainer

logger = logging.getLogger(__name__)

REPLACEMENT = "zero"
"""The baseline where tokens cannot be removed."""


class PresenceExplainer(Explainer):
    """Abstract: runs any classifier many times, with some patches present and the others absent."""

    baseline: str | None
    """Name in `vitrail.core.baselines` that replaces absent patches: an option of every method, each with its own default."""

    batches_passes: ClassVar[bool] = True
    needs_model: ClassVar[str] = "any"
    relies_on: ClassVar[tuple[Check, ...]] = ("parts",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.baseline is not None:
            check_baseline(self.baseline)

    def masked_logits(
        self, images: Images, masks: Bool[Tensor, "s n"], baseline: str, choose: ChooseTargets
    ) -> tuple[Float[Tensor, "b s+1 c"], Targets]:
        """Return logits of the whole image, then under every mask (True = present), and the targets.

        The whole image is a step, too, so that all logits take the same numerical path.
        """
        keep = torch.cat([torch.ones_like(masks[:1]), masks]).expand(len(images), -1, -1)
        stepped = self.model.perturbed_logits(images, self.model.baseline(baseline, images), keep)
        return stepped, choose(stepped[:, 0])


def choose_baseline(model: Classifier, images: Images, baseline: str | None) -> str | None:
    """Return what replaces absent cells; None if their tokens are removed.

    Tokens are removed from a Vision Transformer whose patches attend to each other and that can run without some of them. A HiT shares
    work between replaced patches instead.

    Args:
        model: Any classifier.
        images: Images of the shape that will be run.
        baseline: A name in `vitrail.core.baselines`, which is kept; None to remove tokens where possible.
    """
    if baseline is not None or not isinstance(model, ViTAdapter) or not model.patches_attend:
        return baseline or REPLACEMENT
    try:
        with model.verified("parts", "removal", like=images):
            return None
    except UnsupportedModelError as error:
        logger.warning(
            "absent patches of %s are replaced by %s, since its tokens cannot be removed: %s", model.name, REPLACEMENT, error
        )
        return REPLACEMENT


def presence_logits(model: Classifier, images: Images, keep: Keep, baseline: str | None) -> Float[Tensor, "b s c"]:
    """Return logits with only the kept cells present; at least one if tokens are removed.

    Args:
        model: Any classifier.
        images: A normalized batch.
        keep: True = the cell is present.
        baseline: As `choose_baseline` returned it.
    """
    if baseline is None:
        return cast(ViTAdapter, model).kept_logits(images, keep)
    return model.perturbed_logits(images, model.baseline(baseline, images), keep)


def absence_logits(model: Classifier, images: Images, baseline: str | None) -> Logits:
    """Return logits with no cell present.

    A network whose head reads patches, or may do so, cannot run without any; then all cells are replaced by zero.
    """
    num_cells = torch.Size(model.grid_size(images)).numel()
    keep = torch.zeros(len(images), 1, num_cells, dtype=torch.bool, device=images.device)
    if baseline is None and reads_patches(cast(ViTAdapter, model), images):
        baseline = REPLACEMENT
    return presence_logits(model, images, keep, baseline)[:, 0]


def reads_patches(model: ViTAdapter, images: Images | None = None) -> bool:
    """Return whether the head reads patch tokens, as far as can be seen; True for kinds of pooling that are not weights.

    Args:
        model: A Vision Transformer.
        images: Images of the shape that will be run; None for the network's own.
    """
    try:
        with model.verified("pooling_weights", like=images):
            return bool(model.pooling_weights(model.num_prefix_tokens + 1)[model.num_prefix_tokens :].any())
    except UnsupportedModelError:
        return True

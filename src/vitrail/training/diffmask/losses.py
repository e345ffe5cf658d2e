"""What gates minimize: the patches that they keep, as long as the network's output stays."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vitrail.adapters import ViTAdapter
from vitrail.core.divergence import kl_divergence
from vitrail.core.outputs import decisions
from vitrail.core.types import Images
from vitrail.explainers._masking import masked_logits, see
from vitrail.models.diffmask import DiffMask


class Masked(NamedTuple):
    """One masking of a batch, in the graph of the gates.

    Attributes:
        kl: KL(p || p masked), per image.
        log_kept: Mean over tokens of log P(kept): what is minimized of the mask, per image.
        norm: Mean over tokens of P(kept), per image: the expected L0 norm.
        kept: Mean over patches of P(kept), per image, without prefix tokens.
        agrees: Whether the decision stays.
    """

    kl: Float[Tensor, " b"]
    log_kept: Float[Tensor, " b"]
    norm: Float[Tensor, " b"]
    kept: Float[Tensor, " b"]
    agrees: Bool[Tensor, " b"]


def mask_once(vit: ViTAdapter, mask: DiffMask, images: Images, noise: Float[Tensor, "b t gates"]) -> Masked:
    """Mask a batch by its first gates, sampled, and ask the ViT.

    The ViT runs twice: without a graph on the whole images, of which it keeps no more hidden states than there are gates to ask;
    and with one on the masked patches.

    Args:
        vit: In evaluation mode; no gradient of its weights is computed where none is asked for.
        mask: The gates.
        images: A normalized batch.
        noise: Uniform in [0, 1), for as many gates as are to vote.

    Source: Nalmpantis et al. 2023, equations 6 to 9, arXiv:2304.06391. As in its code, the prefix tokens count in the norm.
    """
    with torch.no_grad():
        seen = see(vit, images, noise.shape[-1])
    votes, prefix = mask(seen.states), vit.num_prefix_tokens
    kept = votes.sample(noise)
    masked = masked_logits(vit, mask, seen.patches, kept[:, prefix:], seen.grid_size)
    log_kept = votes.log_kept()[..., -1]
    return Masked(
        kl=kl_divergence(seen.logits, masked, vit.output),
        log_kept=log_kept.mean(1),
        norm=log_kept.exp().mean(1),
        kept=log_kept[:, prefix:].exp().mean(1),
        agrees=decisions(seen.logits) == decisions(masked),
    )

"""Gates on a frozen ViT: what they see of an image, and what the ViT says when patches give way."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vitrail.adapters import ViTAdapter
from vitrail.core.types import Images, Logits, Patches, Tokens
from vitrail.models.diffmask import DiffMask


class Seen(NamedTuple):
    """One forward pass of a ViT, as gates read it.

    Attributes:
        logits: What the ViT says of the whole image.
        patches: Its embedded patches.
        states: State 0 (bare prefix tokens and patches), then the input of every block and what leaves the last; as many as
            were asked for.
        grid_size: Rows and columns of the patches.
    """

    logits: Logits
    patches: Patches
    states: Sequence[Tokens]
    grid_size: tuple[int, int]


def see(vit: ViTAdapter, images: Images, num_states: int) -> Seen:
    """Run the ViT once and keep its first `num_states` hidden states."""
    with vit.verified("parts", like=images):
        grid_size, patches = vit.grid_size(images), vit.patch_embed(images)
    prefix = vit.prefix_tokens.to(patches.dtype).expand(len(patches), -1, -1)
    with vit.record(hidden_states=True, num_hidden_states=num_states - 1) as trace:
        logits = vit.logits(images)
    return Seen(logits, patches, [torch.cat([prefix, patches], 1), *trace.hidden_states], grid_size)


def masked_logits(
    vit: ViTAdapter, mask: DiffMask, patches: Patches, kept: Float[Tensor, "b n"], grid_size: tuple[int, int]
) -> Logits:
    """What the ViT says where so much of every patch is kept and the rest is the gates' placeholder."""
    return vit.forward_tokens(vit.assemble(mask.masked(patches, kept), grid_size), grid_size)

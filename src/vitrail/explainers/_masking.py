"""Run a frozen ViT for DiffMask's gates: record the hidden states they read, and replace patches by their placeholder."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from vitrail.adapters import ViTAdapter
from vitrail.core.types import Images, Logits, Patches, Tokens
from vitrail.models.diffmask import DiffMask


class RecordedStates(NamedTuple):
    """One forward pass of a ViT, as gates read it.

    Attributes:
        logits: Logits of the whole image.
        patches: Embedded patches.
        states: State 0 (prefix tokens and patches before positions), then the input of every block and the output of the
            last one; only as many as requested.
        grid_size: Rows and columns of the patches.
    """

    logits: Logits
    patches: Patches
    states: Sequence[Tokens]
    grid_size: tuple[int, int]


def record_states(vit: ViTAdapter, images: Images, num_states: int) -> RecordedStates:
    """Run the ViT once and record its first `num_states` hidden states."""
    with vit.verified("parts", like=images):
        grid_size, patches = vit.grid_size(images), vit.patch_embed(images)
    prefix = vit.prefix_tokens.to(patches.dtype).expand(len(patches), -1, -1)
    with vit.record(hidden_states=True, num_hidden_states=num_states - 1) as trace:
        logits = vit.logits(images)
    return RecordedStates(logits, patches, [torch.cat([prefix, patches], 1), *trace.hidden_states], grid_size)


def masked_logits(
    vit: ViTAdapter, mask: DiffMask, patches: Patches, kept: Float[Tensor, "b n"], grid_size: tuple[int, int]
) -> Logits:
    """Return logits with every patch blended with the gates' placeholder; `kept` is the share of the patch."""
    return vit.forward_tokens(vit.assemble(mask.masked(patches, kept), grid_size), grid_size)
